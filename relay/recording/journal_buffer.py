"""What one session has recorded and not yet handed over to the thread that writes.

A record is made while its session goes on, and is hardly more than a reference that is kept. The work is done when a
batch is handed over: then code and data are in the processor's caches, which makes it several times as fast.

A batch that finds no room with the writer becomes a gap: the next one begins with a line that says how many records
are missing.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final
from zlib import crc32

from audio.framing import Chunk
from relay.recording.format.lines import Gap
from relay.recording.format.realtime import cut_append
from relay.recording.format.write import (
    MAX_LIVE_REDACTED_BYTES,
    end_line,
    event_object,
    gap_line,
    input_frame_line,
    input_lines,
    live_line,
    output_frame_line,
    output_line,
    sent_line,
    speech_line,
    text_line,
)
from relay.recording.store.writer import Batch, Files, Writer, widened
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import AudioDelta, RawDelta
from relay.session.device import events as ev
from relay.session.realtime.events import PassDown, UpstreamSaid

FLUSH_BYTES: Final = 96 * 1024
"""A buffer that holds more is handed over at once. A conversation at 24 kHz has as much in a second."""
RECORD_BYTES: Final = 160
"""What a record takes besides its audio, about."""
EVENT_BYTES: Final = 1024
"""What an event counts as, so that the number of those that wait is bounded."""

_log = logging.getLogger("relay.recordings")

NewBuilder = Callable[[], "BatchBuilder"]
Record = bytes | tuple[Any, ...]
"""The client's audio as it came; for all else a method of the builder and its arguments after the time."""


class BatchBuilder:
    """One batch of a device's session."""

    def __init__(self, secrets: KnownSecrets) -> None:
        self._secrets = secrets
        self._lines: list[bytes] = []
        self._client: list[bytes] = []
        self._upstream: list[bytes] = []
        self._speech: list[bytes] = []
        self._sent: list[bytes] = []
        self._n_records = 0

    def add(self, records: Sequence[Record], times: Sequence[float]) -> None:
        """Take records and their times; if one cannot be written down, those before it are in the batch."""
        records = self._cut(records, times)
        input_times: dict[int, list[float]] = {}
        for now, record in zip(times, records, strict=True):
            if isinstance(record, bytes):
                input_times.setdefault(len(record), []).append(now)
        input_by_length = {n: iter(input_lines(of_n, n).splitlines(keepends=True)) for n, of_n in input_times.items()}
        for now, record in zip(times, records, strict=True):
            if isinstance(record, bytes):
                self._client.append(record)
                self._lines.append(next(input_by_length[len(record)]))
            else:
                write, *arguments = record
                write(self, now, *arguments)
            self._n_records += 1

    def _cut(self, records: Sequence[Record], times: Sequence[float]) -> Sequence[Record]:
        """Records in which all input is samples."""
        return records

    def batch(self, times: Sequence[float], beginning: bytes) -> Batch:
        """All of it, behind `beginning`."""
        client, upstream, speech, sent = map(b"".join, (self._client, self._upstream, self._speech, self._sent))
        n_records = self._n_records
        first, last = (times[0], times[n_records - 1]) if n_records else (0.0, 0.0)
        return Batch((client, upstream, speech, sent), beginning + b"".join(self._lines), n_records, first, last)

    # -- records ------------------------------------------------------------------------------------------------------

    def output(self, now: float, samples: bytes, key: tuple[str, str, int], discarded: bool) -> None:
        """The upstream's audio; `key`: its response, item and content part."""
        self._upstream.append(samples)
        self._lines.append(output_line(now, len(samples), *key, discarded))

    def output_frame(self, now: float, frame: RawDelta) -> None:
        """A delta of audio or text that went to a Realtime client."""
        line, samples = output_frame_line(now, frame)
        self._upstream.append(samples)
        self._lines.append(self._secrets.redact_json(line))

    def discarded_speech(self, now: float, samples: bytes, context_id: str) -> None:
        """Audio of an external voice that nobody waited for."""
        self._speech.append(samples)
        self._lines.append(speech_line(now, len(samples), context_id, discarded=True))

    def sent(self, now: float, samples: bytes, is_kept: bool) -> None:
        """Audio that went to the client's socket."""
        if is_kept:
            self._sent.append(samples)
        self._lines.append(sent_line(now, len(samples), crc32(samples), kept=is_kept))

    def event(self, now: float, event: Any, commands: Sequence[Any] | None, raised: str, speech: bytes = b"") -> None:
        """An event with its commands; `speech`: the audio of a `TtsAudio`."""
        if type(event) is ev.TextDelta and commands is not None and len(event.text) <= MAX_LIVE_REDACTED_BYTES:
            self._lines.append(text_line(event, now, commands))
            return
        if type(event) is ev.TtsAudio:
            self._speech.append(speech)
            is_missed = commands is None  # no event followed, as far as a replay goes
            self._lines.append(
                speech_line(now, len(speech), event.context_id, event.alignment, commands or (), discarded=is_missed)
            )
            if not is_missed:
                return
        self._lines.append(self._secrets.redact_json(live_line(event_object(event, now, commands, raised)[0])))

    def line(self, now: float, line: bytes, samples: bytes) -> None:
        """A line that is written already, and the client's audio that it counts."""
        self._client.append(samples)
        self._lines.append(line)


class RealtimeBatchBuilder(BatchBuilder):
    """One batch of a Realtime client's session: the client's audio comes in frames."""

    def _cut(self, records: Sequence[Record], times: Sequence[float]) -> Sequence[Record]:
        return [
            self._cut_frame(record, now) if isinstance(record, bytes) else record
            for now, record in zip(times, records, strict=True)
        ]

    def _cut_frame(self, frame: bytes, now: float) -> Record:
        around, cut_samples = cut_append(frame)
        if not around:
            return cut_samples
        line, samples = input_frame_line(now, frame)
        return BatchBuilder.line, self._secrets.redact_json(line), samples


def realtime_line(
    secrets: KnownSecrets, event: Any, now: float, commands: Sequence[Any] | None, raised: str
) -> tuple[bytes, bytes]:
    """The line of an event of a Realtime client's session, and the client's audio in it.

    It is written at once: what an event of the upstream's holds is valid during the call only.
    """
    line_object, samples = event_object(event, now, commands, raised)
    line = live_line(line_object, len(event.raw) if type(event) is UpstreamSaid else 0)
    return (line if _was_searched(event, commands) else secrets.redact_json(line)), samples


def _was_searched(event: Any, commands: Sequence[Any] | None) -> bool:
    """Whether the relay's secrets have been taken out already: the codec does so with what it reads of the upstream."""
    if commands is None:  # the text of what failed may hold anything
        return False
    is_passed_on = all(type(command) is PassDown for command in commands)
    return type(event) is UpstreamSaid and bool(event.body) and is_passed_on


class JournalBuffer:
    """The records of one session from one hand-over to the next, while it `is_open`. Nothing in here waits.

    The methods that add a record are called up to fifty times a second: each does as little as it can.
    """

    __slots__ = (
        "_gap", "_has_begun", "_max_bytes", "_n_bytes", "_name", "_new_builder", "_on_due", "_records", "_times",
        "_total_bytes", "_writer", "has_skipped", "is_open", "keeps_sent",
    )  # fmt: skip

    def __init__(
        self, writer: Writer, name: str, max_bytes: float | None, new_builder: NewBuilder, on_due: Callable[[], None]
    ) -> None:
        """`name`: the recording, for the log. `max_bytes`: all that may be handed over. `on_due`: flush it now."""
        self.is_open = False
        self.has_skipped = False
        """Whether audio came while it was not open."""
        self.keeps_sent = False
        """Whether the audio that is sent is not the upstream's as it came."""
        self._writer = writer
        self._name = name
        self._max_bytes = max_bytes
        self._new_builder = new_builder
        self._on_due = on_due
        self._records: list[Record] = []
        self._times: list[float] = []
        self._n_bytes = 0
        self._total_bytes = 0
        self._gap: Gap | None = None
        self._has_begun = False

    @property
    def has_begun(self) -> bool:
        """Whether anything was ever added."""
        return self._has_begun or bool(self._records)

    @property
    def is_full(self) -> bool:
        """Whether the recording has reached its bound; the batch that reaches it is still written whole."""
        return self._max_bytes is not None and self._total_bytes >= self._max_bytes

    # -- records ------------------------------------------------------------------------------------------------------

    def input(self, payload: Chunk, now: float) -> None:
        """The client sent audio: whole samples in its format; a Realtime client's as a whole append."""
        if not self.is_open:
            self.has_skipped = True
            return
        self._records.append(payload if type(payload) is bytes else bytes(payload))
        self._times.append(now)
        self._n_bytes += len(payload) + RECORD_BYTES
        if self._n_bytes > FLUSH_BYTES:
            self._on_due()

    def output(self, delta: AudioDelta, samples: bytes, now: float, *, discarded: bool) -> None:
        """The upstream sent audio, in its format; `discarded`: the rules had given its response up."""
        self._add((BatchBuilder.output, samples, delta[:3], discarded), now, len(samples))

    def output_frame(self, frame: RawDelta, now: float) -> None:
        """The upstream sent a delta of audio or text to a Realtime client."""
        if type(frame.raw) is not bytes:
            frame = frame._replace(raw=bytes(frame.raw))
        self._add((BatchBuilder.output_frame, frame), now, len(frame.raw))

    def discarded_speech(self, context_id: str, samples: bytes, now: float) -> None:
        """An external voice sent audio that nobody waited for."""
        self._add((BatchBuilder.discarded_speech, samples, context_id), now, len(samples))

    def sent(self, samples: Chunk, now: float) -> None:
        """Audio went to the client's socket, after pacing and conversion."""
        samples = samples if type(samples) is bytes else bytes(samples)
        self._add((BatchBuilder.sent, samples, self.keeps_sent), now, len(samples) if self.keeps_sent else 0)

    def event(self, event: Any, now: float, commands: Sequence[Any] | None, raised: str, speech: bytes) -> None:
        """Something happened, and these commands followed."""
        self._add((BatchBuilder.event, event, commands, raised, speech), now, EVENT_BYTES + len(speech))

    def line(self, line: bytes, now: float, samples: bytes) -> None:
        """The same as a line, and the client's audio that it counts."""
        self._add((BatchBuilder.line, line, samples), now, len(line) + len(samples))

    def _add(self, record: Record, now: float, n_bytes: int) -> None:
        if not self.is_open:
            self.has_skipped = True
            return
        self._records.append(record)
        self._times.append(now)
        self._n_bytes += n_bytes + RECORD_BYTES
        if self._n_bytes > FLUSH_BYTES:
            self._on_due()

    # -- to the writer ------------------------------------------------------------------------------------------------

    def hand_over(self, files: Files) -> None:
        """Give all of it to the writer's thread; what cannot be written down raises, and what came before it goes."""
        if not self._records:
            return
        records, times, builder = self._records, self._times, self._new_builder()
        self.clear()
        self._has_begun = True
        try:
            builder.add(records, times)
        finally:
            self._put(files, builder.batch(times, gap_line(self._gap)))

    def end(self, files: Files, now: float, reason: str) -> None:
        """Hand over what is left, and the last line."""
        try:
            self.hand_over(files)
        finally:
            # Not by `put`: a gap and an end are so small that they need no room, whatever waits already.
            batch = Batch((b"", b"", b"", b""), gap_line(self._gap) + end_line(now, reason), 1, now, now)
            self._writer.do(lambda: files.put(batch), files)

    def clear(self) -> None:
        """Forget all that was not handed over."""
        self._records, self._times, self._n_bytes = [], [], 0

    def _put(self, files: Files, batch: Batch) -> None:
        if self._writer.put(files, batch):
            self._gap = None
            self._total_bytes += batch.n_bytes
            return
        if self._gap is None:
            _log.error("recording %s has a gap: the disk is too slow", self._name)
        self._gap = widened(self._gap, batch)
