"""One session's recording from its beginning to its end: its order, its bound, and what fails in it."""

import asyncio
import logging
from pathlib import Path

import pytest

from relay.recording.format.records import EndRecord, EventRecord, InputAudioRecord
from relay.recording.replay.replayer import Difference
from relay.recording.replay.verify import verify
from relay.recording.service import RecordingService
from relay.recording.store.layout import folder_size_bytes, is_being_recorded, list_recordings
from relay.recording.store.reader import Recording
from relay.recording.store.writer import RecordingFiles, WriteBatch
from relay.session.common.known_secrets import KnownSecrets
from relay.session.device import events as ev
from relay.session.device.turns import TurnController
from relay.session.realtime.events import RealtimeClientEvent, RealtimeServerEvent, SendToUpstream
from tests.support.recorded_session import (
    RecordedSession,
    complete_turn,
    device_session,
    read_records,
    realtime_recorder,
    recording_relay,
    wait_until_written,
)
from tests.support.relay_server import DeviceClient
from tests.support.scripted_recordings import microphone_audio, tone


@pytest.mark.parametrize("mode", ["on", "consent"])
async def test_audio_stands_in_order_with_all_else(mode: str, tmp_path: Path) -> None:
    audio = tone(400, 24_000)
    async with (
        recording_relay(tmp_path, mode) as (relay, upstream),
        await DeviceClient.connect(relay.ws("/?rate=24000")) as client,
    ):
        session = await upstream.accept()
        await session.configure()
        await client.expect("AIConnected")
        if mode == "consent":
            await client.speak(audio[:960])  # before consent: it is nowhere
            await session.expect_audio(960)
            await client.send(type="consent", granted=True)
        for start in range(0, 9600, 960):
            await client.speak(audio[start : start + 960])
        await client.speak(audio[9600:14_400])
        await session.expect_audio(14_400)
        await client.send(type="text", text="and this")
        await session.expect("conversation.item.create")
        await client.speak(audio[14_400:])
        await session.expect_audio(len(audio))
    (folder,) = list_recordings(tmp_path)
    assert (folder / "client.pcm").read_bytes() == audio
    recording = Recording(folder)
    assert recording.header.from_start is (mode == "on")
    sizes = [
        line.n_bytes if isinstance(line, InputAudioRecord) else 0
        for line in read_records(tmp_path)
        if isinstance(line, InputAudioRecord) or (isinstance(line, EventRecord) and isinstance(line.event, ev.UserText))
    ]
    assert sizes == [*[960] * 10, 4800, 0, 4800]
    if mode == "on":
        assert verify(recording).is_identical


async def test_what_is_recorded_with_an_event_that_was_searched_is_searched_as_well(tmp_path: Path) -> None:
    """Parsed upstream events are redacted already, but their commands may repeat text of the client."""
    service = RecordingService(tmp_path, "on", secrets=KnownSecrets(["pw/0123-abcdef-4567"]))
    recorder = realtime_recorder(service)
    event = RealtimeServerEvent(b'{"type":"session.updated"}', {"type": "session.updated"})
    recorder.record_event(event, 10.0, (SendToUpstream({"type": "x", "text": "said: pw/0123-abcdef-4567"}),))
    try:
        raise ValueError("failed: pw/0123-abcdef-4567")
    except ValueError:
        recorder.record_event(event, 10.1, None)
    service.close("rs_1")
    await service.stop()
    (folder,) = list_recordings(tmp_path)
    journal = (folder / "journal.jsonl").read_bytes()
    assert b"said: " in journal
    assert b"failed: " in journal
    assert b"pw/0123" not in journal


# -- the bound of one recording ---------------------------------------------------------------------------------------


class Warned(logging.Handler):
    """Waits for a warning of the recorder's."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []
        self.event = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.event.set()


async def test_a_recording_that_reaches_its_bound_ends_and_its_session_goes_on(tmp_path: Path) -> None:
    log, warned = logging.getLogger("relay.recordings"), Warned()
    log.addHandler(warned)
    try:
        async with (
            recording_relay(tmp_path, "on", recording_max_mb=0.3) as (relay, upstream),
            device_session(relay, upstream) as (client, session),
        ):
            for _ in range(10):
                await client.speak(tone(1000, 16_000))
            await asyncio.wait_for(warned.event.wait(), 5)
            await complete_turn(client, session)
    finally:
        log.removeHandler(warned)
    assert len(warned.texts) == 1
    assert "reason=limit of 0.3 MB reached (RELAY_RECORDING_MAX_MB)" in warned.texts[0]
    end = read_records(tmp_path)[-1]
    assert isinstance(end, EndRecord)
    assert end.reason == "the recording has reached 0.3 MB (RELAY_RECORDING_MAX_MB)"
    (folder,) = list_recordings(tmp_path)
    assert 300_000 <= (folder / "client.pcm").stat().st_size < 600_000
    assert b"Hello there." not in (folder / "journal.jsonl").read_bytes()
    assert verify(Recording(folder)).is_identical


async def test_a_recording_at_its_bound_is_locked_until_its_session_ends(tmp_path: Path) -> None:
    """So it is neither finalized nor pruned while the client may still revoke its consent."""
    service = RecordingService(tmp_path, "on", recording_max_mb=0.1)
    session = RecordedSession(service)
    session.feed(*[microphone_audio(1000)] * 9)
    await wait_until_written(service)
    (folder,) = list_recordings(tmp_path)
    assert is_being_recorded(folder)
    service.close(session.session_id)
    await service.stop()
    assert not is_being_recorded(folder)


async def test_a_realtime_session_s_recording_has_the_same_bound(tmp_path: Path) -> None:
    service = RecordingService(tmp_path, "on", recording_max_mb=0.5)
    recorder = realtime_recorder(service)
    for number in range(100):
        recorder.record_event(
            RealtimeClientEvent({"type": "conversation.item.create", "n": number, "text": "x" * 20_000}), 10.0, ()
        )
    service.close("rs_1")
    await service.stop()
    (folder,) = list_recordings(tmp_path)
    assert (folder / "journal.jsonl").read_bytes().count(b"RELAY_RECORDING_MAX_MB") == 1
    assert 500_000 <= folder_size_bytes(folder) < 800_000


# -- faults -----------------------------------------------------------------------------------------------------------


async def test_a_recorder_that_fails_ends_its_recording_and_not_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bytes:
        raise ValueError("a fault of the recorder's")

    service = RecordingService(tmp_path, "on")
    session = RecordedSession(service)
    session.feed(microphone_audio(20))
    monkeypatch.setattr("relay.recording.batch_builder.live_line", broken)
    session.feed(ev.SessionCreated(), ev.SessionUpdated(), microphone_audio(20))
    session.recorder.flush()
    session.feed(microphone_audio(20))
    service.close(session.session_id)
    await service.stop()
    assert caplog.text.count("recording failed: ") == 1
    (folder,) = list_recordings(tmp_path)
    recording = Recording(folder)
    assert [type(entry.record) for entry in recording.entries()] == [InputAudioRecord, EndRecord]
    assert (folder / "client.pcm").read_bytes() == microphone_audio(20)
    assert recording.has_end


async def test_what_cannot_be_written_down_at_the_end_leaves_the_rest_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bytes:
        raise ValueError("a fault of the recorder's")

    monkeypatch.setattr("relay.recording.batch_builder.live_line", broken)
    service = RecordingService(tmp_path, "on")
    session = RecordedSession(service)
    session.feed(microphone_audio(20), ev.SessionCreated())
    service.close(session.session_id)
    await service.stop()
    assert caplog.text.count("recording failed: ") == 1
    assert [type(line) for line in read_records(tmp_path)] == [InputAudioRecord, EndRecord]
    (folder,) = list_recordings(tmp_path)
    assert not is_being_recorded(folder)


async def test_what_raised_in_the_core_is_in_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a fault of the rules")

    async with recording_relay(tmp_path, "on") as (relay, upstream), device_session(relay, upstream) as (client, _):
        monkeypatch.setattr(TurnController, "add_typed_turn", fail)
        await client.send(type="text", text="hello")
        assert (await client.expect("error"))["code"] == "internal_error"
    monkeypatch.undo()
    (folder,) = list_recordings(tmp_path)
    difference = verify(Recording(folder)).difference
    assert isinstance(difference, Difference)
    assert "user_text" in difference.description
    assert difference.recorded is not None
    assert "raised KeyError" in difference.recorded[0]


def test_a_file_size_limit_is_a_gap_like_any_other(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    files = RecordingFiles(tmp_path / "r", b"{}")
    batch = WriteBatch((bytes(3000), b"", b"", b""), b'{"now":1.0,"in":3000}\n', 1, 1.0, 1.0)
    files.write_batch(batch)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        files.write_batch(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    files.write_batch(batch)
    files.close()
    assert (tmp_path / "r" / "client.pcm").stat().st_size == 6000
    assert (tmp_path / "r" / "journal.jsonl").read_text().splitlines()[1].startswith('{"gap":{"records":1')
