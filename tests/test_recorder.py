"""Recording at run time: what is written and when, what is not, and that no disk ever touches a session."""

import asyncio
import errno
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from relay.core.journal_lines import End, Gap, Happened
from relay.core.passed import Passed
from relay.core.replay import Difference, RealtimeStart
from relay.recorder import Recorder
from relay.recording.rerun import rerun
from relay.tape import SessionTape

from audio.formats import AudioFormat
from relay.core import events as ev
from relay.core.device_session import DeviceSession
from relay.core.known_secrets import KnownSecrets
from relay.core.policy import Policy, Principal
from relay.core.realtime_events import ClientSaid, TellUpstream, UpstreamSaid
from relay.core.values import DeviceOptions, SessionConfig
from relay.recording import writer as writing
from relay.recording.finish import is_finished
from relay.recording.folder import all_recordings, size_bytes
from relay.recording.lock import is_live
from relay.recording.reader import Recording
from relay.recording.writer import Batch, Files, Writer
from relay.testing import ScriptedSession, ScriptedUpstream
from tests.support.relay_server import DeviceClient, RunningRelay, running_relay
from tests.support.tapes import make_recording, microphone, tone


@asynccontextmanager
async def stage(root: Path, mode: str, **settings: Any) -> AsyncIterator[tuple[RunningRelay, ScriptedUpstream]]:
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url, record=mode, recordings_dir=root, **settings) as relay,
    ):
        yield relay, upstream


async def a_turn(client: DeviceClient, session: ScriptedSession) -> None:
    await client.speak(tone(200, 16_000))
    await session.expect_audio(100 * 48)
    await session.emit(
        {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0},
        {"type": "input_audio_buffer.speech_stopped", "item_id": "item_u", "audio_end_ms": 20},
        {"type": "input_audio_buffer.committed", "item_id": "item_u", "previous_item_id": None},
    )
    await session.respond("Hello there.", ms=300)
    await client.expect("audioEnd")


@asynccontextmanager
async def talking(
    relay: RunningRelay, upstream: ScriptedUpstream
) -> AsyncIterator[tuple[DeviceClient, ScriptedSession]]:
    async with await DeviceClient.connect(relay.ws()) as client:
        session = await upstream.accept()
        await session.configure()
        await client.expect("AIConnected")
        yield client, session


async def test_a_session_is_recorded_finished_and_runs_identically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finishing = asyncio.Event()
    run_finish = Recorder._run_finish

    async def finish(recorder: Recorder) -> None:
        ended = bool(all_recordings(tmp_path))  # there is a round at the start as well
        await run_finish(recorder)
        if ended:
            finishing.set()

    monkeypatch.setattr(Recorder, "_run_finish", finish)
    async with stage(tmp_path, "on") as (relay, upstream):
        async with talking(relay, upstream) as (client, session):
            await a_turn(client, session)
            heard = bytes(client.audio)
        await asyncio.wait_for(finishing.wait(), 20)
    (folder,) = all_recordings(tmp_path)
    assert is_finished(folder)
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}
    assert (folder / "client.pcm").read_bytes() == tone(200, 16_000)
    assert (folder / "sent.pcm").read_bytes() == heard
    recording = Recording(folder)
    outcome = rerun(recording)
    assert (outcome.difference, outcome.notes, outcome.sent_bytes) == (None, [], len(heard))
    assert recording.header.beginning.session_id in folder.name
    assert recording.ended


@pytest.mark.parametrize("mode", ["on", "consent"])
async def test_sound_that_goes_on_as_it_is_stands_in_order_with_all_else(mode: str, tmp_path: Path) -> None:
    """At 24 kHz microphone frames take the short way past the rules; the tape writes them in runs."""
    sound = tone(400, 24_000)
    async with (
        stage(tmp_path, mode) as (relay, upstream),
        await DeviceClient.connect(relay.ws("/?rate=24000")) as client,
    ):
        session = await upstream.accept()
        await session.configure()
        await client.expect("AIConnected")
        if mode == "consent":
            await client.speak(sound[:960])  # before consent: it is nowhere
            await session.expect_audio(960)
            await client.send(type="consent", granted=True)
        for start in range(0, 9600, 960):
            await client.speak(sound[start : start + 960])
        await client.speak(sound[9600:14_400])
        await session.expect_audio(14_400)
        await client.send(type="text", text="and this")
        await session.expect("conversation.item.create")
        await client.speak(sound[14_400:])
        await session.expect_audio(len(sound))
    (folder,) = all_recordings(tmp_path)
    assert (folder / "client.pcm").read_bytes() == sound
    recording = Recording(folder)
    assert recording.header.from_start is (mode == "on")
    lines = [entry.line for entry in recording.entries() if isinstance(entry.line, Happened)]
    sizes = [line.n_audio_bytes for line in lines if line.n_audio_bytes or isinstance(line.event, ev.UserText)]
    assert sizes == [*[960] * 10, 4800, 0, 4800]
    if mode == "on":
        assert rerun(recording).identical


async def test_off_means_that_nothing_is_there(tmp_path: Path) -> None:
    async with stage(tmp_path / "r", "off") as (relay, upstream), talking(relay, upstream) as (client, session):
        await a_turn(client, session)
    assert not (tmp_path / "r").exists()


async def test_with_consent_nothing_is_written_before_it(tmp_path: Path) -> None:
    async with stage(tmp_path, "consent") as (relay, upstream):
        async with talking(relay, upstream) as (client, session):
            await a_turn(client, session)
        async with talking(relay, upstream) as (client, session):
            await a_turn(client, session)
            await client.send(type="consent", granted=True)
            await client.send(type="text", text="this may be kept")
            await session.expect("conversation.item.create")
    (folder,) = all_recordings(tmp_path)
    assert b"Hello there." not in (folder / "journal.jsonl").read_bytes()
    assert not (folder / "client.pcm").exists()
    recording = Recording(folder)
    first = next(recording.entries())
    assert first.event == ev.Consent(True)
    assert not recording.header.from_start
    with pytest.raises(Exception, match="begins in the middle of its session"):
        rerun(recording)


async def test_consent_in_hello_records_from_the_start(tmp_path: Path) -> None:
    async with stage(tmp_path, "consent") as (relay, upstream), talking(relay, upstream) as (client, session):
        await client.send(type="hello", v=1, consent=True)
        await client.expect("ready")
        await a_turn(client, session)
    (folder,) = all_recordings(tmp_path)
    assert rerun(Recording(folder)).identical
    assert Recording(folder).header.from_start


async def test_consent_that_is_taken_back_deletes_what_was_recorded(tmp_path: Path) -> None:
    async with stage(tmp_path, "on") as (relay, upstream), talking(relay, upstream) as (client, session):
        await a_turn(client, session)
        await client.send(type="consent", granted=False)
        await client.send(type="text", text="not to be kept")
        await session.expect("conversation.item.create")
    assert all_recordings(tmp_path) == []


# -- tapes ------------------------------------------------------------------------------------------------------------


class Loaded:
    """A tape fed by hand, its session with it."""

    def __init__(self, tape: SessionTape) -> None:
        self.tape = tape
        self.now = 100.0
        numbers = iter(range(1, 1 << 30))
        self.core = DeviceSession(
            "rs_1", SessionConfig(), DeviceOptions(), lambda: f"relay_{next(numbers)}", started_at=100.0
        )

    def feed(self, *events: ev.Event) -> None:
        for event in events:
            self.now += 0.02
            self.tape.tap(event, self.now, self.core.handle(event, self.now))


def tape_of(recorder: Recorder, principal: Principal | None = None, session_id: str = "rs_1") -> Loaded:
    tape = recorder.tape(session_id, SessionConfig(), DeviceOptions(), principal or Principal(), 100.0, lambda: 1e6)
    assert tape is not None
    return Loaded(tape)


async def written(recorder: Recorder) -> None:
    """Wait until the one batch that was handed over is on the disk."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    recorder.writer.do(lambda: loop.call_soon_threadsafe(done.set))  # type: ignore[arg-type, func-returns-value]
    await done.wait()


async def test_a_policy_has_its_own_word(tmp_path: Path) -> None:
    never, always = Recorder(tmp_path, "on"), Recorder(tmp_path, "off")
    begin = ("rs_1", SessionConfig(), DeviceOptions())
    assert never.tape(*begin, Principal(policy=Policy(record="off")), 0.0, lambda: 0.0) is None
    assert always.tape(*begin, Principal(), 0.0, lambda: 0.0) is None
    assert always.tape(*begin, Principal(policy=Policy(record="on")), 0.0, lambda: 0.0) is not None
    await never.stop()
    await always.stop()


def failing(monkeypatch: pytest.MonkeyPatch, fails: Any) -> None:
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        if fails():
            write(descriptor, data[: len(data) // 2])  # the half of it, as a full disk does
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    files = writing.Files
    monkeypatch.setattr("relay.tape.Files", lambda folder, header: files(folder, header, write=limited))


async def test_a_full_disk_marks_a_gap_and_the_recording_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = False
    failing(monkeypatch, lambda: full)
    recorder = Recorder(tmp_path, "on")
    loaded = tape_of(recorder)
    loaded.feed(ev.UpstreamOpened(), ev.SessionCreated(), ev.SessionUpdated(), microphone(20))

    async def handed_over() -> None:
        loaded.tape._hand_over()
        await written(recorder)

    await handed_over()
    full = True
    loaded.feed(microphone(20), microphone(20))
    await handed_over()
    full = False
    loaded.feed(microphone(20), ev.Bye())
    recorder.done(loaded.tape)
    await recorder.stop()
    (folder,) = all_recordings(tmp_path)
    lines = [entry.line for entry in Recording(folder).entries()]
    assert [line.records for line in lines if isinstance(line, Gap)] == [2]
    assert sum(isinstance(line, Happened) for line in lines) == 6
    assert (folder / "client.pcm").stat().st_size == 2 * 640
    outcome = rerun(Recording(folder))
    assert outcome.identical
    assert "gap of 2 records" in outcome.notes[-1]
    assert caplog.text.count("has a gap") == 1


async def test_a_disk_that_hangs_costs_a_bounded_queue_and_a_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(tmp_path, "on")
    recorder.writer = Writer(max_queued_bytes=50_000)
    loaded = tape_of(recorder)
    hung = threading.Event()
    recorder.writer.do(lambda: (hung.wait(20), None)[1])
    for _ in range(20):
        loaded.feed(*[microphone(100)] * 3)
        loaded.tape._hand_over()
    assert "the disk is too slow" in caplog.text
    hung.set()
    recorder.done(loaded.tape)
    await recorder.stop()
    (folder,) = all_recordings(tmp_path)
    gaps = [entry.line for entry in Recording(folder).entries() if isinstance(entry.line, Gap)]
    assert sum(gap.records for gap in gaps) >= 40
    assert (folder / "client.pcm").stat().st_size < 50_000


async def test_at_full_speed_one_recording_has_gaps_and_the_others_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session sends all that its allowance lets it, others talk, and the disk does nothing for a while."""
    recorder = Recorder(tmp_path, "on")
    recorder.writer = Writer(max_queued_bytes=2_000_000)
    disk_works = threading.Event()
    write = os.write

    def slow(descriptor: int, data: bytes) -> int:
        assert disk_works.wait(20)
        return write(descriptor, data)

    files = writing.Files
    monkeypatch.setattr("relay.tape.Files", lambda folder, header: files(folder, header, write=slow))
    greedy, *others = [tape_of(recorder, session_id=name) for name in ("greedy", "a", "b", "c")]
    for _ in range(10):
        greedy.feed(*[microphone(1000)] * 20)
        for _ in range(100):  # and what is left of the room, in small pieces
            greedy.feed(microphone(20))
            greedy.tape._hand_over()
        for other in others:
            other.feed(microphone(20))
            other.tape._hand_over()
    disk_works.set()
    for loaded in (greedy, *others):
        recorder.done(loaded.tape)
    await recorder.stop()
    *other_ones, greedy_one = map(Recording, all_recordings(tmp_path))
    lines = [entry.line for entry in greedy_one.entries() if not isinstance(entry.line, End)]
    lost = sum(line.records for line in lines if isinstance(line, Gap))
    assert lost > 100
    assert lost + sum(isinstance(line, Happened) for line in lines) == 1200
    for recording in other_ones:
        assert [type(entry.line) for entry in recording.entries()] == [Happened] * 10 + [End]


async def test_what_is_recorded_with_an_event_that_was_searched_is_searched_as_well(tmp_path: Path) -> None:
    """The upstream's events are searched when they are read. With one of them goes what the client said before."""
    recorder = Recorder(tmp_path, "on", secrets=KnownSecrets(["pw/0123-abcdef-4567"]))
    tape = recorder.realtime_tape("rs_1", (), RealtimeStart(None, None), Principal(), 9.0, lambda: 11.0)
    assert tape is not None
    event = UpstreamSaid(b'{"type":"session.updated"}', {"type": "session.updated"})
    tape.tap(event, 10.0, (TellUpstream({"type": "x", "text": "said: pw/0123-abcdef-4567"}),))
    try:
        raise ValueError("failed: pw/0123-abcdef-4567")
    except ValueError:
        tape.tap(event, 10.1, None)
    recorder.done(tape)
    await recorder.stop()
    (folder,) = all_recordings(tmp_path)
    journal = (folder / "journal.jsonl").read_bytes()
    assert b"said: " in journal
    assert b"failed: " in journal
    assert b"pw/0123" not in journal


# -- the bound of one recording ---------------------------------------------------------------------------------------


def lines_of(root: Path) -> list[Any]:
    (folder,) = all_recordings(root)
    return [entry.line for entry in Recording(folder).entries()]


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
            stage(tmp_path, "on", recording_max_mb=0.3) as (relay, upstream),
            talking(relay, upstream) as (client, session),
        ):
            for _ in range(10):
                await client.speak(tone(1000, 16_000))
            await asyncio.wait_for(warned.event.wait(), 5)
            await a_turn(client, session)
    finally:
        log.removeHandler(warned)
    assert len(warned.texts) == 1
    assert "has reached 0.3 MB (RELAY_RECORDING_MAX_MB); its session goes on" in warned.texts[0]
    assert lines_of(tmp_path)[-1].reason == "the recording has reached 0.3 MB (RELAY_RECORDING_MAX_MB)"
    (folder,) = all_recordings(tmp_path)
    assert 300_000 <= (folder / "client.pcm").stat().st_size < 600_000
    assert b"Hello there." not in (folder / "journal.jsonl").read_bytes()
    assert rerun(Recording(folder)).identical


async def test_a_recording_at_its_bound_is_locked_until_its_session_ends(tmp_path: Path) -> None:
    """So nobody finishes or prunes it, while the client may still take back its consent."""
    recorder = Recorder(tmp_path, "on", recording_max_mb=0.1)
    loaded = tape_of(recorder)
    loaded.feed(*[microphone(1000)] * 9)
    await written(recorder)
    (folder,) = all_recordings(tmp_path)
    assert is_live(folder)
    recorder.done(loaded.tape)
    await recorder.stop()
    assert not is_live(folder)


async def test_a_realtime_session_s_recording_has_the_same_bound(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "on", recording_max_mb=0.5)
    tape = recorder.realtime_tape("rs_1", (), RealtimeStart(None, None), Principal(), 9.0, lambda: 11.0)
    assert tape is not None
    for number in range(100):
        tape.tap(ClientSaid({"type": "conversation.item.create", "n": number, "text": "x" * 20_000}), 10.0, ())
    recorder.done(tape)
    await recorder.stop()
    (folder,) = all_recordings(tmp_path)
    assert (folder / "journal.jsonl").read_bytes().count(b"RELAY_RECORDING_MAX_MB") == 1
    assert 500_000 <= size_bytes(folder) < 800_000


async def test_consent_can_be_taken_back_after_the_bound_was_reached(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "on", recording_max_mb=0.1)
    loaded = tape_of(recorder)
    loaded.feed(*[microphone(1000)] * 20)
    assert not loaded.tape.wants
    loaded.feed(ev.Consent(False))
    recorder.done(loaded.tape)
    await recorder.stop()
    assert all_recordings(tmp_path) == []


async def test_the_end_is_written_also_where_no_more_may_wait(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "on", recording_max_mb=0.1)
    recorder.writer = Writer(max_queued_bytes=600_000)
    loaded = tape_of(recorder)
    waits = threading.Event()
    recorder.writer.do(lambda: (waits.wait(20), None)[1])
    loaded.feed(*[microphone(1000)] * 9)  # takes half of the room, and all that it may have
    recorder.done(loaded.tape)
    waits.set()
    await recorder.stop()
    assert lines_of(tmp_path)[-1].reason == "the recording has reached 0.1 MB (RELAY_RECORDING_MAX_MB)"


async def test_a_recorder_that_fails_ends_its_recording_and_not_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bytes:
        raise ValueError("a fault of the recorder's")

    recorder = Recorder(tmp_path, "on")
    loaded = tape_of(recorder)
    loaded.feed(ev.UpstreamOpened())
    monkeypatch.setattr("relay.tape.live_line", broken)
    loaded.feed(ev.SessionCreated(), ev.SessionUpdated())
    recorder.done(loaded.tape)
    await recorder.stop()
    assert caplog.text.count("ends early") == 1
    (folder,) = all_recordings(tmp_path)
    recording = Recording(folder)
    assert len(list(recording.entries())) == 2
    assert recording.ended


async def test_consent_can_be_taken_back_after_the_recorder_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then nobody finishes or prunes the recording."""

    def broken(*_: object) -> bytes:
        raise ValueError("a fault of the recorder's")

    recorder = Recorder(tmp_path, "on")
    loaded = tape_of(recorder)
    loaded.feed(ev.UpstreamOpened())
    monkeypatch.setattr("relay.tape.live_line", broken)
    loaded.feed(ev.SessionCreated())
    await written(recorder)
    (folder,) = all_recordings(tmp_path)
    assert is_live(folder)
    loaded.feed(ev.Consent(False))
    recorder.done(loaded.tape)
    await recorder.stop()
    assert all_recordings(tmp_path) == []


async def test_what_raised_in_the_core_is_in_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a fault of the rules")

    async with stage(tmp_path, "on") as (relay, upstream), talking(relay, upstream) as (client, _):
        monkeypatch.setattr(DeviceSession, "_text", fail)
        await client.send(type="text", text="hello")
        assert (await client.expect("error"))["code"] == "internal_error"
    monkeypatch.undo()
    (folder,) = all_recordings(tmp_path)
    difference = rerun(Recording(folder)).difference
    assert isinstance(difference, Difference)
    assert "UserText" in difference.event
    assert "raised KeyError" in difference.recorded[0]


def test_a_file_size_limit_is_a_gap_like_any_other(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    files = Files(tmp_path / "r", b"{}")
    batch = Batch((bytes(3000), b"", b"", b""), b'{"now":1.0,"in":3000}\n', 1, 1.0, 1.0)
    files.put(batch)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        files.put(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    files.put(batch)
    files.close()
    assert (tmp_path / "r" / "client.pcm").stat().st_size == 6000
    assert (tmp_path / "r" / "journal.jsonl").read_text().splitlines()[1].startswith('{"gap":{"records":1')


def passed(*, n_bytes: tuple[int, ...] = (960,)) -> Passed:
    frames = [bytes([n]) * n_bytes[n % len(n_bytes)] for n in range(7)]
    return Passed(
        frame_times=[10.02 + n * 0.02 for n in range(7)],
        frames=frames,
        item_id="item_a",
        response_id="resp_1",
        pieces=[(10.01, 4, 4), (10.06, 6, 4), (10.09, 2, 0)],
        sent=[b"\1\2\3\4", b"\5\6" * 2, b""],
        sound=[b"\1\2\3\4", b"\5\6" * 3, b"\7\0"],
        words=[
            (10.03, ev.TextDelta("resp_1", "item_a", 0, "one ", True)),
            (10.5, ev.TextDelta("r", "i", 1, "é", True)),
        ],
    )


@pytest.mark.parametrize("rate_hz", [24_000, 16_000])
@pytest.mark.parametrize("n_bytes", [(960,), (960, 640)])
async def test_what_is_written_down_in_bulk_is_what_would_have_been_piece_by_piece(
    tmp_path: Path, rate_hz: int, n_bytes: tuple[int, ...]
) -> None:
    pcm = AudioFormat("pcm16", rate_hz)  # type: ignore[arg-type]

    def written(in_bulk: bool) -> tuple[bytes, list[bytes], int, float, float]:
        recorder = Recorder(tmp_path, "on")
        batches: list[Batch] = []
        recorder.writer.put = lambda files, batch: not batches.append(batch)  # type: ignore[method-assign, func-returns-value]
        tape = recorder.tape("rs_1", SessionConfig(), DeviceOptions(pcm, pcm), Principal(), 9.0, lambda: 11.0)
        assert tape is not None
        assert tape.wants
        tape.tap(ev.Tick(), 10.0, ())
        for _ in range(2):
            if in_bulk:
                tape.passed(passed(n_bytes=n_bytes))
            else:
                told = passed(n_bytes=n_bytes)
                sent = iter(told.sent)
                for now, event, commands in told.events():
                    tape.tap(event, now, commands)
                    if isinstance(event, ev.Forwarded) and event.kind == "output_audio" and (samples := next(sent)):
                        tape.sent(samples, now)
            tape._hand_over()
        tape.close()
        audio = [b"".join(sound) for sound in zip(*(batch.audio for batch in batches), strict=True)]
        last = batches[1]
        return b"".join(batch.journal for batch in batches), audio, last.records, last.first, last.last

    in_bulk = written(True)
    assert in_bulk == written(False)
    assert in_bulk[0].count(b'"in":') == 14
    assert in_bulk[0].count(b'"sent":') == 4


async def test_a_recording_that_waits_for_consent_keeps_nothing_of_what_passes(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "consent")
    tape = recorder.tape("rs_1", SessionConfig(), DeviceOptions(), Principal(), 9.0, lambda: 11.0)
    assert tape is not None
    assert not tape.wants
    tape.passed(passed())
    assert not tape._records
    assert not tape._client
    tape.tap(ev.Consent(True), 10.0, ())
    assert tape.wants
    tape.close()
    assert not tape.wants


async def test_what_the_retention_lets_go_is_one_line_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = make_recording(tmp_path, session_id="rs_a"), make_recording(tmp_path, session_id="rs_b")
    caplog.set_level("INFO", "relay.recordings")
    recorder = Recorder(tmp_path, "on", max_mb=0.0001)
    recorder.start()
    async with asyncio.timeout(10):
        while "is deleted" not in caplog.text:  # noqa: ASYNC110  # a process of its own does it
            await asyncio.sleep(0.01)
    await recorder.stop()
    assert f"recording {old.name} is deleted: all together are over 0.0001 MB" in caplog.text
    assert not old.exists()
    assert new.exists()
