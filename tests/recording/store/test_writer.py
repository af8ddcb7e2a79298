"""The writer thread: its open files, the shares of recordings, and failing disks."""

import errno
import os
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relay.recording.format.records import GapRecord
from relay.recording.format.write import end_line, gap_line
from relay.recording.store.layout import is_being_recorded
from relay.recording.store.writer import RecordingFiles, RecordingWriter, WriteBatch

KB = 1000


def batch(n_kb: int, letter: str = "a") -> WriteBatch:
    """Audio of the client, of the model and as it was sent, and a line."""
    samples = letter.encode() * (n_kb * KB // 3)
    return WriteBatch((samples, samples, b"", samples), b'{"now":1.0}\n', 1, 1.0, 1.0)


@contextmanager
def running(writer: RecordingWriter) -> Iterator[RecordingWriter]:
    writer.start()
    yield writer
    assert writer.stop(20)


def open_below(root: Path) -> list[str]:
    names = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            path = descriptor.readlink()
        except OSError:  # the one that lists them
            continue
        if path.is_relative_to(root):
            names.append(path.name)
    return names


def read(folder: Path, name: str = "client.pcm") -> bytes:
    return (folder / name).read_bytes()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_recording_has_two_files_open_at_most_and_one_between_batches(tmp_path: Path) -> None:
    most: list[int] = []

    def write(descriptor: int, data: bytes | bytearray) -> int:
        most.append(len(open_below(tmp_path)))
        return os.write(descriptor, data)

    files = RecordingFiles(tmp_path / "r", b"{}", write=write)
    for _ in range(3):
        files.write_batch(batch(3))
        assert open_below(tmp_path) == ["journal.jsonl"]
        assert is_being_recorded(tmp_path / "r")
    files.close()
    assert max(most) == 2
    assert open_below(tmp_path) == []
    assert not is_being_recorded(tmp_path / "r")
    assert len(read(tmp_path / "r")) == len(read(tmp_path / "r", "sent.pcm")) == 3 * KB


def test_a_recording_is_locked_before_it_can_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning and repair look for the header, and must not mistake a new recording for a complete one."""
    seen = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        seen.append(is_being_recorded(target.parent))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    files = RecordingFiles(tmp_path / "r", b"{}")
    files.write_batch(batch(3))
    files.close()
    assert seen == [True]


def test_a_disk_that_is_full_at_the_header_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / ".session.json.part").mkdir()  # in the way of the header
    files = RecordingFiles(tmp_path / "r", b"{}")
    files.write_batch(batch(3, "a"))
    assert not is_being_recorded(tmp_path / "r")
    (tmp_path / "r" / ".session.json.part").rmdir()
    files.write_batch(batch(3, "b"))
    files.close()
    assert read(tmp_path / "r") == b"b" * KB
    assert read(tmp_path / "r", "session.json") == b"{}"
    assert read(tmp_path / "r", "journal.jsonl") == gap_line(GapRecord(1, 1.0, 1.0)) + b'{"now":1.0}\n'


def test_what_could_not_be_cut_off_goes_with_the_next_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = False

    def write(descriptor: int, data: bytes | bytearray) -> int:
        n_bytes = os.write(descriptor, data[: len(data) // 2] if full else data)
        if full:
            raise OSError(errno.EIO, "Input/output error")
        return n_bytes

    def no_cut(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    files = RecordingFiles(tmp_path / "r", b"{}", write=write)
    files.write_batch(batch(3, "a"))
    full = True
    with monkeypatch.context() as patch:
        patch.setattr(os, "truncate", no_cut)
        patch.setattr(os, "ftruncate", no_cut)
        files.write_batch(batch(3, "x"))
    full = False
    files.write_batch(batch(3, "b"))
    files.close()
    assert read(tmp_path / "r") == b"a" * KB + b"b" * KB


def test_a_file_that_somebody_took_away_is_a_gap_and_no_empty_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = RecordingFiles(tmp_path / "r", b"{}")
    files.write_batch(batch(3))
    (tmp_path / "r" / "client.pcm").unlink()
    files.write_batch(batch(3))
    files.close()
    assert not (tmp_path / "r" / "client.pcm").exists()
    assert len(read(tmp_path / "r", "sent.pcm")) == KB
    assert read(tmp_path / "r", "journal.jsonl").count(b"\n") == 1
    assert "recording gap: recording=r error=No such file" in caplog.text


def test_a_file_that_somebody_cut_off_is_a_gap_and_is_not_filled_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = RecordingFiles(tmp_path / "r", b"{}")
    files.write_batch(batch(3))
    os.truncate(tmp_path / "r" / "client.pcm", 10)
    files.write_batch(batch(3))
    files.close()
    assert read(tmp_path / "r") == b"a" * 10
    assert "client.pcm was truncated by another program" in caplog.text


# -- shares -----------------------------------------------------------------------------------------------------------


def test_a_recording_may_have_as_much_waiting_as_it_leaves_free(tmp_path: Path) -> None:
    writer = RecordingWriter(max_queued_bytes=100 * KB)
    greedy, modest = RecordingFiles(tmp_path / "greedy", b"{}"), RecordingFiles(tmp_path / "modest", b"{}")
    n_accepted = sum(writer.submit(greedy, batch(9)) for _ in range(50))
    assert n_accepted == 4
    assert all(writer.submit(modest, batch(9)) for _ in range(2))
    assert not writer.submit(greedy, batch(9))
    with running(writer):
        pass
    with running(RecordingWriter(max_queued_bytes=100 * KB)) as writer:  # once it's written, there is room again
        assert writer.submit(greedy, batch(9))


def test_however_many_are_greedy_some_room_is_left(tmp_path: Path) -> None:
    writer = RecordingWriter(max_queued_bytes=1000 * KB)
    for number in range(10):
        greedy = RecordingFiles(tmp_path / str(number), b"{}")
        while writer.submit(greedy, batch(6)):
            pass
    assert writer.submit(RecordingFiles(tmp_path / "modest", b"{}"), batch(6))


def test_one_large_batch_is_taken_whatever_its_share(tmp_path: Path) -> None:
    """A message of a Realtime client can be as large as this."""
    writer = RecordingWriter(max_queued_bytes=100 * KB)
    assert writer.submit(RecordingFiles(tmp_path / "large", b"{}"), batch(70))
    assert not writer.submit(RecordingFiles(tmp_path / "another", b"{}"), batch(70))
    assert writer.submit(RecordingFiles(tmp_path / "modest", b"{}"), batch(1))


def test_each_recording_is_written_in_turn_and_closed_behind_its_own_batches(tmp_path: Path) -> None:
    order: list[str] = []
    writer = RecordingWriter()

    def files(name: str) -> RecordingFiles:
        def write(descriptor: int, data: bytes | bytearray) -> int:
            if data.startswith(b"{"):
                order.append(name)
            return os.write(descriptor, data)

        return RecordingFiles(tmp_path / name, b"{}", write=write)

    greedy, modest = files("greedy"), files("modest")
    for _ in range(4):
        writer.submit(greedy, batch(3))
    writer.submit_job(lambda: order.append("greedy ends"), greedy)
    writer.submit(modest, batch(3))
    writer.submit_job(lambda: order.append("modest ends"), modest)
    with running(writer):
        pass
    assert order == ["greedy", "modest", "greedy", "modest ends", "greedy", "greedy", "greedy ends"]


def test_a_recording_at_full_speed_on_a_disk_that_waits_costs_the_others_nothing(tmp_path: Path) -> None:
    """One recording fills the queue, three write as much as a conversation, and the disk hangs."""
    disk_works = threading.Event()

    def wait_and_write(descriptor: int, data: bytes | bytearray) -> int:
        assert disk_works.wait(20)
        return os.write(descriptor, data)

    greedy = RecordingFiles(tmp_path / "greedy", b"{}", write=wait_and_write)
    others = [RecordingFiles(tmp_path / f"other{number}", b"{}", write=wait_and_write) for number in range(3)]
    refused = 0
    tracemalloc.start()
    with running(RecordingWriter(max_queued_bytes=4000 * KB)) as writer:
        for turn in range(60):
            refused += not writer.submit(greedy, batch(250))
            while writer.submit(greedy, batch(3)):  # and what is left of the room, in small pieces
                pass
            if turn % 20 == 0:
                assert [writer.submit(files, batch(30)) for files in others] == [True] * 3
        at_most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        disk_works.set()
        for files in (greedy, *others):
            writer.submit(files, WriteBatch((b"", b"", b"", b""), end_line(2.0, "closed"), 1, 2.0, 2.0))
            writer.submit_job(files.close, files)
    assert refused > 50
    assert at_most < 5000 * KB
    for files in others:
        assert len(read(files.folder)) == 30 * KB
        assert b"gap" not in read(files.folder, "journal.jsonl")
