"""The thread that writes all recordings. A batch that it cannot write becomes a gap in the journal.

The recorders submit encoded batches. The thread makes little more than system calls, so that it never holds the GIL for
long. It serves the recordings round-robin, and each may use a share of the queue. A recording that produces data faster
than the disk writes gets gaps; the others get none.
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
from relay.recording.format.records import GapRecord
from relay.recording.format.write import gap_line
from relay.recording.store.layout import AUDIO_FILES, HEADER_FILE, JOURNAL_FILE, lock_journal, write_private

MAX_QUEUED_BYTES = 32 * 1024 * 1024
"""The limit of queued data of all sessions; further batches become gaps."""

_log = logging.getLogger("relay.recordings")

_APPEND = os.O_WRONLY | os.O_APPEND | O_BINARY | getattr(os, "O_NOFOLLOW", 0)


@dataclass(slots=True)
class WriteBatch:
    """Data of one session to write: audio in the order of `AUDIO_FILES`, and the journal lines about it."""

    audio: tuple[bytes, bytes, bytes, bytes]
    journal: bytes
    n_records: int
    start_s: float
    end_s: float

    @property
    def n_bytes(self) -> int:
        """The size of the batch."""
        return len(self.journal) + sum(map(len, self.audio))


def extend_gap(gap: GapRecord | None, batch: WriteBatch) -> GapRecord:
    """Extend a gap by a batch that could not be written; None: no gap yet."""
    records, first = (0, batch.start_s) if gap is None else (gap.n_records, gap.start_s)
    return GapRecord(records + batch.n_records, first, batch.end_s)


@dataclass(slots=True, eq=False)
class RecordingFiles:
    """The files of one recording, used only by the writer thread. `write` is `os.write` except in tests.

    The journal stays open, because it holds the lock. An audio file is open only while it is written.
    """

    folder: Path
    header: bytes
    write: Callable[[int, bytes], int] = os.write
    gap: GapRecord | None = None
    """The gap since the last written batch; None if there is none."""
    has_logged_gap: bool = False
    accepted_bytes: int = 0
    """The bytes submitted so far; only the event loop adds to it."""
    written_bytes: int = 0
    """The bytes processed so far; only the writer thread adds to it."""
    _journal: int | None = None
    _sizes: dict[str, int] = field(default_factory=dict)
    """The length of each file up to the last complete batch."""

    def write_batch(self, batch: WriteBatch) -> None:
        """Write a batch completely, or count it as a gap."""
        appended_bytes = {}
        try:
            journal = self._open_journal()
            for name, data in zip(AUDIO_FILES, batch.audio, strict=True):
                if data:
                    descriptor = self._open_audio(name)
                    try:
                        appended_bytes[name] = self._append(descriptor, name, data)
                    finally:
                        os.close(descriptor)
            # The journal comes last: it never refers to missing audio.
            appended_bytes[JOURNAL_FILE] = self._append(journal, JOURNAL_FILE, gap_line(self.gap) + batch.journal)
        except OSError as error:
            self._undo()
            self.gap = extend_gap(self.gap, batch)
            if not self.has_logged_gap:
                self.has_logged_gap = True
                _log.error("recording gap: recording=%s error=%s", self.folder.name, error.strerror or error)
            return
        self.gap = None
        for name, n_bytes in appended_bytes.items():
            self._sizes[name] += n_bytes

    def close(self) -> None:
        """Flush the files to the disk and release the lock."""
        if self._journal is None:
            return
        journal, self._journal = self._journal, None
        for name in sorted(self._sizes, key=JOURNAL_FILE.__eq__):  # the journal last
            descriptor = journal
            with contextlib.suppress(OSError):  # a failing disk was reported before, or is found by repair
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
                write_private(self.folder / HEADER_FILE, self.header)  # from here on it is a recording, and locked
                self.header = b""
            except OSError:
                os.close(descriptor)
                raise
            self._journal = descriptor
            self._sizes.setdefault(JOURNAL_FILE, 0)
        return self._journal

    def _open_audio(self, name: str) -> int:
        """Open an audio file. It is created once: a file that was deleted meanwhile must not come back empty."""
        create_flag = 0 if name in self._sizes else os.O_CREAT
        descriptor = os.open(f"{self.folder}/{name}", _APPEND | create_flag, PRIVATE_FILE_MODE)
        self._sizes.setdefault(name, 0)
        return descriptor

    def _append(self, descriptor: int, name: str, data: bytes) -> int:
        """Write after the last complete batch; returns the length. Raises OSError, also if the file is too short."""
        size, complete, n_bytes = os.fstat(descriptor).st_size, self._sizes[name], len(data)
        if size > complete:
            os.ftruncate(descriptor, complete)
        elif size < complete:
            raise OSError(f"{name} was truncated by another program")
        while data:
            data = data[self.write(descriptor, data) :]
        return n_bytes

    def _undo(self) -> None:
        """Truncate an incomplete batch; if that fails, the next batch or repair does it."""
        for name, complete in self._sizes.items():
            path = self.folder / name
            with contextlib.suppress(OSError):
                if path.stat().st_size > complete:  # a shorter one would be filled with zeros
                    os.truncate(path, complete)


class RecordingWriter:
    """The thread and its queues, one for each recording. The event loop calls `submit`, which never blocks.

    Jobs reach the thread through one queue; the queue of each recording belongs to the thread. The size of the backlog
    needs no lock: each counter of bytes has one thread that adds to it.
    """

    def __init__(self, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._max_queued_bytes = max_queued_bytes
        self._accepted_bytes = self._written_bytes = 0
        self._jobs: SimpleQueue[tuple[RecordingFiles | None, Callable[[], None]] | None] = (
            SimpleQueue()
        )  # None: the end
        self._queues: dict[RecordingFiles | None, deque[Callable[[], None]]] = {}  # those with queued or running jobs
        self._round_robin: deque[RecordingFiles | None] = deque()
        self._is_stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="relay-recorder", daemon=True)
        self._thread.start()

    def submit(self, files: RecordingFiles, batch: WriteBatch) -> bool:
        """Queue a batch. Returns False, and drops it, if this recording has too much queued."""
        n_bytes = batch.n_bytes
        if not self._has_room(n_bytes, files.accepted_bytes - files.written_bytes):
            return False
        self._accepted_bytes += n_bytes
        files.accepted_bytes += n_bytes
        self._jobs.put((files, partial(self._write, files, batch, n_bytes)))
        return True

    def submit_job(self, job: Callable[[], None], files: RecordingFiles | None = None) -> None:
        """Queue another job, which runs after everything submitted before for the same files."""
        self._jobs.put((files, job))

    def stop(self, timeout_s: float) -> bool:
        """Write what is queued and end the thread; False if that takes longer than `timeout_s`."""
        if self._thread is None:
            return True
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _has_room(self, n_bytes: int, own_bytes: int) -> bool:
        """Return whether a recording with `own_bytes` queued may queue `n_bytes` more.

        Its share is as much as it leaves free of three quarters of the limit, so that no recording fills them alone.
        A single batch is accepted if it fits in there. The last quarter is for recordings that have little queued.
        """
        new_own_bytes, all_bytes = own_bytes + n_bytes, self._accepted_bytes - self._written_bytes + n_bytes
        if new_own_bytes <= self._max_queued_bytes // 64:
            return all_bytes <= self._max_queued_bytes
        free_bytes = self._max_queued_bytes * 3 // 4 - all_bytes
        return free_bytes >= (new_own_bytes if own_bytes else 0)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._collect():
            files = self._round_robin.popleft()
            queue = self._queues[files]
            try:
                queue.popleft()()
            except Exception:  # one session's files must not end the others' thread
                _log.exception("recording write failed")
            if queue:
                self._round_robin.append(files)
            else:
                del self._queues[files]

    def _collect(self) -> bool:
        """Move submitted jobs to their queues; wait if there are none. False: the thread ends."""
        jobs = self._jobs
        while not jobs.empty() or not (self._round_robin or self._is_stopping):
            submitted_job = jobs.get()
            if submitted_job is None:
                self._is_stopping = True
                continue
            files, job = submitted_job
            queue = self._queues.get(files)
            if queue is None:
                queue = self._queues[files] = deque()
                self._round_robin.append(files)
            queue.append(job)
        return bool(self._round_robin)

    def _write(self, files: RecordingFiles, batch: WriteBatch, n_bytes: int) -> None:
        try:
            files.write_batch(batch)
        finally:
            files.written_bytes += n_bytes
            self._written_bytes += n_bytes
