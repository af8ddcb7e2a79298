"""Repair and finish recordings.

What a sudden end left half written is cut off, the end is added, and the derived files are made. A recording that is
being written is left alone: its writer holds a lock.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from relay.private_files import O_BINARY
from relay.recording.derive.tracks import write_derived_files
from relay.recording.format.lines import EndRecord, GapRecord, JournalRecord
from relay.recording.format.write import MAX_LINE_BYTES, end_line, is_unredacted, redact_deferred
from relay.recording.store.header import read_header
from relay.recording.store.layout import (
    AUDIO_FILES,
    DERIVED_FILES,
    JOURNAL_FILE,
    TIMELINE_FILE,
    RecordingError,
    atomic_private_file,
    is_being_recorded,
    list_recordings,
    lock_journal,
    open_file,
)
from relay.recording.store.reader import audio_location, decode_line
from relay.recording.store.retention import prune


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was done to one recording."""

    name: str
    cut_bytes: int = 0
    cut_lines: int = 0
    end_added: bool = False
    derived_written: bool = False

    @property
    def summary(self) -> str:
        """For the user."""
        done = []
        if self.cut_lines or self.cut_bytes:
            done.append(f"{self.cut_lines} whole lines and {self.cut_bytes} bytes in all cut off the journal's end")
        if self.end_added:
            done.append("end added")
        if self.derived_written:
            done.append("tracks, outline and transcript made")
        return "; ".join(done) or "nothing to do"


def is_finalized(folder: Path) -> bool:
    """Whether all derived files are there and younger than the journal."""
    try:
        made = (folder / TIMELINE_FILE).stat().st_mtime_ns
        return made >= (folder / JOURNAL_FILE).stat().st_mtime_ns and all(
            (folder / name).exists() for name in DERIVED_FILES
        )
    except OSError:
        return False


def finalize(folder: Path, *, force: bool = False) -> RepairReport:
    """Finish one recording; `force` makes the derived files anew. Raises RecordingError, OSError.

    What cannot be understood (an edited line, a foreign version) is told and left as it is.
    """
    if is_being_recorded(folder):
        raise RecordingError(f"{folder.name} is being recorded; it is finished when its session ends")
    if is_finalized(folder) and not force:
        return RepairReport(folder.name)
    read_header(folder)
    with _locked_journal(folder):
        repaired = _truncate_torn_tail(folder)
        _redact_deferred_lines(folder)
    write_derived_files(folder)
    return replace(repaired, derived_written=True)


@contextlib.contextmanager
def _locked_journal(folder: Path) -> Iterator[None]:
    with open_file(folder, JOURNAL_FILE) as file:
        try:
            lock_journal(file.fileno())
            if not os.path.samestat(os.fstat(file.fileno()), os.lstat(folder / JOURNAL_FILE)):
                # Another repair put a cleaned journal in the place of the opened one: this lock keeps nobody out.
                raise BlockingIOError
            yield
        except BlockingIOError:
            raise RecordingError(f"{folder.name} is being repaired by somebody else; try again in a moment") from None


def _truncate_torn_tail(folder: Path) -> RepairReport:
    """Keep the journal as far as it is whole and its audio is there, and end it."""
    sizes = {name: _file_size(folder, name) for name in AUDIO_FILES}
    path = folder / JOURNAL_FILE
    header = read_header(folder)
    good = number = 0
    last, ended = header.setup.started_at, False
    cut_lines = 0
    with open_file(folder, JOURNAL_FILE) as file:
        while raw := file.readline(MAX_LINE_BYTES + 2):
            if not raw.endswith(b"\n"):
                if len(raw) > MAX_LINE_BYTES:
                    raise RecordingError(f"{path} line {number + 1}: the line is longer than any that was recorded")
                break
            number += 1
            try:
                lines = decode_line(raw, header.format)
            except ValueError as error:
                raise RecordingError(f"{path} line {number}: {error}; it is left as it is") from None
            if not all(_consume_audio(line, sizes) for line in lines):
                cut_lines = 1 + sum(1 for _ in file)
                break
            good += len(raw)
            last = max(line.end_s if isinstance(line, GapRecord) else line.time_s for line in lines)
            ended = isinstance(lines[-1], EndRecord)
        file.seek(0, os.SEEK_END)
        cut_bytes = file.tell() - good
    if ended and not cut_bytes:
        return RepairReport(folder.name)
    descriptor = os.open(path, os.O_WRONLY | O_BINARY | getattr(os, "O_NOFOLLOW", 0))
    try:
        os.ftruncate(descriptor, good)
        if not ended:
            os.lseek(descriptor, 0, os.SEEK_END)
            os.write(descriptor, end_line(last, "interrupted"))
    finally:
        os.close(descriptor)
    return RepairReport(folder.name, cut_bytes, cut_lines, not ended)


def _redact_deferred_lines(folder: Path) -> None:
    """Search the long lines that were left unsearched while the session went on. Raises RecordingError, OSError."""
    with open_file(folder, JOURNAL_FILE) as file:
        if not any(is_unredacted(raw) for raw in file):
            return
        file.seek(0)
        with atomic_private_file(folder / JOURNAL_FILE) as cleaned:
            for number, raw in enumerate(file, 1):
                try:
                    cleaned.write(redact_deferred(raw) if is_unredacted(raw) else raw)
                except ValueError as error:
                    raise RecordingError(f"{folder / JOURNAL_FILE} line {number}: {error}") from None


def _file_size(folder: Path, name: str) -> int:
    if not os.path.lexists(folder / name):
        return 0  # where nothing was said there is no file
    with open_file(folder, name) as file:
        return os.fstat(file.fileno()).st_size


def _consume_audio(line: JournalRecord, left: dict[str, int]) -> bool:
    """Whether a line's audio stands in its file; counts it as read."""
    name, n_bytes = audio_location(line)
    if not name:
        return True
    left[name] -= n_bytes
    return left[name] >= 0


def finalize_all(
    root: Path, max_days: float | None, max_mb: float | None, on_pruned: Callable[[str], object] = str
) -> list[str]:
    """Repair all that needs it and is not being written, and keep to the retention; the sentences of what failed.

    `on_pruned` is told each recording that went, and why.
    """
    failures = []
    for folder in list_recordings(root):
        if is_finalized(folder) or is_being_recorded(folder):
            continue
        try:
            finalize(folder)
        except (RecordingError, OSError, ValueError) as error:
            failures.append(str(error))
        except Exception as error:  # a fault of ours with one recording must not keep the others from being finished
            failures.append(f"{folder.name}: {type(error).__name__}: {error}")
    try:
        for folder, why in prune(root, datetime.now(UTC), max_days, max_mb):
            on_pruned(f"{folder.name} is deleted: {why}")
    except OSError as error:
        failures.append(f"retention: {error}")
    return failures
