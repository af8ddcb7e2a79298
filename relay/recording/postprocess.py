"""Finalize recordings: repair the journal after a crash, redact deferred lines, and write the derived files.

A recording that is being written is skipped: its writer holds a lock.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from relay.private_files import O_BINARY
from relay.recording.derive.tracks import write_derived_files
from relay.recording.format.records import EndRecord, GapRecord, JournalRecord
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
    """The changes to one recording."""

    name: str
    torn_bytes: int = 0
    torn_lines: int = 0
    added_end_record: bool = False
    wrote_derived_files: bool = False

    @property
    def summary(self) -> str:
        """The changes as a sentence."""
        changes = []
        if self.torn_lines or self.torn_bytes:
            changes.append(f"journal truncated by {self.torn_bytes} bytes with {self.torn_lines} complete lines")
        if self.added_end_record:
            changes.append("end added")
        if self.wrote_derived_files:
            changes.append("tracks, waveform and transcript written")
        return "; ".join(changes) or "nothing to do"


def is_finalized(folder: Path) -> bool:
    """Return whether all derived files exist and are newer than the journal."""
    try:
        derived_ns = (folder / TIMELINE_FILE).stat().st_mtime_ns
        return derived_ns >= (folder / JOURNAL_FILE).stat().st_mtime_ns and all(
            (folder / name).exists() for name in DERIVED_FILES
        )
    except OSError:
        return False


def finalize(folder: Path, *, force: bool = False) -> RepairReport:
    """Finalize one recording; `force` writes the derived files again. Raises RecordingError, OSError.

    A line that cannot be decoded (edited, or of a newer format) is reported, and the journal stays unchanged.
    """
    if is_being_recorded(folder):
        raise RecordingError(f"{folder.name} is being recorded: it is finalized when its session ends")
    if is_finalized(folder) and not force:
        return RepairReport(folder.name)
    read_header(folder)
    with _locked_journal(folder):
        repaired = _truncate_torn_tail(folder)
        _redact_deferred_lines(folder)
    write_derived_files(folder)
    return replace(repaired, wrote_derived_files=True)


@contextlib.contextmanager
def _locked_journal(folder: Path) -> Iterator[None]:
    with open_file(folder, JOURNAL_FILE) as file:
        try:
            lock_journal(file.fileno())
            if not os.path.samestat(os.fstat(file.fileno()), os.lstat(folder / JOURNAL_FILE)):
                # Another process has replaced the journal since it was opened: this lock protects nothing.
                raise BlockingIOError
            yield
        except BlockingIOError:
            raise RecordingError(
                f"{folder.name} is being finalized by another process: try again in a moment"
            ) from None


class _IntactPart(NamedTuple):
    """The start of a journal, up to the last complete line whose audio exists."""

    n_bytes: int
    torn_bytes: int
    torn_lines: int
    last_s: float
    has_end: bool


def _truncate_torn_tail(folder: Path) -> RepairReport:
    """Truncate the journal after its intact part, and add the end."""
    intact = _intact_part(folder)
    if intact.has_end and not intact.torn_bytes:
        return RepairReport(folder.name)
    descriptor = os.open(folder / JOURNAL_FILE, os.O_WRONLY | O_BINARY | getattr(os, "O_NOFOLLOW", 0))
    try:
        os.ftruncate(descriptor, intact.n_bytes)
        if not intact.has_end:
            os.lseek(descriptor, 0, os.SEEK_END)
            os.write(descriptor, end_line(intact.last_s, "interrupted"))
    finally:
        os.close(descriptor)
    return RepairReport(folder.name, intact.torn_bytes, intact.torn_lines, not intact.has_end)


def _intact_part(folder: Path) -> _IntactPart:
    unread = {name: _file_size(folder, name) for name in AUDIO_FILES}
    path = folder / JOURNAL_FILE
    header = read_header(folder)
    n_bytes = number = torn_lines = 0
    last_s, has_end = header.setup.started_at, False
    with open_file(folder, JOURNAL_FILE) as file:
        while raw := file.readline(MAX_LINE_BYTES + 2):
            if not raw.endswith(b"\n"):
                if len(raw) > MAX_LINE_BYTES:
                    raise RecordingError(f"{path} line {number + 1}: the line is longer than {MAX_LINE_BYTES} bytes")
                break
            number += 1
            try:
                records = decode_line(raw, header.format)
            except ValueError as error:
                raise RecordingError(f"{path} line {number}: {error}; the file is unchanged") from None
            if not all(_consume_audio(record, unread) for record in records):
                torn_lines = 1 + sum(1 for _ in file)
                break
            n_bytes += len(raw)
            last_s = max(record.end_s if isinstance(record, GapRecord) else record.time_s for record in records)
            has_end = isinstance(records[-1], EndRecord)
        file.seek(0, os.SEEK_END)
        return _IntactPart(n_bytes, file.tell() - n_bytes, torn_lines, last_s, has_end)


def _redact_deferred_lines(folder: Path) -> None:
    """Redact the long lines whose redaction was deferred. Raises RecordingError, OSError."""
    with open_file(folder, JOURNAL_FILE) as file:
        if not any(is_unredacted(raw) for raw in file):
            return
        file.seek(0)
        with atomic_private_file(folder / JOURNAL_FILE) as redacted_file:
            for number, raw in enumerate(file, 1):
                try:
                    redacted_file.write(redact_deferred(raw) if is_unredacted(raw) else raw)
                except ValueError as error:
                    raise RecordingError(f"{folder / JOURNAL_FILE} line {number}: {error}") from None


def _file_size(folder: Path, name: str) -> int:
    if not os.path.lexists(folder / name):
        return 0  # a silent peer has no file
    with open_file(folder, name) as file:
        return os.fstat(file.fileno()).st_size


def _consume_audio(line: JournalRecord, unread: dict[str, int]) -> bool:
    """Return whether the audio of a record is in its file; subtracts it from the `unread` bytes."""
    name, n_bytes = audio_location(line)
    if not name:
        return True
    unread[name] -= n_bytes
    return unread[name] >= 0


def finalize_all(
    root: Path, max_days: float | None, max_mb: float | None, on_pruned: Callable[[str], object] = str
) -> list[str]:
    """Finalize all recordings that need it, and apply the retention limits. Returns a message for each failure.

    `on_pruned` is called with a message for each deleted recording.
    """
    failures = []
    for folder in list_recordings(root):
        if is_finalized(folder) or is_being_recorded(folder):
            continue
        try:
            finalize(folder)
        except (RecordingError, OSError, ValueError) as error:
            failures.append(str(error))
        except Exception as error:  # a failure with one recording must not affect the others
            failures.append(f"{folder.name}: {type(error).__name__}: {error}")
    try:
        for folder, reason in prune(root, datetime.now(UTC), max_days, max_mb):
            on_pruned(f"deleted: recording={folder.name} reason={reason}")
    except OSError as error:
        failures.append(f"retention: {error}")
    return failures
