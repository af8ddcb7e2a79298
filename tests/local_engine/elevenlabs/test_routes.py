"""The engine's ElevenLabs routes over real sockets: HTTP, the HTTP stream, both WebSockets."""

import base64
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse

from audio.formats import PCM16_24K
from relay.local_engine.elevenlabs.contexts import ElevenLabsError, SpeechContext, SpeechContexts, parse_output_format
from relay.local_engine.speech.tts import SpeechSynthesizer
from tests.support.linear_time import assert_linear
from tests.support.scripted_elevenlabs import local_engine

Obj = dict[str, Any]
TEXT = "Hello there, it is 5:41 at Dr. Smith's. "


@pytest.fixture
async def engine():
    async with local_engine() as url, ClientSession(url) as http:
        yield http


async def until_final(socket: ClientWebSocketResponse, context_id: str | None = None) -> list[Obj]:
    messages: list[Obj] = []
    async for message in socket:
        reply = json.loads(message.data)
        assert "error" not in reply, reply
        if reply.get("contextId") == context_id:
            messages.append(reply)
            if reply.get("isFinal"):
                break
    return messages


def audio_of(messages: list[Obj]) -> bytes:
    return b"".join(base64.b64decode(message["audio"]) for message in messages if message.get("audio"))


def check_times(messages: list[Obj], text: str, ms: float) -> None:
    """Check that every character has a time, in order, within its chunk of audio."""
    chars: list[str] = []
    last = at = 0.0
    for message in messages:
        if not message.get("audio"):
            continue
        alignment = message["alignment"]
        assert len(alignment["chars"]) == len(alignment["charStartTimesMs"]) == len(alignment["charDurationsMs"])
        for char, start, length in zip(*alignment.values(), strict=True):
            chars.append(char)
            assert at + start >= last - 2
            last = at + start
            assert last + length <= ms + 2
        at += len(base64.b64decode(message["audio"])) / 48
    assert "".join(chars).split() == text.split()


async def test_a_context_speaks_with_the_time_of_every_character(engine) -> None:
    async with engine.ws_connect("/v1/text-to-speech/marin/multi-stream-input?output_format=pcm_24000") as socket:
        await socket.send_json({"text": " ", "context_id": "a", "voice_settings": {"stability": 0.5}})
        await socket.send_json({"text": TEXT, "context_id": "a", "flush": True})
        await socket.send_json({"context_id": "a", "close_context": True})
        messages = await until_final(socket, "a")
    audio = audio_of(messages)
    assert len(audio) > 48 * 1500
    check_times(messages, TEXT, len(audio) / 48)


async def test_the_other_websocket_speaks_until_the_empty_text(engine) -> None:
    async with engine.ws_connect("/v1/text-to-speech/cedar/stream-input?output_format=pcm_24000") as socket:
        await socket.send_json({"text": " "})
        await socket.send_json({"text": "One. "})
        await socket.send_json({"text": "Two. "})
        await socket.send_json({"text": ""})
        messages = await until_final(socket)
        assert len(audio_of(messages)) > 48 * 500
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_five_contexts_and_not_six(engine) -> None:
    async with engine.ws_connect("/v1/text-to-speech/marin/multi-stream-input?output_format=pcm_24000") as socket:
        for n in range(6):
            await socket.send_json({"text": " ", "context_id": f"c{n}"})
        reply = await socket.receive_json()
        assert reply["error"] == "max_active_conversations"
        await socket.receive()
        assert socket.close_code == 1008


async def test_a_closed_context_makes_room(engine) -> None:
    async with engine.ws_connect("/v1/text-to-speech/marin/multi-stream-input?output_format=pcm_24000") as socket:
        for n in range(12):
            await socket.send_json({"text": "One. ", "context_id": f"c{n}"})
            await socket.send_json({"context_id": f"c{n}", "close_context": True})
            await until_final(socket, f"c{n}")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1/text-to-speech/missing-1/multi-stream-input?output_format=pcm_24000", "voice_id_does_not_exist"),
        ("/v1/text-to-speech/marin/multi-stream-input?output_format=mp3_44100_128", "unsupported_output_format"),
        ("/v1/text-to-speech/marin/stream-input?output_format=pcm_24000&model_id=x", "model_id_does_not_exist"),
        ("/v1/text-to-speech/marin/stream-input?output_format=pcm_24000&inactivity_timeout=999", "invalid_inactivity"),
    ],
)
async def test_an_unknown_voice_model_or_format_is_named_before_the_close(engine, path: str, error: str) -> None:
    async with engine.ws_connect(path) as socket:
        assert (await socket.receive_json())["error"].startswith(error)
        await socket.receive()
        assert socket.close_code == 1008


@pytest.mark.parametrize(
    ("name", "bytes_per_s"), [("pcm_8000", 16_000), ("pcm_24000", 48_000), ("ulaw_8000", 8000), ("alaw_8000", 8000)]
)
async def test_http_returns_the_requested_format(engine, name: str, bytes_per_s: int) -> None:
    for path in ("/v1/text-to-speech/marin", "/v1/text-to-speech/marin/stream"):
        async with engine.post(f"{path}?output_format={name}", json={"text": TEXT}) as response:
            assert response.status == 200
            assert 2.0 < len(await response.read()) / bytes_per_s < 6.0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": ""}, 422, "empty_text"),
        ({"text": "x" * 40_001}, 400, "max_character_limit_exceeded"),
        ({"text": "Hi.", "voice_settings": {"stability": 2}}, 422, "invalid_voice_settings"),
        ([], 422, "invalid_body"),
    ],
)
async def test_http_refuses_invalid_requests(engine, body: Any, status: int, code: str) -> None:
    async with engine.post("/v1/text-to-speech/marin/stream?output_format=pcm_24000", json=body) as response:
        assert (response.status, (await response.json())["detail"]["status"]) == (status, code)


def test_closing_cancels_a_context_unless_it_was_flushed() -> None:
    contexts = SpeechContexts(multi=True)
    contexts.receive('{"text": "One", "context_id": "a"}')
    did = contexts.receive('{"context_id": "a", "close_context": true}')
    assert [context.id for context in did.cancelled] == ["a"]
    contexts.receive('{"text": "One. ", "context_id": "b", "flush": true}')
    did = contexts.receive('{"context_id": "b", "close_context": true}')
    assert did.finished is not None
    assert not did.cancelled


def spoken(text: str, step: int) -> list[str]:
    context = SpeechContext("a", 1.0)
    pieces = []
    for start in range(0, len(text), step):
        pieces += context.add_text(text[start : start + step], flush=False)
    return [*pieces, *context.add_text("", flush=True)]


@pytest.mark.parametrize("step", [1, 3, 100])
def test_a_context_speaks_sentence_by_sentence_however_the_text_comes(step: int) -> None:
    text = 'It is 3.30 p.m. now. "Really?!" she said... Yes.)\nA line\n\n你好。 Pi is 3.14'
    assert [piece.strip() for piece in spoken(text, step)] == [
        "It is 3.30 p.m. now.", '"Really?!" she said...', "Yes.)", "A line", "你好。", "Pi is 3.14"
    ]  # fmt: skip


def test_an_incomplete_sentence_waits() -> None:
    context = SpeechContext("a", 1.0)
    assert context.add_text("Version 2.", flush=False) == []
    assert context.add_text('5 is out."', flush=False) == []
    assert context.add_text(" Yes", flush=False) == ['Version 2.5 is out." ']


@pytest.mark.parametrize("unit", [".", " ", "a", '."', "\n", '"', "! a", ".a"])
@pytest.mark.parametrize("step", [1, 40_000])
def test_the_work_of_a_context_grows_with_its_text_alone(unit: str, step: int) -> None:
    assert_linear(lambda n_chars: spoken((unit * n_chars)[:n_chars], min(step, n_chars)), 10_000, max_ms=500)


@pytest.mark.parametrize("data", ["", "[]", '{"text": 1}', '{"text": "a", "voice_settings": []}'])
def test_invalid_messages_are_refused(data: str) -> None:
    with pytest.raises(ElevenLabsError):
        SpeechContexts(multi=True).receive(data)


@pytest.mark.parametrize("name", ["pcm_22051", "wav_8000", "", "opus_48000_32"])
def test_unknown_formats_are_refused(name: str) -> None:
    with pytest.raises(ElevenLabsError):
        parse_output_format(name)


@pytest.mark.parametrize("text", ["", "...", "你好。", "a—b 你好 c", " x  y "])
def test_every_text_has_a_time_for_every_character(text: str) -> None:
    speech = SpeechSynthesizer().synthesize_timed(text, "marin", PCM16_24K)
    assert speech.chars == list(text)
    assert len(speech.starts_ms) == len(speech.durations_ms) == len(text)
