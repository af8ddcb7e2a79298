"""What one session has recorded and not yet handed over: its records in order, and the audio in them.

While the session goes on, a record is hardly more than a reference that is kept; lines are made of all of them at once
when they are handed over, with code and data in the processor's caches. Audio is never copied on the way to the file.
A batch that finds no room with the writer becomes a gap: the next one begins with a line that says how many records
are missing.
"""

import logging
from typing import Any, Final, Literal
from zlib import crc32

from relay.core.events import TextDelta
from relay.recording.format.write import end_line, input_lines, output_line, sent_line, words_line
from relay.recording.writer import Batch, Files, Missing, Writer

FLUSH_BYTES: Final = 64 * 1024
"""A buffer that holds more is handed over at once. A conversation at 24 kHz has as much in 0.7 s."""
RECORD_BYTES: Final = 160
"""What a record takes besides its audio, about."""

Stream = Literal[0, 1, 2, 3]
"""A file of audio: an index into `relay.recording.folder.AUDIO`."""
CLIENT: Final = 0
UPSTREAM: Final = 1
VOICE: Final = 2
SENT: Final = 3

_LINE, _OUTPUT, _SENT, _TEXT = range(4)

_log = logging.getLogger("relay.recordings")


class JournalBuffer:
    """The records of one session from one hand-over to the next. Nothing in here waits.

    What adds a record returns whether there is so much that it is not to wait for the next flush.
    """

    __slots__ = (
        "_first", "_has_begun", "_last", "_lines", "_max_bytes", "_missing", "_name", "_n_records", "_pending_bytes",
        "_audio", "_records", "_times", "_total_bytes", "_writer",
    )  # fmt: skip

    def __init__(self, writer: Writer, name: str, max_bytes: float | None = None) -> None:
        """`name`: the recording, for the log. `max_bytes`: all that may be handed over; see `is_full`."""
        self._writer = writer
        self._name = name
        self._max_bytes = max_bytes
        self._total_bytes = 0
        self._missing = Missing()
        self._records: list[Any] = []  # bytes: a frame of input; else a tuple
        self._times: list[float] = []
        self._pending_bytes = 0
        self._has_begun = False

    @property
    def has_begun(self) -> bool:
        """Whether anything was ever added."""
        return self._has_begun or bool(self._records)

    @property
    def is_full(self) -> bool:
        """Whether the recording has reached its bound; the batch that reaches it is still written whole."""
        return self._max_bytes is not None and self._total_bytes >= self._max_bytes

    # -- what is recorded ---------------------------------------------------------------------------------------------

    def add_input(self, samples: bytes, now: float) -> bool:
        """Audio of the client's, fifty times a second."""
        self._records.append(samples)
        self._times.append(now)
        self._pending_bytes = pending_bytes = self._pending_bytes + len(samples) + RECORD_BYTES
        return pending_bytes > FLUSH_BYTES

    def add_output(
        self, samples: bytes, now: float, response_id: str, item_id: str, content_index: int, discarded: bool
    ) -> bool:
        """Audio of the upstream's."""
        return self._add((_OUTPUT, samples, response_id, item_id, content_index, discarded), now, len(samples))

    def add_sent(self, samples: bytes, now: float, *, is_kept: bool) -> bool:
        """Audio that went to the client; `is_kept`: it is not the upstream's as it came."""
        return self._add((_SENT, samples, is_kept), now, len(samples) if is_kept else 0)

    def add_text(self, event: TextDelta, now: float, commands: Any) -> bool:
        """More of the assistant's text."""
        return self._add((_TEXT, event, commands), now, len(event.text))

    def add_line(self, line: bytes, now: float, stream: Stream = CLIENT, samples: bytes = b"") -> bool:
        """Anything else, and the audio that its line counts."""
        return self._add((_LINE, line, stream, samples), now, len(line) + len(samples))

    def _add(self, record: tuple[Any, ...], now: float, n_bytes: int) -> bool:
        self._records.append(record)
        self._times.append(now)
        self._pending_bytes = pending_bytes = self._pending_bytes + n_bytes + RECORD_BYTES
        return pending_bytes > FLUSH_BYTES

    # -- to the writer ------------------------------------------------------------------------------------------------

    def hand_over(self, files: Files) -> None:
        """Give all of it to the writer's thread."""
        if not self._records:
            return
        self._has_begun = True
        missing = Missing(self._missing.records, self._missing.first, self._missing.last)
        batch = self._batch(missing.take())
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
        self._records, self._times = [], []
        self._pending_bytes = 0

    def _batch(self, beginning: bytes) -> Batch:
        """All records as lines, behind `beginning`, and their audio."""
        times, lines = self._times, [beginning]
        audio: tuple[list[bytes], ...] = ([], [], [], [])
        client, run, run_bytes = audio[CLIENT], 0, 0
        for n, record in enumerate(self._records):
            if type(record) is bytes:  # frames of one length in a row become lines together
                if len(record) != run_bytes and run:
                    lines.append(input_lines(times[n - run : n], run_bytes))
                    run = 0
                run, run_bytes = run + 1, len(record)
                client.append(record)
                continue
            if run:
                lines.append(input_lines(times[n - run : n], run_bytes))
                run = 0
            now = times[n]
            kind = record[0]
            if kind == _OUTPUT:
                _, samples, response_id, item_id, content_index, discarded = record
                lines.append(output_line(now, len(samples), response_id, item_id, content_index, discarded))
                audio[UPSTREAM].append(samples)
            elif kind == _SENT:
                _, samples, is_kept = record
                lines.append(sent_line(now, len(samples), crc32(samples), kept=is_kept))
                if is_kept:
                    audio[SENT].append(samples)
            elif kind == _TEXT:
                lines.append(words_line(record[1], now, record[2]))
            else:
                _, line, stream, samples = record
                lines.append(line)
                if samples:
                    audio[stream].append(samples)
        if run:
            lines.append(input_lines(times[-run:], run_bytes))
        joined = tuple(map(b"".join, audio))
        return Batch(joined, b"".join(lines), len(times), times[0], times[-1])
