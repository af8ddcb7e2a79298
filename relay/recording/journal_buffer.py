"""What one session has recorded and not yet handed over: its lines in order, and the audio that they count.

A hand-over is one batch for the writer's thread. A batch that finds no room there becomes a gap: the next one begins
with a line that says how many records are missing.
"""

import logging
from typing import Final, Literal

from relay.recording.format.write import end_line, input_lines
from relay.recording.writer import Batch, Files, Missing, Writer

FLUSH_BYTES: Final = 64 * 1024
"""A buffer that holds more is handed over at once. A conversation at 24 kHz has as much in 0.7 s."""
LINE_BYTES: Final = 32
"""What the line of a frame of input adds to its audio, about."""

Stream = Literal[0, 1, 2, 3]
"""A file of audio: an index into `relay.recording.folder.AUDIO`."""
CLIENT: Final = 0
UPSTREAM: Final = 1
VOICE: Final = 2
SENT: Final = 3

_log = logging.getLogger("relay.recordings")


class JournalBuffer:
    """The lines and the audio of one session, from one hand-over to the next. Nothing in here waits."""

    def __init__(self, writer: Writer, name: str, max_bytes: float | None = None) -> None:
        """`name`: the recording, for the log. `max_bytes`: all that may be handed over; see `is_full`."""
        self._writer = writer
        self._name = name
        self._max_bytes = max_bytes
        self._total_bytes = 0
        self._missing = Missing()
        self._lines: list[bytes] = []
        self._audio: tuple[list[bytes], ...] = ([], [], [], [])
        self._client = self._audio[CLIENT]
        self._run: list[float] = []  # the times of frames of input in a row, all of one length, that are no lines yet
        self._run_bytes = 0
        self._records = 0
        self._handed_over = False
        self._pending_bytes = 0
        self._first = self._last = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether anything was ever added."""
        return self._handed_over or self._records > 0 or bool(self._run)

    @property
    def is_due(self) -> bool:
        """Whether there is so much that it is not to wait for the next flush."""
        return self._pending_bytes > FLUSH_BYTES

    @property
    def is_full(self) -> bool:
        """Whether the recording has reached its bound; the batch that reaches it is still written whole."""
        return self._max_bytes is not None and self._total_bytes >= self._max_bytes

    def add_input(self, samples: bytes, now: float) -> None:
        """Audio of the client's, fifty times a second: kept as it is, its line written with the others of its run."""
        n_bytes = len(samples)
        if n_bytes != self._run_bytes:
            self._end_run()
            self._run_bytes = n_bytes
        self._client.append(samples)
        self._run.append(now)
        self._pending_bytes += n_bytes + LINE_BYTES

    def add(self, line: bytes, now: float, stream: Stream = CLIENT, samples: bytes = b"") -> None:
        """A line, and the audio that it counts."""
        if self._run:
            self._end_run()
        if not self._records:
            self._first = now
        self._last = now
        self._records += 1
        self._lines.append(line)
        self._pending_bytes += len(line)
        if samples:
            self._audio[stream].append(samples)
            self._pending_bytes += len(samples)

    def hand_over(self, files: Files) -> None:
        """Give all of it to the writer's thread."""
        self._end_run()
        if not self._records:
            return
        self._handed_over = True
        missing = Missing(self._missing.records, self._missing.first, self._missing.last)
        client, upstream, voice, sent = map(b"".join, self._audio)
        journal = missing.take() + b"".join(self._lines)
        batch = Batch((client, upstream, voice, sent), journal, self._records, self._first, self._last)
        self.clear()
        if self._writer.put(files, batch):
            self._missing.records = 0
            self._total_bytes += batch.n_bytes
            return
        if not self._missing.records:
            _log.error("recording %s has a gap: the disk is too slow", self._name)
        self._missing.add(batch)

    def end(self, files: Files, now: float, reason: str) -> None:
        """Hand over what is left, and the last line."""
        self.hand_over(files)
        # Not by `put`: a gap and an end are so small that they need no room, whatever waits already.
        batch = Batch((b"", b"", b"", b""), self._missing.take() + end_line(now, reason), 1, now, now)
        self._writer.do(lambda: files.put(batch), files)

    def clear(self) -> None:
        """Forget all that was not handed over."""
        for chunks in self._audio:
            chunks.clear()
        self._lines.clear()
        self._run.clear()
        self._pending_bytes = self._records = 0

    def _end_run(self) -> None:
        run = self._run
        if not run:
            return
        if not self._records:
            self._first = run[0]
        self._last = run[-1]
        self._records += len(run)
        self._lines.append(input_lines(run, self._run_bytes))
        run.clear()
