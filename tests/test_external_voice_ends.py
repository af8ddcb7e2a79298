"""How an external voice fails and how its session ends, over real sockets: the text is there, and nothing is left."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.replay.verify import verify
from relay.recording.store.layout import list_recordings
from relay.recording.store.reader import Recording
from relay.session.tts import stream as voice_rules
from relay.testing import ScriptedSession, ScriptedUpstream
from relay.transport import elevenlabs
from tests.support.relay_server import DeviceClient, RunningRelay
from tests.support.scripted_elevenlabs import (
    ScriptedElevenLabs,
    ScriptedTtsConnection,
    end,
    scripted_elevenlabs,
    speaking_relay,
    talking,
    write,
)

SAID = "Hello there. How are you?"
GONE_WITHIN_S = 2.0


async def ask(client: DeviceClient, session: ScriptedSession) -> None:
    await client.send(type="text", text="hello")
    await session.expect("response.create")


async def the_text_is_there_and_the_model_takes_over(client: DeviceClient, session: ScriptedSession, code: str) -> None:
    """One error with the code, the whole text, a turn that ends; then a turn in the model's own voice."""
    error = await client.expect("error")
    assert (error["code"], code in error["message"]) == ("voice_failed", True)
    update = await session.expect("session.update")
    assert update["session"]["output_modalities"] == ["audio"]
    ended = next(message for message in client.messages if message.get("name") == "AIResponseEnd")
    assert (ended["finalText"], ended["more"]) == (SAID, False)
    assert client.kinds().count("audioStart") == client.kinds().count("audioEnd")
    await session.emit({"type": "session.updated", "session": update["session"]})
    assert (await client.expect("ready"))["voice"] == "marin"
    before = len(client.audio)
    await ask(client, session)
    await session.respond("With my own voice.", ms=300, response_id="resp_2", item_id="item_2")
    await client.expect_audio(before + 300 * 48)
    assert client.kinds().count("error") == 1


async def test_a_voice_that_does_not_accept_the_connection_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elevenlabs, "CONNECT_TIMEOUT_S", 0.2)
    async with ScriptedUpstream() as model, scripted_elevenlabs() as voices:
        voices.hang = True
        async with (
            speaking_relay(model.url, voices.url) as relay,
            await DeviceClient.connect(relay.ws("/?rate=24000")) as client,
        ):
            session = await model.accept()
            await session.configure()
            await ask(client, session)
            await write(session, "Hello there. ", "How are you?")
            await end(session)
            await the_text_is_there_and_the_model_takes_over(client, session, "dial_timeout")


async def test_a_voice_that_takes_the_text_and_sends_nothing_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_rules, "STALL_TIMEOUT_S", 0.3)
    async with talking() as (client, session, voices, _):
        voice = await voices.accept()
        await ask(client, session)
        await write(session, "Hello there. ", "How are you?")
        await end(session)
        await voice.expect("text")
        await the_text_is_there_and_the_model_takes_over(client, session, "timeout")
        await is_set(voice.closed)


@pytest.mark.parametrize("way", ["drop", "quota"])
async def test_after_a_voice_that_broke_in_mid_sentence_the_model_speaks_the_next_turn(way: str) -> None:
    async with talking() as (client, session, voices, _):
        voice = await voices.accept()
        await ask(client, session)
        await write(session, "Hello there. ", "How are you?")
        await end(session)
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, "Hello ", 200)
        await client.expect_audio(200 * 48)
        await (voice.drop() if way == "drop" else voice.fail("quota_exceeded"))
        await the_text_is_there_and_the_model_takes_over(
            client, session, "quota_exceeded" if way == "quota" else "1006"
        )


@pytest.mark.parametrize("way", ["refuse", "break off", "silence"])
async def test_final_mode_fails_in_the_same_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "silence":
        monkeypatch.setattr(voice_rules, "STALL_TIMEOUT_S", 0.3)
    async with talking(tts_mode="final") as (client, session, voices, _):
        voices.reply = [b"\x01\x00" * 4800]
        voices.break_off = way == "break off"
        voices.hang = way == "silence"
        if way == "refuse":
            voices.refuse = (401, {"detail": {"status": "invalid_api_key", "message": "No."}})
        await ask(client, session)
        await write(session, "Hello there. ", "How are you?")
        await end(session)
        code = {"refuse": "invalid_api_key", "break off": "The voice failed", "silence": "timeout"}[way]
        await the_text_is_there_and_the_model_takes_over(client, session, code)


async def test_a_turn_that_was_asked_for_before_the_failure_ends_as_well() -> None:
    async with talking() as (client, session, voices, _):
        voice = await voices.accept()
        await ask(client, session)
        await write(session, "Hello there. ", "How are you?")
        await end(session)
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, "Hello ", 100)
        await ask(client, session)  # its answer is text: the model has no other configuration yet
        await voice.drop()
        await client.expect("error")
        await write(session, "Once more. ", "Again.", response="resp_2", item="item_2")
        await end(session, response="resp_2", item="item_2")
        again = await voices.accept()
        context = (await again.expect("text"))["context_id"]
        await again.expect("close_context")
        await again.speak(context, "Once more. Again.", 200)
        await again.final(context)
        update = await session.expect("session.update")
        assert update["session"]["output_modalities"] == ["audio"], "only when all of it was spoken"
        assert client.kinds().count("audioStart") == client.kinds().count("audioEnd") == 2


# -- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "format_name", "bytes_per_ms", "heard_per_ms"),
    [
        ("rate=8000", "pcm_8000", 16, 16),
        ("rate=16000", "pcm_16000", 32, 32),
        ("rate=48000", "pcm_24000", 48, 96),
        ("format=pcmu", "ulaw_8000", 8, 8),
        ("format=pcma", "alaw_8000", 8, 8),
    ],
)
async def test_the_voice_is_asked_for_the_clients_own_format_and_resampled_where_it_has_none(
    query: str, format_name: str, bytes_per_ms: int, heard_per_ms: int
) -> None:
    async with talking(f"/?{query}") as (client, session, voices, _):
        voice = await voices.accept()
        assert voice.request.query["output_format"] == format_name
        await ask(client, session)
        await write(session, "Hello there. ", "How are you?")
        await end(session)
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, SAID, 400, per_ms=bytes_per_ms)
        await voice.expect("close_context")
        await voice.final(context)
        assert (await client.expect("audioEnd"))["totalMs"] == 400
        audio = await client.expect_audio(400 * heard_per_ms)
        assert len(audio) - 400 * heard_per_ms in range(2 * heard_per_ms), "but for the delay of a filter"


async def test_half_duplex_hears_silence_until_the_voice_has_been_played() -> None:
    async with talking("/?rate=24000") as (client, session, voices, _):
        await client.send(type="hello", v=1, duplex="half", maxAheadMs=None)
        await client.expect("ready")
        voice = await voices.accept()
        await ask(client, session)
        await write(session, "Hello there. ", "How are you?")
        await end(session)
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, SAID, 300)
        await client.expect_audio(300 * 48)
        await client.speak(b"\x11\x11" * 480)
        assert not any(await session.expect_audio(960)), "it would hear itself"
        await voice.expect("close_context")
        await voice.final(context)
        await client.expect("audioEnd")
        n_bytes = 960
        async with asyncio.timeout(5):
            while not any(session.audio[960:]):  # the echo of what was played has its time
                await client.speak(b"\x11\x11" * 480)
                n_bytes += 960
                await session.expect_audio(n_bytes)


# -- nothing is left --------------------------------------------------------------------------------------------------


async def is_set(event: asyncio.Event) -> None:
    async with asyncio.timeout(GONE_WITHIN_S):
        await event.wait()


@asynccontextmanager
async def speaking(
    mode: str = "streaming",
) -> AsyncIterator[tuple[DeviceClient, RunningRelay, ScriptedElevenLabs, ScriptedTtsConnection | None]]:
    """In the middle of an answer; afterwards the relay has no session, and this loop no task more than before."""
    async with ScriptedUpstream() as model, scripted_elevenlabs() as voices:
        voices.reply, voices.stays = [b"\x01\x00" * 4800], True
        async with speaking_relay(model.url, voices.url, tts_mode=mode) as relay:
            before = asyncio.all_tasks()
            client = await DeviceClient.connect(relay.ws("/?rate=24000"))
            session = await model.accept()
            await session.configure()
            await ask(client, session)
            await write(session, "Hello there. ", "How are you?")
            voice = None
            if mode == "streaming":
                voice = await voices.accept()
                await voice.speak((await voice.expect("text"))["context_id"], "Hello there. ", 200)
            else:
                await end(session)
            await client.expect_audio(200 * 48)
            yield client, relay, voices, voice
            async with asyncio.timeout(GONE_WITHIN_S):
                await relay.sessions.all_ended.wait()
                await session.closed.wait()
                await (voices.left if voice is None else voice.closed).wait()
                left = [task for task in asyncio.all_tasks() - before if "elevenlabs" in repr(task.get_coro())]
                assert not left, left
            assert not relay.sessions.active
            await client.connection.close()


@pytest.mark.parametrize("mode", ["streaming", "final"])
async def test_a_client_that_vanishes_in_mid_speech_leaves_nothing(mode: str) -> None:
    async with speaking(mode) as (client, _, _, _):
        assert client.connection.transport is not None
        client.connection.transport.abort()


@pytest.mark.parametrize("mode", ["streaming", "final"])
async def test_a_relay_that_shuts_down_in_mid_speech_says_goodbye_and_disconnects_the_voice(mode: str) -> None:
    async with speaking(mode) as (client, relay, _, _):
        await relay.sessions.drain()
        await client.expect("goodbye")
        assert (await client.wait_closed())[0] == 1001


async def test_a_client_that_says_bye_in_mid_speech_leaves_nothing() -> None:
    async with speaking() as (client, _, _, _):
        await client.send(type="bye")
        assert (await client.wait_closed())[0] == 1000


# -- recordings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "per_ms", "heard_per_ms"), [(24_000, 48, 48), (48_000, 48, 96)])
async def test_a_recorded_voice_runs_identically(tmp_path: Path, rate: int, per_ms: int, heard_per_ms: int) -> None:
    recorded: dict[str, Any] = {"recording_mode": "on", "recording_dir": tmp_path}
    async with talking(f"/?rate={rate}", **recorded) as (client, session, voices, _):
        voice = await voices.accept()
        await client.send(type="hello", v=1, maxAheadMs=None)
        await client.expect("ready")
        await ask(client, session)
        await write(session, "Hello there. ", "How are you?")
        await end(session)
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, "Hello there. ", 1300, per_ms=per_ms)
        await client.expect_audio(1290 * heard_per_ms)
        await client.send(type="playback", itemId="item_1", playedMs=600)
        await client.send(type="interrupt")
        interrupted = await client.expect("interrupted")
        assert interrupted["heardText"] == "Hello"
        await session.expect("conversation.item.create")
        await client.send(type="bye")
        await client.wait_closed()
    (folder,) = list_recordings(tmp_path)
    assert (folder / "voice.pcm").read_bytes() == b"\x01\x00" * (1300 * per_ms // 2)
    recording = Recording(folder)
    outcome = verify(recording)
    assert outcome.difference is None
    assert outcome.sent_bytes == len(client.audio)
    (heard,) = build_timeline(recording).timeline.heard
    assert (heard.voice, heard.heard_text, heard.cut_ms) == ("elevenlabs:voice-1", "Hello", 600)


@pytest.mark.parametrize("rate_hz", [8000, 16_000])
async def test_a_voice_without_a_hello_is_recorded_in_its_own_format(tmp_path: Path, rate_hz: int) -> None:
    per_ms = rate_hz * 2 // 1000
    recorded: dict[str, Any] = {"recording_mode": "on", "recording_dir": tmp_path}
    async with talking(f"/?rate={rate_hz}", **recorded) as (client, session, voices, _):
        voice = await voices.accept()
        await ask(client, session)
        await write(session, "Hello there.")
        await end(session)
        context = (await voice.expect("text"))["context_id"]
        await voice.speak(context, "Hello there.", 200, per_ms=per_ms)
        await client.expect_audio(200 * per_ms)
        await client.send(type="bye")
        await client.wait_closed()
    (folder,) = list_recordings(tmp_path)
    outcome = verify(Recording(folder))
    assert outcome.difference is None
    assert outcome.sent_bytes == len(client.audio) == 200 * per_ms
