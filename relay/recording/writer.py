"""The one thread that writes all recordings. What it can't write is counted, and marked as a gap where it would stand.

The loop's side (`relay.tape`) hands over batches that are ready to be written; the thread does hardly more than
system calls, so that it never holds the interpreter for long.
"""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from relay.core.journal_lines import Gap, gap_line
from relay.private_files import FILE_MODE, make_folder
from relay.recording.folder import AUDIO, HEADER, JOURNAL, write_private

try:
    import fcntl
except ImportError:  # Windows: recordings are not locked there, so repair them while no relay is running
    fcntl = None  # type: ignore[assignment]

MAX_QUEUED_BYTES = 32 * 1024 * 1024
"""What all sessions together may have waiting for the disk; further batches become gaps."""

_log = logging.getLogger("relay.recordings")

Sound = bytes | bytearray


@dataclass(slots=True)
class Batch:
    """What one session has to write: audio in the order of `AUDIO`, and the journal's lines about it."""

    audio: tuple[Sound, Sound, Sound, Sound]
    journal: bytes
    records: int
    first: float
    last: float

    @property
    def n_bytes(self) -> int:
        """Its size."""
        return len(self.journal) + sum(map(len, self.audio))


@dataclass(slots=True)
class Missing:
    """Records that could not be written, until they are marked."""

    records: int = 0
    first: float = 0.0
    last: float = 0.0

    def add(self, batch: Batch) -> None:
        """One more batch is lost."""
        self.first = batch.first if not self.records else self.first
        self.last = batch.last
        self.records += batch.records

    def take(self) -> bytes:
        """The line that marks the gap; empty if there is none."""
        if not self.records:
            return b""
        line = gap_line(Gap(self.records, self.first, self.last))
        self.records = 0
        return line


@dataclass(slots=True)
class Files:
    """One recording's files; only the writer's thread touches them. `write` is `os.write` but in tests."""

    folder: Path
    header: bytes
    write: Callable[[int, bytes | bytearray], int] = os.write
    missing: Missing = field(default_factory=Missing)
    told: bool = False
    _descriptors: dict[str, int] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _appended: dict[str, int] = field(default_factory=dict)

    def put(self, batch: Batch) -> None:
        """Write a batch whole, or leave no trace of it but the count."""
        try:
            self._open()
            for name, data in zip(AUDIO, batch.audio, strict=True):
                self._append(name, data)
            # The journal comes last: it never speaks of audio that is not there.
            missing = Missing(self.missing.records, self.missing.first, self.missing.last)
            self._append(JOURNAL, missing.take() + batch.journal)
        except OSError as error:
            self._undo()
            self.missing.add(batch)
            if not self.told:
                self.told = True
                _log.error("recording %s has a gap: %s", self.folder.name, error.strerror or error)
            return
        self.missing = Missing()
        self._sizes = {name: size + self._appended.get(name, 0) for name, size in self._sizes.items()}
        self._appended = {}

    def close(self) -> None:
        """Let go of the files, and of the lock that says that they are being written."""
        for descriptor in self._descriptors.values():
            with contextlib.suppress(OSError):  # a disk that fails now was told of before, or is found by repair
                os.fsync(descriptor)
            os.close(descriptor)
        self._descriptors.clear()

    def _open(self) -> None:
        if JOURNAL in self._descriptors:
            return
        make_folder(self.folder)
        write_private(self.folder / HEADER, self.header)
        descriptor = self._create(JOURNAL)
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _create(self, name: str) -> int:
        descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        self._descriptors[name] = descriptor
        self._sizes[name] = 0
        return descriptor

    def _append(self, name: str, data: bytes | bytearray) -> None:
        if not data:
            return
        descriptor = self._descriptors.get(name)
        if descriptor is None:
            descriptor = self._create(name)
        self._appended[name] = len(data)
        while data:
            data = data[self.write(descriptor, data) :]

    def _undo(self) -> None:
        self._appended = {}
        for name, descriptor in self._descriptors.items():
            with contextlib.suppress(OSError):  # what stays behind is cut off by repair
                os.ftruncate(descriptor, self._sizes.get(name, 0))


class Writer:
    """The thread and its queue; `put` is called from the loop and never waits."""

    def __init__(self, max_queued_bytes: int = MAX_QUEUED_BYTES) -> None:
        self._max_queued_bytes = max_queued_bytes
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="relay-recorder", daemon=True)
        self._thread.start()

    def put(self, files: Files, batch: Batch) -> bool:
        """Write a batch soon. Returns False, and forgets it, when the disk is that far behind."""
        n_bytes = batch.n_bytes
        with self._lock:
            if self._queued_bytes + n_bytes > self._max_queued_bytes:
                return False
            self._queued_bytes += n_bytes
        self._jobs.put(lambda: self._write(files, batch, n_bytes))
        return True

    def do(self, job: Callable[[], None]) -> None:
        """Run something else, after all that was put before it."""
        self._jobs.put(job)

    def stop(self, timeout_s: float) -> bool:
        """Write what is left, then end the thread; False if the disk did not take it in time."""
        if self._thread is None:
            return True
        self._jobs.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _write(self, files: Files, batch: Batch, n_bytes: int) -> None:
        try:
            files.put(batch)
        finally:
            with self._lock:
                self._queued_bytes -= n_bytes

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # one session's files must not end the others' thread
                _log.exception("a recording could not be written")
