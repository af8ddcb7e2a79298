"""Recordings that ended suddenly: repaired, finished, and how little a `kill -9` costs."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
import soundfile

from relay.recording.format.write import event_object, live_line
from relay.recording.postprocess import finalize, finalize_all, is_finalized
from relay.recording.replay.verify import verify
from relay.recording.store.layout import (
    CLIENT_AUDIO_FILE,
    DERIVED_FILES,
    USER_TRACK_FILE,
    RecordingError,
    is_being_recorded,
)
from relay.recording.store.reader import Recording
from relay.session.device.events import ClientClosed, TextDelta
from tests.support.scripted_recordings import make_recording, microphone_audio

ROOT = Path(__file__).parent.parent.parent
CHATTER = Path(__file__).parent.parent / "support" / "endless_session.py"


def test_finishing_makes_all_that_is_derived_and_only_once(tmp_path: Path) -> None:
    folder = make_recording(tmp_path)
    assert not is_finalized(folder)
    assert "tracks" in finalize(folder).summary
    assert is_finalized(folder)
    assert finalize(folder).summary == "nothing to do"
    assert {path.name for path in folder.iterdir()} >= set(DERIVED_FILES)
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}
    assert oct(folder.stat().st_mode & 0o777) == "0o700"


def test_the_tracks_are_on_one_clock_and_hold_what_was_heard(tmp_path: Path) -> None:
    folder = make_recording(tmp_path)
    finalize(folder)
    user, user_hz = soundfile.read(folder / "user.flac", dtype="int16")
    assistant, heard_hz = soundfile.read(folder / "assistant.flac", dtype="int16")
    assert (user_hz, heard_hz) == (16_000, 16_000)
    assert len(user) == len(assistant) == 4 * 16_000
    spoken = np.flatnonzero(np.abs(user) > 100) / 16_000
    assert spoken[0] == pytest.approx(0.2, abs=0.02)  # it arrived at 0.3 s and lasts 0.1
    assert spoken[-1] == pytest.approx(1.4, abs=0.02)
    played = np.flatnonzero(np.abs(assistant) > 100) / 16_000
    assert played[0] == pytest.approx(2.1, abs=0.02)  # by the acknowledgements: 300 ms were played at 2.4 s
    timeline = orjson.loads((folder / "timeline.json").read_bytes())
    (item,) = timeline["heard"]
    assert played[-1] == pytest.approx(2.1 + item["cut_ms"] / 1000, abs=0.02)
    assert "00:00:02.100 --> " in (folder / "transcript.vtt").read_text()
    assert "<v Assistant>It is —" in (folder / "transcript.vtt").read_text()


def test_half_a_sample_at_the_end_of_the_clients_audio_is_left_out(tmp_path: Path) -> None:
    folder = make_recording(tmp_path, [(0.5, microphone_audio(100) + b"\x01"), (1.0, ClientClosed(1000))])
    finalize(folder)
    track, _ = soundfile.read(folder / USER_TRACK_FILE, dtype="int16")
    assert microphone_audio(100) in track.tobytes()


def test_an_append_without_audio_needs_no_file(tmp_path: Path) -> None:
    folder = make_recording(tmp_path, [(0.5, b""), (1.0, ClientClosed(1000))])
    (folder / CLIENT_AUDIO_FILE).unlink(missing_ok=True)
    assert finalize(folder).wrote_derived_files


def test_no_tracks_are_made_of_more_than_a_week(tmp_path: Path) -> None:
    folder = make_recording(tmp_path, change=lambda raw: raw.replace(b'{"now":5004.0,"end"', b'{"now":9e11,"end"'))
    with pytest.raises(RecordingError, match=r"journal.jsonl: the recording lasts 899999995000 s; a track has at most"):
        finalize(folder)


def test_a_half_written_line_goes_and_the_end_comes(tmp_path: Path) -> None:
    folder = make_recording(tmp_path, ended=False, change=lambda raw: raw[:-20])
    done = finalize(folder)
    assert (done.torn_bytes > 0, done.torn_lines, done.added_end_record) == (True, 0, True)
    outcome = verify(Recording(folder))
    assert outcome.is_identical
    assert outcome.notes == []


def test_lines_whose_sound_is_not_there_go(tmp_path: Path) -> None:
    folder = make_recording(tmp_path)
    with (folder / "upstream.pcm").open("r+b") as file:
        file.truncate(60_000)  # the second of two seconds is missing
    done = finalize(folder)
    assert done.torn_lines > 3
    assert verify(Recording(folder)).is_identical


def test_what_is_being_recorded_is_left_alone(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    folder = make_recording(tmp_path, ended=False)
    with (folder / "journal.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_being_recorded(folder)
        with pytest.raises(RecordingError, match="is being recorded"):
            finalize(folder)
        assert finalize_all(tmp_path, None, None) == []
        assert not is_finalized(folder)
    assert not is_being_recorded(folder)
    assert finalize_all(tmp_path, None, None) == []
    assert is_finalized(folder)


def test_a_journal_that_another_repair_has_replaced_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second repair has opened the journal when the first one puts the cleaned journal in its place."""
    fcntl = pytest.importorskip("fcntl")
    long_line = live_line(event_object(TextDelta("resp_1", "item_a", 0, "word " * 10_000, True), 5005.0, ())[0])
    folder = make_recording(tmp_path, ended=False, change=lambda raw: raw + long_line)
    flock, cleaned = fcntl.flock, b""

    def meanwhile(descriptor: int, operation: int) -> None:
        nonlocal cleaned
        if operation & fcntl.LOCK_EX:
            monkeypatch.undo()
            assert finalize(folder).added_end_record
            cleaned = (folder / "journal.jsonl").read_bytes()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with pytest.raises(RecordingError, match="is being finalized by another process"):
        finalize(folder)
    assert (folder / "journal.jsonl").read_bytes() == cleaned


def test_one_bad_recording_does_not_keep_the_others_from_being_finished(tmp_path: Path) -> None:
    bad, good = make_recording(tmp_path, session_id="rs_a"), make_recording(tmp_path, session_id="rs_b")
    (bad / "session.json").write_text("{}")
    (failure,) = finalize_all(tmp_path, None, None)
    assert "rs_a" in failure
    assert is_finalized(good)


def test_a_journal_that_nobody_wrote_keeps_no_other_recording_from_being_finished(tmp_path: Path) -> None:
    bad, good = make_recording(tmp_path, session_id="rs_a"), make_recording(tmp_path, session_id="rs_b")
    (bad / "journal.jsonl").write_text('{"unredacted":5}\n')
    (failure,) = finalize_all(tmp_path, None, None)
    assert "rs_a" in failure
    assert "line 1" in failure
    assert is_finalized(good)


def kill_in_the_middle(root: Path, after_s: float) -> tuple[float, float]:
    """Record, kill -9, repair, open. Returns seconds recorded, and of them seconds lost."""
    process = subprocess.Popen([sys.executable, CHATTER, root], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "recording\n"
    timer = None
    lines: list[str] = []
    try:
        import threading

        timer = threading.Timer(after_s, os.kill, (process.pid, signal.SIGKILL))
        timer.start()
        lines = process.stdout.read().splitlines(keepends=True)
    finally:
        if timer is not None:
            timer.join()
        process.wait()
        process.stdout.close()
    assert process.returncode == -signal.SIGKILL  # it recorded until then
    times = [float(line) for line in lines if line.endswith("\n")]
    folders = list(root.iterdir()) if root.exists() else []
    if not folders:  # killed before the first write: all of it is lost
        fed_s = times[-1] - times[0] if times else 0.0
        return fed_s, fed_s
    (folder,) = folders
    finalize(folder)
    recording = Recording(folder)
    assert verify(recording).is_identical
    started_at = recording.header.setup.started_at
    last = max(entry.record.time_s for entry in recording.entries() if hasattr(entry.record, "time_s"))
    fed = times[-1] if times else started_at
    return fed - started_at, max(fed - last, 0.0)


@pytest.mark.parametrize("times", [2, pytest.param(60, marks=pytest.mark.long)])
def test_kill_nine_costs_less_than_a_second(times: int, tmp_path: Path) -> None:
    chance = random.Random(times)
    lost = []
    for number in range(times):
        root = tmp_path / str(number)
        fed_s, lost_s = kill_in_the_middle(root, chance.uniform(0.6, 2.0))
        lost.append(lost_s)
        print(f"killed after {fed_s:.2f} s of recording: {lost_s * 1000:.0f} ms lost")
    assert max(lost) < 1.0
