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
from relay.recording.derive.tracks import derive
from relay.recording.format.lines import End, Gap, Line
from relay.recording.format.write import MAX_LINE_BYTES, end_line, is_unredacted, redacted_later
from relay.recording.store.header import read_header
from relay.recording.store.layout import (
    AUDIO,
    DERIVED,
    JOURNAL,
    TIMELINE,
    RecordingError,
    all_recordings,
    is_live,
    open_file,
    private_file,
    take,
)
from relay.recording.store.reader import audio_of, read_line
from relay.recording.store.retention import prune


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done to one recording."""

    name: str
    cut_bytes: int = 0
    cut_lines: int = 0
    ended: bool = False
    derived: bool = False

    @property
    def words(self) -> str:
        """For the user."""
        done = []
        if self.cut_lines or self.cut_bytes:
            done.append(f"{self.cut_lines} whole lines and {self.cut_bytes} bytes in all cut off the journal's end")
        if self.ended:
            done.append("end added")
        if self.derived:
            done.append("tracks, outline and transcript made")
        return "; ".join(done) or "nothing to do"


def is_finished(folder: Path) -> bool:
    """Whether all derived files are there and younger than the journal."""
    try:
        made = (folder / TIMELINE).stat().st_mtime_ns
        return made >= (folder / JOURNAL).stat().st_mtime_ns and all((folder / name).exists() for name in DERIVED)
    except OSError:
        return False


def repair(folder: Path, *, again: bool = False) -> Repaired:
    """Finish one recording; `again` makes the derived files anew. Raises RecordingError, OSError.

    What cannot be understood (an edited line, a foreign version) is told and left as it is.
    """
    if is_live(folder):
        raise RecordingError(f"{folder.name} is being recorded; it is finished when its session ends")
    if is_finished(folder) and not again:
        return Repaired(folder.name)
    read_header(folder)
    with _locked(folder):
        repaired = _mend(folder)
        _clean(folder)
    derive(folder)
    return replace(repaired, derived=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with open_file(folder, JOURNAL) as file:
        try:
            take(file.fileno())
            if not os.path.samestat(os.fstat(file.fileno()), os.lstat(folder / JOURNAL)):
                # Another repair put a cleaned journal in the place of the opened one: this lock keeps nobody out.
                raise BlockingIOError
            yield
        except BlockingIOError:
            raise RecordingError(f"{folder.name} is being repaired by somebody else; try again in a moment") from None


def _mend(folder: Path) -> Repaired:
    """Keep the journal as far as it is whole and its audio is there, and end it."""
    sizes = {name: _size(folder, name) for name in AUDIO}
    path = folder / JOURNAL
    header = read_header(folder)
    good = number = 0
    last, ended = header.beginning.started_at, False
    cut_lines = 0
    with open_file(folder, JOURNAL) as file:
        while raw := file.readline(MAX_LINE_BYTES + 2):
            if not raw.endswith(b"\n"):
                if len(raw) > MAX_LINE_BYTES:
                    raise RecordingError(f"{path} line {number + 1}: the line is longer than any that was recorded")
                break
            number += 1
            try:
                lines = read_line(raw, header.format)
            except ValueError as error:
                raise RecordingError(f"{path} line {number}: {error}; it is left as it is") from None
            if not all(_is_there(line, sizes) for line in lines):
                cut_lines = 1 + sum(1 for _ in file)
                break
            good += len(raw)
            last = max(line.last if isinstance(line, Gap) else line.now for line in lines)
            ended = isinstance(lines[-1], End)
        file.seek(0, os.SEEK_END)
        cut_bytes = file.tell() - good
    if ended and not cut_bytes:
        return Repaired(folder.name)
    descriptor = os.open(path, os.O_WRONLY | O_BINARY | getattr(os, "O_NOFOLLOW", 0))
    try:
        os.ftruncate(descriptor, good)
        if not ended:
            os.lseek(descriptor, 0, os.SEEK_END)
            os.write(descriptor, end_line(last, "interrupted"))
    finally:
        os.close(descriptor)
    return Repaired(folder.name, cut_bytes, cut_lines, not ended)


def _clean(folder: Path) -> None:
    """Search the long lines that were left unsearched while the session went on. Raises RecordingError, OSError."""
    with open_file(folder, JOURNAL) as file:
        if not any(is_unredacted(raw) for raw in file):
            return
        file.seek(0)
        with private_file(folder / JOURNAL) as cleaned:
            for number, raw in enumerate(file, 1):
                try:
                    cleaned.write(redacted_later(raw) if is_unredacted(raw) else raw)
                except ValueError as error:
                    raise RecordingError(f"{folder / JOURNAL} line {number}: {error}") from None


def _size(folder: Path, name: str) -> int:
    if not os.path.lexists(folder / name):
        return 0  # where nothing was said there is no file
    with open_file(folder, name) as file:
        return os.fstat(file.fileno()).st_size


def _is_there(line: Line, left: dict[str, int]) -> bool:
    """Whether a line's audio stands in its file; counts it as read."""
    name, n_bytes = audio_of(line)
    if not name:
        return True
    left[name] -= n_bytes
    return left[name] >= 0


def finish_all(
    root: Path, max_days: float | None, max_mb: float | None, on_pruned: Callable[[str], object] = str
) -> list[str]:
    """Repair all that needs it and is not being written, and keep to the retention; the sentences of what failed.

    `on_pruned` is told each recording that went, and why.
    """
    failures = []
    for folder in all_recordings(root):
        if is_finished(folder) or is_live(folder):
            continue
        try:
            repair(folder)
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
