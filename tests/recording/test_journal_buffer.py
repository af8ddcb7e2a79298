"""The records of a session before they are submitted: order, limit, and the gaps of a slow disk."""

import errno
import os
import threading
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from relay.recording.batch_builder import BatchBuilder, RealtimeBatchBuilder
from relay.recording.format.records import EndRecord, EventRecord, GapRecord, InputAudioRecord
from relay.recording.journal_buffer import FLUSH_BYTES, RECORD_OVERHEAD_BYTES, JournalBuffer
from relay.recording.replay.verify import verify
from relay.recording.service import RecordingService
from relay.recording.store import writer as writing
from relay.recording.store.layout import list_recordings
from relay.recording.store.reader import Recording
from relay.recording.store.writer import RecordingFiles, RecordingWriter, WriteBatch
from relay.session.common.known_secrets import NO_SECRETS
from relay.session.common.media_types import AudioDelta, RawDelta
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.recorded_session import RecordedSession, read_records, wait_until_written
from tests.support.scripted_recordings import microphone_audio


class Buffer:
    """A buffer and what it hands over."""

    def __init__(self, builder: type[BatchBuilder] = BatchBuilder) -> None:
        self.batches: list[WriteBatch] = []
        self.n_due = 0
        self._writer = RecordingWriter()
        self._writer.submit = self._take  # type: ignore[method-assign]
        self.buffer = JournalBuffer(self._writer, "r", None, lambda: builder(NO_SECRETS), self._due)
        self.buffer.is_open = True

    def hand_over(self) -> WriteBatch:
        self.buffer.flush(RecordingFiles(Path("r"), b"{}"))
        return self.batches[-1]

    def _take(self, files: RecordingFiles, batch: WriteBatch) -> bool:
        self.batches.append(batch)
        return True

    def _due(self) -> None:
        self.n_due += 1


DELTA = AudioDelta("resp_1", "item_a", 0, b"valid during the call only")
TEXT = ev.TextDelta("resp_1", "item_a", 0, "one ", True)


@pytest.mark.parametrize("keeps_sent", [False, True])
@pytest.mark.parametrize("n_bytes", [(960,), (960, 640)])
def test_what_is_handed_over_at_once_stands_in_the_order_in_which_it_came(
    n_bytes: tuple[int, ...], keeps_sent: bool
) -> None:
    harness = Buffer()
    buffer = harness.buffer
    buffer.stores_sent_audio = keeps_sent
    sent = b"\5\6"
    frames = [bytes([n]) * n_bytes[n % len(n_bytes)] for n in range(5)]
    for n, frame in enumerate(frames[:3]):
        buffer.record_input(frame, 10.0 + n / 50)
    buffer.record_output(DELTA, b"\1\2\3\4", 10.05, discarded=False)
    buffer.record_sent_audio(memoryview(sent), 10.05)
    buffer.record_input(memoryview(frames[3]), 10.06)
    buffer.record_event(TEXT, 10.07, (cmd.SendTextDelta("one "),), "", b"")
    buffer.record_discarded_tts_audio("context_1", b"\7\0", 10.08)
    buffer.record_output(DELTA, b"\3\4", 10.08, discarded=True)
    buffer.record_input(frames[4], 10.1)
    batch = harness.hand_over()
    kept_member = ',"kept":true' if keeps_sent else ""
    ids = '"item":"item_a","response":"resp_1","part":0'
    assert batch.journal.decode().splitlines() == [
        f'{{"now":10.0,"in":{len(frames[0])}}}',
        f'{{"now":10.02,"in":{len(frames[1])}}}',
        f'{{"now":10.04,"in":{len(frames[2])}}}',
        f'{{"now":10.05,"out":4,{ids}}}',
        f'{{"now":10.05,"sent":2,"crc":{crc32(sent)}{kept_member}}}',
        f'{{"now":10.06,"in":{len(frames[3])}}}',
        '{"now":10.07,"words":"one ","item":"item_a","response":"resp_1","part":0,"spoken":true}',
        '{"now":10.08,"voice":2,"context":"context_1","discarded":true}',
        f'{{"now":10.08,"out":2,{ids},"discarded":true}}',
        f'{{"now":10.1,"in":{len(frames[4])}}}',
    ]
    assert batch.audio == (b"".join(frames), b"\1\2\3\4\3\4", b"\7\0", sent if keeps_sent else b"")
    assert (batch.n_records, batch.start_s, batch.end_s) == (10, 10.0, 10.1)


def test_audio_in_a_realtime_client_s_frames_is_cut_out_of_them() -> None:
    harness = Buffer(RealtimeBatchBuilder)
    buffer = harness.buffer
    buffer.record_input(b'{"type":"input_audio_buffer.append","audio":"AAAA"}', 10.0)
    buffer.record_input(b'{"type": "input_audio_buffer.append", "audio": "AQEB"}', 10.1)
    raw = b'{"type":"response.output_audio.delta","delta":"AgIC","n":1}'
    buffer.record_raw_delta(RawDelta(memoryview(raw), 3, raw.index(b"AgIC")), 10.3)
    buffer.record_input(b'{"type":"input_audio_buffer.append","audio":"AwMD"}', 10.4)
    batch = harness.hand_over()
    assert batch.journal.decode().splitlines() == [
        '{"now":10.0,"in":3}',
        '{"now":10.1,"in":3,"head":"{\\"type\\": \\"input_audio_buffer.append\\", \\"audio\\": \\"","tail":"\\"}"}',
        '{"now":10.3,"out":3,"head":"{\\"type\\":\\"response.output_audio.delta\\",\\"delta\\":\\"",'
        '"tail":"\\",\\"n\\":1}"}',
        '{"now":10.4,"in":3}',
    ]
    assert batch.audio == (b"\0\0\0\1\1\1\3\3\3", b"\2\2\2", b"", b"")


def test_speech_at_which_our_code_raised_is_audio_that_no_event_followed() -> None:
    harness = Buffer()
    spoke = ev.TtsAudio("context_1", 2)
    harness.buffer.record_event(spoke, 10.0, (), "", b"\1\2")
    harness.buffer.record_event(spoke, 10.1, None, "KeyError: 1", b"\3\4")
    batch = harness.hand_over()
    counted, discarded, raised = batch.journal.decode().splitlines()
    assert counted == '{"now":10.0,"voice":2,"context":"context_1"}'
    assert discarded == '{"now":10.1,"voice":2,"context":"context_1","discarded":true}'
    assert '"raised":"KeyError: 1"' in raised
    assert batch.audio == (b"", b"", b"\1\2\3\4", b"")


def test_what_is_not_open_keeps_nothing() -> None:
    harness = Buffer()
    harness.buffer.is_open = False
    harness.buffer.record_input(bytes(960), 10.0)
    harness.buffer.record_event(ev.DeadlineReached(), 10.0, (), "", b"")
    assert harness.buffer.has_skipped_audio
    assert not harness.buffer.has_begun


def test_a_buffer_that_holds_too_much_says_so_with_each_record() -> None:
    harness = Buffer()
    for _ in range(FLUSH_BYTES // 1024):
        harness.buffer.record_input(bytes(1024 - RECORD_OVERHEAD_BYTES), 10.0)
    assert harness.n_due == 0
    harness.buffer.record_input(bytes(2), 10.0)
    assert harness.n_due == 1
    harness.hand_over()
    harness.buffer.record_input(bytes(2), 10.0)
    assert harness.n_due == 1


def test_the_number_of_events_in_a_buffer_is_bounded() -> None:
    harness = Buffer()
    for _ in range(FLUSH_BYTES // 1024):
        harness.buffer.record_event(ev.DeadlineReached(), 10.0, (), "", b"")
    assert harness.n_due > 0


# -- gaps -------------------------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, fails: Any) -> None:
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        if fails():
            write(descriptor, data[: len(data) // 2])  # the half of it, as a full disk does
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    files = writing.RecordingFiles
    monkeypatch.setattr(
        "relay.recording.session_recorder.RecordingFiles", lambda folder, header: files(folder, header, write=limited)
    )


async def test_a_full_disk_marks_a_gap_and_the_recording_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = False
    failing(monkeypatch, lambda: full)
    service = RecordingService(tmp_path, "on")
    session = RecordedSession(service)
    session.feed(ev.UpstreamOpened(), ev.SessionCreated(), ev.SessionUpdated(), microphone_audio(20))

    async def handed_over() -> None:
        session.recorder.flush()
        await wait_until_written(service)

    await handed_over()
    full = True
    session.feed(microphone_audio(20), microphone_audio(20))
    await handed_over()
    full = False
    session.feed(microphone_audio(20), ev.Bye())
    service.close(session.session_id)
    await service.stop()
    (folder,) = list_recordings(tmp_path)
    lines = read_records(tmp_path)
    assert [line.n_records for line in lines if isinstance(line, GapRecord)] == [2]
    assert sum(isinstance(line, EventRecord | InputAudioRecord) for line in lines) == 6
    assert (folder / "client.pcm").stat().st_size == 2 * 640
    result = verify(Recording(folder))
    assert result.is_identical
    assert "gap of 2 records" in result.notes[-1]
    assert caplog.text.count("recording gap: ") == 1


async def test_a_disk_that_hangs_costs_a_bounded_queue_and_a_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = RecordingService(tmp_path, "on")
    service.writer = RecordingWriter(max_queued_bytes=50_000)
    session = RecordedSession(service)
    hung = threading.Event()
    service.writer.submit_job(lambda: (hung.wait(20), None)[1])
    for _ in range(20):
        session.feed(*[microphone_audio(100)] * 3)
        session.recorder.flush()
    assert "error=disk too slow" in caplog.text
    hung.set()
    service.close(session.session_id)
    await service.stop()
    (folder,) = list_recordings(tmp_path)
    assert sum(line.n_records for line in read_records(tmp_path) if isinstance(line, GapRecord)) >= 40
    assert (folder / "client.pcm").stat().st_size < 50_000


async def test_at_full_speed_one_recording_has_gaps_and_the_others_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session sends all that its allowance lets it, others talk, and the disk does nothing for a while."""
    service = RecordingService(tmp_path, "on")
    service.writer = RecordingWriter(max_queued_bytes=2_000_000)
    disk_works = threading.Event()
    write = os.write

    def slow(descriptor: int, data: bytes) -> int:
        assert disk_works.wait(20)
        return write(descriptor, data)

    files = writing.RecordingFiles
    monkeypatch.setattr(
        "relay.recording.session_recorder.RecordingFiles", lambda folder, header: files(folder, header, write=slow)
    )
    greedy, *others = [RecordedSession(service, session_id) for session_id in ("greedy", "a", "b", "c")]
    for _ in range(10):
        greedy.feed(*[microphone_audio(1000)] * 20)
        for _ in range(100):  # and what is left of the room, in small pieces
            greedy.feed(microphone_audio(20))
            greedy.recorder.flush()
        for recorder in others:
            recorder.feed(microphone_audio(20))
            recorder.recorder.flush()
    disk_works.set()
    for session in (greedy, *others):
        service.close(session.session_id)
    await service.stop()
    recordings = {path.name.partition("-")[2]: Recording(path) for path in list_recordings(tmp_path)}
    greedy_one, other_ones = recordings.pop("greedy"), recordings.values()
    lines = [entry.record for entry in greedy_one.entries() if not isinstance(entry.record, EndRecord)]
    lost = sum(line.n_records for line in lines if isinstance(line, GapRecord))
    assert lost > 100
    assert lost + sum(isinstance(line, InputAudioRecord) for line in lines) == 1200
    for recording in other_ones:
        assert [type(entry.record) for entry in recording.entries()] == [InputAudioRecord] * 10 + [EndRecord]


# -- the bound --------------------------------------------------------------------------------------------------------


async def test_the_end_is_written_also_where_no_more_may_wait(tmp_path: Path) -> None:
    service = RecordingService(tmp_path, "on", recording_max_mb=0.1)
    service.writer = RecordingWriter(max_queued_bytes=600_000)
    session = RecordedSession(service)
    waits = threading.Event()
    service.writer.submit_job(lambda: (waits.wait(20), None)[1])
    session.feed(*[microphone_audio(1000)] * 9)  # takes all that it may have
    service.close(session.session_id)
    waits.set()
    await service.stop()
    end = read_records(tmp_path)[-1]
    assert end == EndRecord(1e6, "the recording has reached 0.1 MB (RELAY_RECORDING_MAX_MB)")
