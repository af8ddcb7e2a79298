"""The one thread that writes all recordings. What it can't write is counted, and marked as a gap where it would stand.

The recorders hand over batches that are ready to be written. The thread does hardly more than system calls, so that it
never holds the interpreter for long. It takes one batch of each recording in turn, and each has a share of the room for
what waits. One that is fed faster than the disk writes gets gaps, and the others get none.
"""

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from relay.private_files import O_BINARY, PRIVATE_FILE_MODE, create_folder
from relay.recording.format.lines import GapRecord
from relay.recording.format.write import gap_line
from relay.recording.store.layout import AUDIO_FILES, HEADER_FILE, JOURNAL_FILE, lock_journal, write_private

MAX_QUEUED_BYTES = 32 * 1024 * 1024
"""What all sessions together may have waiting for the disk; further batches become gaps."""

_log = logging.getLogger("relay.recordings")

_APPEND = os.O_WRONLY | os.O_APPEND | O_BINARY | getattr(os, "O_NOFOLLOW", 0)


@dataclass(slots=True)
class WriteBatch:
    """What one session has to write: audio in the order of `AUDIO_FILES`, and the journal's lines about it."""

    audio: tuple[bytes, bytes, bytes, bytes]
    journal: bytes
    n_records: int
    start_s: float
    end_s: float

    @property
    def n_bytes(self) -> int:
        """Its size."""
        return len(self.journal) + sum(map(len, self.audio))


def extended_gap(gap: GapRecord | None, batch: WriteBatch) -> GapRecord:
    """A gap with one more batch in it, which could not be written; None: there was no gap yet."""
    records, first = (0, batch.start_s) if gap is None else (gap.n_records, gap.start_s)
    return GapRecord(records + batch.n_records, first, batch.end_s)


@dataclass(slots=True, eq=False)
class RecordingFiles:
    """One recording's files; only the writer's thread touches them. `write` is `os.write` but in tests.

    The journal stays open, for it holds the lock. A file of audio is open while its part of a batch is written.
    """

    folder: Path
    header: bytes
    write: Callable[[int, bytes], int] = os.write
    gap: GapRecord | None = None
    """What could not be written since the last batch that was."""
    has_logged_gap: bool = False
    accepted_bytes: int = 0
    """What the writer took for them; the loop's side adds to it."""
    written_bytes: int = 0
    """What of it is done with; the writer's thread adds to it."""
    _journal: int | None = None
    _sizes: dict[str, int] = field(default_factory=dict)
    """What each file holds of whole batches."""

    def write_batch(self, batch: WriteBatch) -> None:
        """Write a batch whole, or leave no trace of it but the count."""
        appended = {}
        try:
            journal = self._open_journal()
            for name, data in zip(AUDIO_FILES, batch.audio, strict=True):
                if data:
                    descriptor = self._open_audio(name)
                    try:
                        appended[name] = self._append(descriptor, name, data)
                    finally:
                        os.close(descriptor)
            # The journal comes last: it never speaks of audio that is not there.
            appended[JOURNAL_FILE] = self._append(journal, JOURNAL_FILE, gap_line(self.gap) + batch.journal)
        except OSError as error:
            self._undo()
            self.gap = extended_gap(self.gap, batch)
            if not self.has_logged_gap:
                self.has_logged_gap = True
                _log.error("recording %s has a gap: %s", self.folder.name, error.strerror or error)
            return
        self.gap = None
        for name, n_bytes in appended.items():
            self._sizes[name] += n_bytes

    def close(self) -> None:
        """Let go of the files, and of the lock that says that they are being written."""
        if self._journal is None:
            return
        journal, self._journal = self._journal, None
        for name in sorted(self._sizes, key=JOURNAL_FILE.__eq__):  # the journal last
            descriptor = journal
            with contextlib.suppress(OSError):  # a disk that fails now was told of before, or is found by repair
                descriptor = journal if name == JOURNAL_FILE else self._open_audio(name)
                os.fsync(descriptor)
            if descriptor != journal:
                os.close(descriptor)
        os.close(journal)

    def _open_journal(self) -> int:
        if self._journal is None:
            create_folder(self.folder)
            descriptor = os.open(self.folder / JOURNAL_FILE, _APPEND | os.O_CREAT, PRIVATE_FILE_MODE)
            try:
                lock_journal(descriptor)
                write_private(self.folder / HEADER_FILE, self.header)  # a recording from here on, and locked
                self.header = b""
            except OSError:
                os.close(descriptor)
                raise
            self._journal = descriptor
            self._sizes.setdefault(JOURNAL_FILE, 0)
        return self._journal

    def _open_audio(self, name: str) -> int:
        """The descriptor of a file of audio; it is made once, so that one that somebody took away is no empty one."""
        made = 0 if name in self._sizes else os.O_CREAT
        descriptor = os.open(f"{self.folder}/{name}", _APPEND | made, PRIVATE_FILE_MODE)
        self._sizes.setdefault(name, 0)
        return descriptor

    def _append(self, descriptor: int, name: str, data: bytes) -> int:
        """Write behind what is whole, and say how much. Raises OSError, also for a file that is too short."""
        found, whole, n_bytes = os.fstat(descriptor).st_size, self._sizes[name], len(data)
        if found > whole:
            os.ftruncate(descriptor, whole)
        elif found < whole:
            raise OSError(f"{name} was cut off by another program")
        while data:
            data = data[self.write(descriptor, data) :]
        return n_bytes

    def _undo(self) -> None:
        """Cut off what was begun; what cannot be cut now is cut by the next batch, or by repair."""
        for name, whole in self._sizes.items():
            path = self.folder / name
            with contextlib.suppress(OSError):
                if path.stat().st_size > whole:  # a shorter one would be filled with zeros
                    os.truncate(path, whole)


class RecordingWriter:
    """The thread and its queues, one for each recording; `submit` and `submit_job` are called from the loop and never
    wait.

    Jobs reach the thread by a queue, and the lanes are the thread's own. How much waits is counted without a lock:
    each sum of bytes has one thread that adds to it.
    """

    def __init__(self, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._max_queued_bytes = max_queued_bytes
        self._accepted_bytes = self._written_bytes = 0
        self._jobs: SimpleQueue[tuple[RecordingFiles | None, Callable[[], None]] | None] = (
            SimpleQueue()
        )  # None: the end
        self._lanes: dict[
            RecordingFiles | None, deque[Callable[[], None]]
        ] = {}  # with jobs, or with one that is being done
        self._turns: deque[RecordingFiles | None] = deque()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="relay-recorder", daemon=True)
        self._thread.start()

    def submit(self, files: RecordingFiles, batch: WriteBatch) -> bool:
        """Write a batch soon. Returns False, and forgets it, when the disk is that far behind for this recording."""
        n_bytes = batch.n_bytes
        if not self._has_room(n_bytes, files.accepted_bytes - files.written_bytes):
            return False
        self._accepted_bytes += n_bytes
        files.accepted_bytes += n_bytes
        self._jobs.put((files, partial(self._write, files, batch, n_bytes)))
        return True

    def submit_job(self, job: Callable[[], None], files: RecordingFiles | None = None) -> None:
        """Run something else, after all that was put before it for the same files."""
        self._jobs.put((files, job))

    def stop(self, timeout_s: float) -> bool:
        """Write what is left, then end the thread; False if the disk did not take it in time."""
        if self._thread is None:
            return True
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _has_room(self, n_bytes: int, own_bytes: int) -> bool:
        """Whether a recording with `own_bytes` waiting may have `n_bytes` more.

        It may have as much as it leaves free of three quarters of the room, so that no recording fills them alone. One
        batch is taken in any case, if it fits in there. The last quarter is for recordings that have little waiting.
        """
        own_bytes_then, all_bytes = own_bytes + n_bytes, self._accepted_bytes - self._written_bytes + n_bytes
        if own_bytes_then <= self._max_queued_bytes // 64:
            return all_bytes <= self._max_queued_bytes
        free_bytes = self._max_queued_bytes * 3 // 4 - all_bytes
        return free_bytes >= (own_bytes_then if own_bytes else 0)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._collect():
            files = self._turns.popleft()
            lane = self._lanes[files]
            try:
                lane.popleft()()
            except Exception:  # one session's files must not end the others' thread
                _log.exception("a recording could not be written")
            if lane:
                self._turns.append(files)
            else:
                del self._lanes[files]

    def _collect(self) -> bool:
        """Take over all that has been put; if there is nothing to do, wait for it. False: the end."""
        jobs = self._jobs
        while not jobs.empty() or not (self._turns or self._is_stopping):
            queued = jobs.get()
            if queued is None:
                self._is_stopping = True
                continue
            files, job = queued
            lane = self._lanes.get(files)
            if lane is None:
                lane = self._lanes[files] = deque()
                self._turns.append(files)
            lane.append(job)
        return bool(self._turns)

    def _write(self, files: RecordingFiles, batch: WriteBatch, n_bytes: int) -> None:
        try:
            files.write_batch(batch)
        finally:
            files.written_bytes += n_bytes
            self._written_bytes += n_bytes
