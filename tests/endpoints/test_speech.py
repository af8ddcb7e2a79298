"""Speech: every field, sound as it is made, and every way that ElevenLabs can fail."""

import asyncio
import base64
import logging

import aiohttp
import pytest

from relay.config.navai_options import NavaiOptions
from relay.endpoints.navai.speech import accepts_audio
from relay.errors import NotConfigured, UpstreamError
from relay.upstreams.clients.elevenlabs import SpeechRequest, mime_type_for, synthesize_speech
from tests.support.contract_client import ELEVENLABS_KEY, SPEECH_PATH, contract_client, elevenlabs_env
from tests.support.scripted_provider import MP3, ScriptedResponse, scripted_provider

AS_AUDIO = {"Accept": "audio/*"}
TIMEOUT_S = 10.0


async def test_a_text_is_spoken() -> None:
    async with contract_client(elevenlabs=True) as harness:
        status, body, headers = await harness.call("POST", SPEECH_PATH, {"text": " Hello. "})
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert body == {
            "provider": "elevenlabs",
            "mimeType": "audio/mpeg",
            "audioBase64": base64.b64encode(MP3).decode(),
        }
        assert harness.provider.last.path == "/v1/text-to-speech/voice-1?output_format=mp3_44100_128"
        assert harness.provider.last.headers["xi-api-key"] == ELEVENLABS_KEY
        assert harness.provider.last.body == {"text": "Hello."}


async def test_an_empty_sound_is_an_empty_string() -> None:
    async with contract_client(elevenlabs=True) as harness:
        harness.provider.script = ScriptedResponse(body=b"")
        assert (await harness.post(SPEECH_PATH, {"text": "x"}))[1]["audioBase64"] == ""


@pytest.mark.parametrize(
    ("output_format", "mime_type"),
    [
        ("mp3_22050_32", "audio/mpeg"),
        ("MP3_44100_128", "audio/mpeg"),
        ("pcm_16000", "audio/pcm"),
        ("wav_44100", "audio/wav"),
        ("ulaw_8000", "audio/basic"),
        ("opus_48000_64", "audio/mpeg"),
        ("", "audio/mpeg"),
    ],
)
async def test_the_type_follows_the_format_where_none_is_told(output_format: str, mime_type: str) -> None:
    assert mime_type_for(output_format) == mime_type
    async with contract_client(elevenlabs=True) as harness:
        harness.provider.script = ScriptedResponse(body=b"\0\0", headers={"Content-Type": ""})
        _, body = await harness.post(SPEECH_PATH, {"text": "x", "outputFormat": output_format})
        assert body["mimeType"] == mime_type
        assert harness.provider.last.headers["accept"] == mime_type


@pytest.mark.parametrize(("latency", "sent"), [(2.5, "3"), (-1.5, "-1"), (0, "0"), (4, "4"), (0.49, "0")])
async def test_latencies_are_rounded_with_halves_up(latency: float, sent: str) -> None:
    async with contract_client({"ELEVENLABS_OPTIMIZE_STREAMING_LATENCY": "1"}, elevenlabs=True) as harness:
        await harness.post(SPEECH_PATH, {"text": "x", "optimizeStreamingLatency": latency})
        assert harness.provider.last.path.endswith(f"&optimize_streaming_latency={sent}")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": "  "}, "text"),
        ({"text": 5}, "text"),
        ({"text": "x" * 40_001}, "text"),
        ({"text": "x", "voiceSettings": {"stability": 1.1}}, "voiceSettings.stability"),
        ({"text": "x", "voiceSettings": {"similarityBoost": -0.1}}, "voiceSettings.similarityBoost"),
        ({"text": "x", "voiceSettings": {"style": 2}}, "voiceSettings.style"),
        ({"text": "x", "voiceId": 5}, "voiceId"),
        ({"text": "x", "modelId": []}, "modelId"),
        ({"text": "x", "outputFormat": {}}, "outputFormat"),
        ({"text": "x", "optimizeStreamingLatency": "3"}, "optimizeStreamingLatency"),
        ({"text": "x", "optimizeStreamingLatency": True}, "optimizeStreamingLatency"),
        ({"text": "x", "voiceSettings": []}, "voiceSettings"),
        ({"text": "x", "voiceSettings": {"stability": "high"}}, "voiceSettings.stability"),
        ({"text": "x", "voiceSettings": {"similarityBoost": []}}, "voiceSettings.similarityBoost"),
        ({"text": "x", "voiceSettings": {"style": "a"}}, "voiceSettings.style"),
        ({"text": "x", "voiceSettings": {"useSpeakerBoost": "yes"}}, "voiceSettings.useSpeakerBoost"),
    ],
)
async def test_bad_fields_are_named(body: dict[str, object], field: str) -> None:
    async with contract_client(elevenlabs=True) as harness:
        status, answer = await harness.post(SPEECH_PATH, body)
        assert (status, answer["field"]) == (400, field)
        assert not harness.provider.seen


async def test_speech_has_a_quota() -> None:
    async with contract_client(elevenlabs=True, limits_speech_per_minute=1) as harness:
        assert (await harness.post(SPEECH_PATH, {"text": "x"}))[0] == 200
        assert (await harness.post(SPEECH_PATH, {"text": "x"}))[0] == 429


# -- sound as it is made ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "audio"),
    [
        ("audio/*", True),
        ("audio/mpeg, */*;q=0.1", True),
        ("AUDIO/MPEG;q=0.5", True),
        ("*/*", False),
        ("", False),
        ("application/json, audio/*", False),
        ("audio/mpeg, application/*;q=0.9", False),
    ],
)
def test_who_asks_for_sound_gets_sound(accept: str, audio: bool) -> None:
    assert accepts_audio(accept) is audio


async def test_sound_arrives_before_the_last_of_it_is_made() -> None:
    async with contract_client(elevenlabs=True) as harness, asyncio.timeout(TIMEOUT_S):
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        harness.provider.script = ScriptedResponse(chunks=chunks, headers={"Content-Type": "audio/mpeg"})
        chunks.put_nowait(b"first")
        async with harness.http.post(harness.relay.http(SPEECH_PATH), json={"text": "x"}, headers=AS_AUDIO) as response:
            assert (response.status, response.headers["Content-Type"]) == (200, "audio/mpeg")
            assert response.headers["Transfer-Encoding"] == "chunked"
            assert await response.content.readany() == b"first"
            chunks.put_nowait(b"second")
            assert await response.content.readany() == b"second"
            chunks.put_nowait(None)
            assert await response.content.read() == b""
        assert harness.provider.last.path == "/v1/text-to-speech/voice-1/stream?output_format=mp3_44100_128"


async def test_a_page_of_another_origin_may_read_the_sound() -> None:
    async with contract_client(elevenlabs=True) as harness:
        headers = AS_AUDIO | {"Origin": "http://localhost:5173"}
        async with harness.http.post(harness.relay.http(SPEECH_PATH), json={"text": "x"}, headers=headers) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
            assert await response.read() == MP3


async def test_a_refusal_before_the_first_byte_is_json() -> None:
    async with contract_client(elevenlabs=True) as harness:
        harness.provider.script = ScriptedResponse(status=401, json={"detail": {"status": "invalid_api_key"}})
        status, answer, _ = await harness.call("POST", SPEECH_PATH, {"text": "x"}, headers=AS_AUDIO)
        assert (status, answer["error"]) == (502, "ElevenLabs synthesize failed (401): invalid_api_key")


@pytest.mark.parametrize("how", ["cut", "silence"])
async def test_sound_that_breaks_off_breaks_off_here_too(how: str, caplog) -> None:
    async with contract_client(elevenlabs=True, timeout_s=0.5) as harness, asyncio.timeout(TIMEOUT_S):
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        harness.provider.script = ScriptedResponse(chunks=chunks, cut_after=0 if how == "cut" else None)
        chunks.put_nowait(b"first")
        with pytest.raises(aiohttp.ClientError):
            async with harness.http.post(
                harness.relay.http(SPEECH_PATH), json={"text": "x"}, headers=AS_AUDIO
            ) as answer:
                await answer.read()
        chunks.put_nowait(None)
        assert "Traceback" not in caplog.text
        harness.provider.script = ScriptedResponse()
        assert (await harness.post(SPEECH_PATH, {"text": "x"}))[0] == 200


async def test_a_listener_who_leaves_ends_the_transfer() -> None:
    async with contract_client(elevenlabs=True) as harness, asyncio.timeout(TIMEOUT_S):
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        harness.provider.script = ScriptedResponse(chunks=chunks)

        async def talk_on() -> None:
            while True:
                await chunks.put(bytes(64 * 1024))

        talking = asyncio.create_task(talk_on())
        async with harness.http.post(harness.relay.http(SPEECH_PATH), json={"text": "x"}, headers=AS_AUDIO) as response:
            assert await response.content.readany()
            response.close()
        await harness.provider.left.wait()
        talking.cancel()


# -- what ElevenLabs can do -------------------------------------------------------------------------------------------

FAILURES = [
    (
        ScriptedResponse(status=401, json={"detail": {"status": "invalid_api_key", "message": ELEVENLABS_KEY}}),
        "(401): invalid",
    ),
    (ScriptedResponse(status=403, json={"detail": {"code": "missing_permissions"}}), "(403): missing_permissions"),
    (ScriptedResponse(status=404, json={"detail": {"status": "voice_not_found"}}), "(404): voice_not_found"),
    (ScriptedResponse(status=422, json={"detail": [{"loc": ["x"], "msg": "y"}]}), "failed (422)"),
    (ScriptedResponse(status=429, json={"detail": {"status": "too_many_concurrent_requests"}}), "(429): too_many"),
    (ScriptedResponse(status=500, body=b"<html>oops</html>"), "failed (500)"),
    (ScriptedResponse(hang_up=True), "connection was lost"),
    (ScriptedResponse(cut_after=5, body=bytes(100)), "connection was lost"),
    (ScriptedResponse(body=bytes(33 * 1024 * 1024)), "larger than 32768 KiB"),
]


@pytest.mark.parametrize(("script", "text"), FAILURES, ids=lambda value: str(value)[:60])
async def test_every_failure_is_told_without_key_or_raw_body(script: ScriptedResponse, text: str, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    async with contract_client(elevenlabs=True) as harness:
        harness.provider.script = script
        status, answer = await harness.post(SPEECH_PATH, {"text": "x"})
        assert (status, set(answer)) == (502, {"error"})
        assert text in answer["error"]
        assert len(harness.provider.seen) == 1
        assert ELEVENLABS_KEY not in answer["error"] + caplog.text
        assert "oops" not in answer["error"] + caplog.text


async def test_ten_megabytes_of_sound_pass() -> None:
    async with contract_client(elevenlabs=True) as harness:
        sound = bytes(range(256)) * 40_000
        harness.provider.script = ScriptedResponse(body=sound, headers={"Content-Type": "audio/mpeg"})
        _, body = await harness.post(SPEECH_PATH, {"text": "x"})
        assert base64.b64decode(body["audioBase64"]) == sound
        async with harness.http.post(harness.relay.http(SPEECH_PATH), json={"text": "x"}, headers=AS_AUDIO) as response:
            assert await response.read() == sound


async def test_a_slow_elevenlabs_is_a_504() -> None:
    async with contract_client(elevenlabs=True, timeout_s=0.2) as harness:
        harness.provider.script = ScriptedResponse(hang=True)
        for headers in ({}, AS_AUDIO):
            assert (await harness.call("POST", SPEECH_PATH, {"text": "x"}, headers=headers))[0] == 504


# -- the library ------------------------------------------------------------------------------------------------------


async def test_speech_in_one_call() -> None:
    async with scripted_provider() as provider:
        options = NavaiOptions.from_env(elevenlabs_env(provider))
        speech = await synthesize_speech(options, SpeechRequest(text="Hello."))
        assert (speech.mime_type, speech.audio) == ("audio/mpeg", MP3)
        provider.script = ScriptedResponse(status=401, body=b"")
        with pytest.raises(UpstreamError):
            await synthesize_speech(options, SpeechRequest(text="Hello."))
    with pytest.raises(NotConfigured, match="NAVAI_TTS_PROVIDER"):
        await synthesize_speech(NavaiOptions.from_env({}), SpeechRequest(text="Hello."))
