"""Answers spoken by an ElevenLabs voice, from the device to the local engine at both other ends."""

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from relay.app.server import create_app
from relay.auth.keyring import key_identity
from relay.config.navai_options import ElevenLabsVoiceSettings, NavaiOptions
from relay.errors import ConfigError
from relay.session.common.model import ELEVENLABS_PREFIX, TtsOptions
from relay.session.common.policy import Policy, RealtimePolicy
from relay.testing import ScriptedUpstream
from relay.upstreams.clients.elevenlabs import REALTIME_NOTICE, ExternalVoices
from tests.support.relay_server import DeviceClient, running_relay, settings_for
from tests.support.scripted_elevenlabs import (
    end,
    local_engine,
    more,
    navai_options,
    scripted_elevenlabs,
    speaking_relay,
    talking,
    write,
)


async def test_the_local_engine_thinks_and_speaks() -> None:
    async with (
        local_engine() as engine,
        speaking_relay(
            engine.replace("http", "ws") + "/v1/realtime", engine, {"elevenlabs_voice_id": "cedar"}
        ) as relay,
        await DeviceClient.connect(relay.ws("/?rate=24000")) as client,
    ):
        await client.send(type="hello", v=1, maxAheadMs=None)
        assert (await client.expect("ready"))["voice"] == ELEVENLABS_PREFIX + "cedar"
        await client.send(type="text", text="who are you")
        end = await client.expect("AIResponseEnd")
        assert end["finalText"]
        ended = await client.expect("audioEnd")
        assert ended["totalMs"] > 1000
        assert len(await client.expect_audio(ended["totalMs"] * 48)) // 48 == ended["totalMs"]
        in_line = [kind for kind in client.order if kind in ("audioStart", "audioEnd", "AIResponseEnd")]
        assert in_line[0] == "audioStart", "sound is announced before the response is over"


STARTED = {"type": "input_audio_buffer.speech_started", "item_id": "item_v", "audio_start_ms": 9000}
STOPPED = (
    {"type": "input_audio_buffer.speech_stopped", "item_id": "item_v", "audio_end_ms": 9500},
    {"type": "input_audio_buffer.committed", "item_id": "item_v", "previous_item_id": "item_1"},
)


async def test_audio_is_sent_after_the_first_sentence_and_ends_after_the_last() -> None:
    async with talking("/?rate=16000") as (client, session, voices, update):
        session_config = update["session"]
        assert session_config["output_modalities"] == ["text"]
        assert session_config["audio"]["input"]["turn_detection"]["create_response"] is False
        assert "output" not in session_config["audio"]
        voice = await voices.accept()
        assert voice.request.headers["xi-api-key"] == "xi_test_key"
        assert voice.request.query["output_format"] == "pcm_16000", "the client's own rate: nothing is resampled"
        await client.send(type="text", text="hello")
        await session.expect("response.create")
        await write(session, "Hello there. ", "How")
        first = await voice.expect("text")
        assert (first["text"], first["flush"]) == ("Hello there. ", True)
        context = first["context_id"]
        await voice.speak(context, "Hello there. ", 400, per_ms=32)
        await client.expect("audioStart")
        await client.expect_audio(400 * 32)
        assert "AIResponseEnd" not in client.kinds(), "the model still writes"
        await more(session, " are you?")
        await end(session)
        assert (await client.expect("AIResponseEnd"))["finalText"] == "Hello there. How are you?"
        assert (await voice.expect("text"))["text"] == "How are you? "
        await voice.expect("close_context")
        await voice.speak(context, "How are you? ", 300, per_ms=32)
        await voice.final(context)
        assert (await client.expect("audioEnd"))["totalMs"] == 700
        assert client.audio == b"\x01\x00" * (700 * 16)


async def test_audio_that_is_not_base64_costs_the_voice_that_one_message() -> None:
    async with talking() as (client, session, voices, _):
        voice = await voices.accept()
        await client.send(type="text", text="hello")
        await session.expect("response.create")
        await write(session, "Hello there.")
        await end(session)
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, "Hello ", 100)
        await voice.send({"audio": "n*pe", "contextId": context})
        await voice.speak(context, "there.", 200)
        await voice.send({"audio": "AAA", "contextId": context, "isFinal": True})
        assert (await client.expect("audioEnd"))["totalMs"] == 300
        assert client.audio == b"\x01\x00" * (300 * 24)
        assert "error" not in client.kinds()


async def test_the_latency_says_what_the_model_took_and_what_the_voice_took() -> None:
    async with talking() as (client, session, voices, _):
        voice = await voices.accept()
        await client.send(type="text", text="hello")
        await session.expect("response.create")
        await write(session, "Hello. ", "And")
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, "Hello. ", 100)
        latency = await client.expect("latency")
        assert latency["firstTextMs"] + latency["voiceMs"] in range(
            latency["firstDeltaMs"] - 1, latency["firstDeltaMs"] + 2
        )


async def test_a_barge_in_while_the_model_writes_comes_in_order() -> None:
    async with talking() as (client, session, voices, _):
        voice = await voices.accept()
        await client.send(type="hello", v=1, maxAheadMs=None)
        await client.send(type="text", text="hello")
        await session.expect("response.create")
        await write(session, "One two three four. ", "Five")
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, "One two three four. ", 2000)
        await client.expect_audio(2000 * 48)
        await client.send(type="playback", itemId="item_1", playedMs=1000)
        await client.send(type="clear")
        await session.expect("input_audio_buffer.clear")  # the position has arrived
        await session.emit(STARTED)
        interrupted = await client.expect("interrupted")
        assert interrupted["heardText"] == "One two"
        assert (await voice.expect("close_context"))["context_id"] == context
        assert (await session.expect("response.cancel"))["response_id"] == "resp_1"
        await voice.speak(context, "too late", 500)
        await session.emit(*STOPPED)
        assert session.types()[-1] == "response.cancel", "the history waits for the end of the response"
        await end(session, "cancelled")
        assert (await session.expect("conversation.item.delete"))["item_id"] == "item_1"
        created = await session.expect("conversation.item.create")
        assert created["item"]["content"] == [{"type": "output_text", "text": "One two"}]
        assert created["previous_item_id"] == "item_u"
        await session.expect("response.create")
        assert "conversation.item.truncate" not in session.types()
        assert len(client.audio) == 2000 * 48, "nothing of a closed context reaches the client"


async def test_speech_between_the_end_of_the_text_and_the_end_of_the_audio_is_a_barge_in() -> None:
    async with talking() as (client, session, voices, _):
        voice = await voices.accept()
        await client.send(type="hello", v=1, maxAheadMs=None)
        await client.send(type="text", text="hello")
        await session.expect("response.create")
        await write(session, "One two three four.")
        await end(session)
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, "One two three four. ", 2000)
        await voice.final(context)
        await client.expect("audioEnd")
        await client.send(type="playback", itemId="item_1", playedMs=800)
        await client.send(type="interrupt")
        assert (await client.expect("interrupted"))["heardText"] == "One two"
        await session.expect("conversation.item.delete")
        created = await session.expect("conversation.item.create")
        assert created["item"]["content"][0]["text"] == "One two"
        assert "response.cancel" not in session.types(), "there was nothing left to cancel"


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ((401, {"detail": {"status": "invalid_api_key", "message": "No."}}), "invalid_api_key"),
        ((403, {"detail": {"status": "quota_exceeded", "message": "No."}}), "quota_exceeded"),
        ((422, {"detail": [{"loc": ["query", "model_id"], "msg": "No."}]}), "422"),
        ((503, {}), "503"),
    ],
)
async def test_a_voice_that_refuses_is_reported_at_its_first_use_and_the_model_speaks_the_next_turn(
    refusal: tuple[int, dict[str, Any]], code: str
) -> None:
    async with ScriptedUpstream() as model, scripted_elevenlabs() as voices:
        voices.refuse = refusal
        async with (
            speaking_relay(model.url, voices.url, session_voice="marin") as relay,
            await DeviceClient.connect(relay.ws("/?rate=16000")) as client,
        ):
            session = await model.accept()
            await session.configure()
            await client.send(type="text", text="hello")
            await session.expect("response.create")
            await write(session, "Hello there. ", "How are you?")
            await end(session)
            error = await client.expect("error")
            assert (error["code"], code in error["message"]) == ("voice_failed", True)
            update = await session.expect("session.update")
            assert update["session"]["output_modalities"] == ["audio"]
            assert update["session"]["audio"]["output"]["voice"] == "marin"
            await session.emit({"type": "session.updated", "session": update["session"]})
            assert (await client.expect("ready"))["voice"] == "marin"
            ended = next(m for m in client.messages if m.get("name") == "AIResponseEnd")
            assert ended["finalText"] == "Hello there. How are you?", "the text is there all the same"
            await client.send(type="text", text="and now?")
            await session.expect("response.create")
            await session.respond("With my own voice.", ms=300, response_id="resp_2", item_id="item_2")
            await client.expect("AIResponseEnd")
            assert client.kinds().count("error") == 1


async def test_a_voice_that_does_not_exist_is_named_by_the_providers_code() -> None:
    async with (
        local_engine() as engine,
        speaking_relay(
            engine.replace("http", "ws") + "/v1/realtime", engine, {"elevenlabs_voice_id": "missing"}
        ) as relay,
        await DeviceClient.connect(relay.ws()) as client,
    ):
        await client.send(type="hello", v=1, maxAheadMs=None)
        await client.expect("ready")
        await client.send(type="text", text="who are you")
        error = await client.expect("error")
        assert "voice_id_does_not_exist" in error["message"]
        assert (await client.expect("ready"))["voice"] == "marin"
        await client.send(type="text", text="who are you")
        await client.expect("audioEnd")
        assert len(client.audio) > 16_000, "the model speaks itself"


@pytest.mark.parametrize("way", ["drop", "quota"])
async def test_a_voice_that_breaks_in_mid_sentence_leaves_the_text_and_the_turn_ends(way: str) -> None:
    async with talking(tts_fallback="off") as (client, session, voices, _):
        voice = await voices.accept()
        await client.send(type="text", text="hello")
        await session.expect("response.create")
        await write(session, "Hello there. ", "How are")
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, "Hello ", 200)
        await client.expect("audioStart")
        await (voice.drop() if way == "drop" else voice.fail("quota_exceeded"))
        assert (await client.expect("audioEnd"))["totalMs"] == 200
        error = await client.expect("error")
        assert error["code"] == "voice_failed"
        assert error["retryable"] is (way == "drop")
        await more(session, " you?")
        await end(session)
        assert (await client.expect("AIResponseEnd"))["finalText"] == "Hello there. How are you?"
        await client.send(type="text", text="again")
        await session.expect("response.create")
        again = await voices.accept()
        await write(session, "Hello. ", "Yes", response="resp_2", item="item_2")
        assert (await again.expect("text"))["text"] == "Hello. ", "without a fallback the voice is tried again"
        assert client.kinds().count("error") == 1


async def test_a_connection_that_was_closed_while_nobody_spoke_is_made_again() -> None:
    async with talking() as (client, session, voices, _):
        voice = await voices.accept()
        await voice.socket.close(code=1008, message=b"input_timeout_exceeded")
        await client.send(type="text", text="hello")
        await session.expect("response.create")
        await write(session, "Hello there. ", "How")
        again = await voices.accept()
        context = (await again.expect("text"))["context_id"]
        await again.speak(context, "Hello there. ", 300)
        await client.expect_audio(300 * 48)
        assert "error" not in client.kinds()


async def test_final_mode_speaks_the_whole_text_over_http() -> None:
    async with talking("/?rate=24000", tts_mode="final") as (client, session, voices, _):
        voices.reply = [b"\x01\x00" * 2400 + b"\x01", b"\x00" + b"\x01\x00" * 2399]
        await client.send(type="text", text="hello")
        await session.expect("response.create")
        await write(session, "Hello there. ", "How are you?")
        await end(session)
        request = await voices.requests.get()
        assert request["body"]["text"] == "Hello there. How are you?"
        assert "output_format=pcm_24000" in request["path"]
        assert (await client.expect("audioEnd"))["totalMs"] == 200
        assert client.audio == b"\x01\x00" * 4800
        assert voices.dials == 0, "no WebSocket is needed"


async def test_a_client_may_name_a_voice_where_there_are_any() -> None:
    async with talking(navai={"tts_provider": "openai"}) as (client, session, _, update):
        assert update["session"]["output_modalities"] == ["audio"]
        await client.send(type="hello", v=1, voice="elevenlabs:voice-7")
        again = await session.expect("session.update")
        assert again["session"]["output_modalities"] == ["text"]
        await session.emit({"type": "session.updated", "session": again["session"]})
        assert (await client.expect("ready"))["voice"] == "elevenlabs:voice-7"


async def test_without_voices_the_request_is_refused_and_the_rest_is_active() -> None:
    async with ScriptedUpstream() as model, running_relay(model.url, session_voice="marin") as relay:
        with pytest.raises(InvalidStatus) as refused:
            await DeviceClient.connect(relay.ws("/?voice=elevenlabs:voice-7"))
        assert b"voice" in refused.value.response.body
        async with await DeviceClient.connect(relay.ws()) as client:
            session = await model.accept()
            await session.configure()
            await client.send(type="hello", v=1, voice="elevenlabs:voice-7")
            error = await client.expect("error")
            assert (error["code"], error["field"]) == ("not_allowed", "voice")
            assert (await client.expect("ready"))["voice"] == "marin"
            await client.send(type="hello", v=1, voice="elevenlabs:")
            assert (await client.expect("error"))["field"] == "voice"


KIOSK, LAB = "kiosk-key-0123456789", "lab-key-0123456789ab"


@asynccontextmanager
async def with_policies(tmp_path: Path, toml: str):
    path = tmp_path / "policies.toml"
    path.write_text(toml.replace("KIOSK", key_identity(KIOSK)).replace("LAB", key_identity(LAB)))
    async with ScriptedUpstream() as model, scripted_elevenlabs() as voices:
        settings = {"access_policies": path, "access_api_keys": (KIOSK, LAB), "session_voice": "marin"}
        async with speaking_relay(model.url, voices.url, {"tts_provider": "openai"}, **settings) as relay:
            yield model, voices, relay


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_policy_switches_the_voice_on_for_its_clients_alone(tmp_path: Path) -> None:
    toml = '[policies.kiosk]\nvoice = "elevenlabs:voice-9"\nkeys = ["KIOSK"]\n'
    async with with_policies(tmp_path, toml) as (model, voices, relay):
        async with await DeviceClient.connect(relay.ws(), additional_headers=bearer(KIOSK)) as client:
            update = await (await model.accept()).configure()
            assert update["session"]["output_modalities"] == ["text"]
            voice = await voices.accept()
            assert "/voice-9/" in voice.request.path
            await client.send(type="hello", v=1)
            assert (await client.expect("ready"))["voice"] == "elevenlabs:voice-9"
        async with await DeviceClient.connect(relay.ws(), additional_headers=bearer(LAB)):
            update = await (await model.accept()).configure()
            assert update["session"]["output_modalities"] == ["audio"]


async def test_a_policy_says_which_voices_its_clients_may_name(tmp_path: Path) -> None:
    toml = '[policies.kiosk]\nvoices = ["marin", "elevenlabs:voice-7"]\nkeys = ["KIOSK"]\n'
    async with with_policies(tmp_path, toml) as (model, voices, relay):
        with pytest.raises(InvalidStatus) as refused:
            await DeviceClient.connect(relay.ws("/?voice=elevenlabs:voice-8"), additional_headers=bearer(KIOSK))
        assert json.loads(refused.value.response.body)["field"] == "voice"
        async with await DeviceClient.connect(relay.ws(), additional_headers=bearer(KIOSK)) as client:
            session = await model.accept()
            await session.configure()
            await client.send(type="hello", v=1, voice="elevenlabs:voice-8")
            error = await client.expect("error")
            assert (error["code"], error["field"]) == ("not_allowed", "voice")
            assert (await client.expect("ready"))["voice"] == "marin"
            await client.send(type="hello", v=1, voice="elevenlabs:voice-7")
            update = await session.expect("session.update")
            await session.emit({"type": "session.updated", "session": update["session"]})
            assert (await client.expect("ready"))["voice"] == "elevenlabs:voice-7"
            await voices.accept()


async def test_a_policy_without_the_field_keeps_it_out_of_the_url_too(tmp_path: Path) -> None:
    toml = '[policies.kiosk]\nhello_fields = ["input", "output"]\nkeys = ["KIOSK"]\n'
    async with with_policies(tmp_path, toml) as (_, _, relay):
        with pytest.raises(InvalidStatus) as refused:
            await DeviceClient.connect(relay.ws("/?voice=elevenlabs:voice-8"), additional_headers=bearer(KIOSK))
        assert json.loads(refused.value.response.body)["field"] == "voice"


def test_a_policys_voice_without_a_key_for_it_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "policies.toml").write_text('[policies.kiosk]\nvoice = "elevenlabs:voice-9"\n')
    with pytest.raises(ConfigError, match=r"policies.kiosk.voice is elevenlabs:voice-9, which needs tts.api_key"):
        create_app(settings_for(access_policies=tmp_path / "policies.toml"), navai=NavaiOptions.from_env({}))


def test_the_start_says_who_speaks_and_that_realtime_clients_hear_the_model() -> None:
    voices = ExternalVoices.from_settings(
        navai_options("http://127.0.0.1:1"), settings_for(session_voice="marin"), {"kiosk": "elevenlabs:voice-9"}
    )
    assert voices.describe() == [
        "voice elevenlabs:voice-1 · eleven_flash_v2_5 · streaming · fallback marin",
        "voice of policy kiosk elevenlabs:voice-9 · eleven_flash_v2_5 · streaming · fallback marin",
        REALTIME_NOTICE,
    ]
    assert "/v1/realtime" in REALTIME_NOTICE
    options = navai_options("http://127.0.0.1:1", tts_provider="openai")
    assert ExternalVoices.from_settings(options, settings_for(tts_mode="final"), {}).describe() == []


def test_numbers_out_of_range_stop_the_start_with_their_name() -> None:
    for name, value in (("stability", 1.5), ("similarity_boost", -0.1), ("style", 2.0)):
        settings = ElevenLabsVoiceSettings(**{name: value})
        with pytest.raises(ConfigError, match=rf"tts\.{name} must be from 0 to 1, not {value:g}"):
            create_app(settings_for(), navai=navai_options("http://127.0.0.1:1", elevenlabs_voice_settings=settings))


@pytest.mark.parametrize(
    ("voices", "fallback"), [(("*",), "marin"), (("elevenlabs:*", "cedar"), "cedar"), (("elevenlabs:*",), None)]
)
def test_the_model_speaks_with_a_voice_that_the_policy_allows(voices: tuple[str, ...], fallback: str | None) -> None:
    policy = Policy(realtime=RealtimePolicy(voices=voices))
    assert ExternalVoices(tts_options=TtsOptions(fallback_voice="marin")).tts_options_for(policy) == TtsOptions(
        fallback_voice=fallback
    )
