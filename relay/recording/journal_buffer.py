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

from audio.framing import BytesLike
from relay.recording.format.lines import GapRecord
from relay.recording.format.realtime import split_append
from relay.recording.format.write import (
    MAX_LIVE_REDACTED_BYTES,
    end_line,
    event_object,
    gap_line,
    input_event_line,
    input_lines,
    live_line,
    output_event_line,
    output_line,
    sent_audio_line,
    text_line,
    tts_audio_line,
)
from relay.recording.store.writer import RecordingFiles, RecordingWriter, WriteBatch, extended_gap
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import AudioDelta, RawDelta
from relay.session.device import events as ev
from relay.session.realtime.events import ForwardToClient, RealtimeServerEvent

FLUSH_BYTES: Final = 96 * 1024
"""A buffer that holds more is handed over at once. A conversation at 24 kHz has as much in a second."""
RECORD_OVERHEAD_BYTES: Final = 160
"""What a record takes besides its audio, about."""
EVENT_ESTIMATE_BYTES: Final = 1024
"""What an event counts as, so that the number of those that wait is bounded."""

_log = logging.getLogger("relay.recordings")

BatchBuilderFactory = Callable[[], "BatchBuilder"]
BufferedRecord = bytes | tuple[Any, ...]
"""The client's audio as it came; for all else a method of the builder and its arguments after the time."""


class BatchBuilder:
    """One batch of a device's session."""

    def __init__(self, secrets: KnownSecrets) -> None:
        self._secrets = secrets
        self._lines: list[bytes] = []
        self._client: list[bytes] = []
        self._upstream: list[bytes] = []
        self._tts_audio: list[bytes] = []
        self._sent: list[bytes] = []
        self._n_records = 0

    def add(self, records: Sequence[BufferedRecord], times: Sequence[float]) -> None:
        """Take records and their times; if one cannot be written down, those before it are in the batch."""
        records = self._split_audio(records, times)
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

    def _split_audio(self, records: Sequence[BufferedRecord], times: Sequence[float]) -> Sequence[BufferedRecord]:
        """Records in which all input is samples."""
        return records

    def build(self, times: Sequence[float], prefix: bytes) -> WriteBatch:
        """All of it, behind `prefix`."""
        client, upstream, speech, sent = map(b"".join, (self._client, self._upstream, self._tts_audio, self._sent))
        n_records = self._n_records
        first, last = (times[0], times[n_records - 1]) if n_records else (0.0, 0.0)
        return WriteBatch((client, upstream, speech, sent), prefix + b"".join(self._lines), n_records, first, last)

    # -- records ------------------------------------------------------------------------------------------------------

    def add_output(self, now: float, samples: bytes, key: tuple[str, str, int], discarded: bool) -> None:
        """The upstream's audio; `key`: its response, item and content part."""
        self._upstream.append(samples)
        self._lines.append(output_line(now, len(samples), *key, discarded))

    def add_raw_delta(self, now: float, delta: RawDelta) -> None:
        """A delta of audio or text that went to a Realtime client."""
        line, samples = output_event_line(now, delta)
        self._upstream.append(samples)
        self._lines.append(self._secrets.redact_json(line))

    def add_discarded_tts_audio(self, now: float, samples: bytes, context_id: str) -> None:
        """Audio of an external voice that nobody waited for."""
        self._tts_audio.append(samples)
        self._lines.append(tts_audio_line(now, len(samples), context_id, discarded=True))

    def add_sent_audio(self, now: float, samples: bytes, is_stored: bool) -> None:
        """Audio that went to the client's socket."""
        if is_stored:
            self._sent.append(samples)
        self._lines.append(sent_audio_line(now, len(samples), crc32(samples), is_stored=is_stored))

    def add_event(
        self, now: float, event: Any, commands: Sequence[Any] | None, raised: str, tts_audio: bytes = b""
    ) -> None:
        """An event with its commands; `tts_audio`: the audio of a `TtsAudio`."""
        if type(event) is ev.TextDelta and commands is not None and len(event.text) <= MAX_LIVE_REDACTED_BYTES:
            self._lines.append(text_line(event, now, commands))
            return
        if type(event) is ev.TtsAudio:
            self._tts_audio.append(tts_audio)
            is_missed = commands is None  # no event followed, as far as a replay goes
            self._lines.append(
                tts_audio_line(
                    now, len(tts_audio), event.context_id, event.alignment, commands or (), discarded=is_missed
                )
            )
            if not is_missed:
                return
        self._lines.append(self._secrets.redact_json(live_line(event_object(event, now, commands, raised)[0])))

    def add_line(self, now: float, line: bytes, samples: bytes) -> None:
        """A line that is written already, and the client's audio that it counts."""
        self._client.append(samples)
        self._lines.append(line)


class RealtimeBatchBuilder(BatchBuilder):
    """One batch of a Realtime client's session: the client's audio comes in frames."""

    def _split_audio(self, records: Sequence[BufferedRecord], times: Sequence[float]) -> Sequence[BufferedRecord]:
        return [
            self._split_frame(record, now) if isinstance(record, bytes) else record
            for now, record in zip(times, records, strict=True)
        ]

    def _split_frame(self, frame: bytes, now: float) -> BufferedRecord:
        around, cut_samples = split_append(frame)
        if not around:
            return cut_samples
        line, samples = input_event_line(now, frame)
        return BatchBuilder.add_line, self._secrets.redact_json(line), samples


def realtime_event_line(
    secrets: KnownSecrets, event: Any, now: float, commands: Sequence[Any] | None, raised: str
) -> tuple[bytes, bytes]:
    """The line of an event of a Realtime client's session, and the client's audio in it.

    It is written at once: what an event of the upstream's holds is valid during the call only.
    """
    line_object, samples = event_object(event, now, commands, raised)
    line = live_line(line_object, len(event.raw) if type(event) is RealtimeServerEvent else 0)
    return (line if _is_redacted(event, commands) else secrets.redact_json(line)), samples


def _is_redacted(event: Any, commands: Sequence[Any] | None) -> bool:
    """Whether the relay's secrets have been taken out already: the codec does so with what it reads of the upstream."""
    if commands is None:  # the text of what failed may hold anything
        return False
    is_passed_on = all(type(command) is ForwardToClient for command in commands)
    return type(event) is RealtimeServerEvent and bool(event.body) and is_passed_on


class JournalBuffer:
    """The records of one session from one hand-over to the next, while it `is_open`. Nothing in here waits.

    The methods that add a record are called up to fifty times a second: each does as little as it can.
    """

    __slots__ = (
        "_gap", "_has_begun", "_max_bytes", "_n_bytes", "_name", "_new_batch_builder", "_on_flush_due", "_records",
        "_times", "_total_bytes", "_writer", "has_skipped_audio", "is_open", "stores_sent_audio",
    )  # fmt: skip

    def __init__(
        self,
        writer: RecordingWriter,
        name: str,
        max_bytes: float | None,
        new_batch_builder: BatchBuilderFactory,
        on_flush_due: Callable[[], None],
    ) -> None:
        """`name` is the recording's, for the log. At most `max_bytes` are handed over."""
        self.is_open = False
        self.has_skipped_audio = False
        """Whether audio came while it was not open."""
        self.stores_sent_audio = False
        """Whether the audio that is sent is not the upstream's as it came."""
        self._writer = writer
        self._name = name
        self._max_bytes = max_bytes
        self._new_batch_builder = new_batch_builder
        self._on_flush_due = on_flush_due
        self._records: list[BufferedRecord] = []
        self._times: list[float] = []
        self._n_bytes = 0
        self._total_bytes = 0
        self._gap: GapRecord | None = None
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

    def record_input(self, payload: BytesLike, now: float) -> None:
        """The client sent audio: whole samples in its format; a Realtime client's as a whole append."""
        if not self.is_open:
            self.has_skipped_audio = True
            return
        self._records.append(payload if type(payload) is bytes else bytes(payload))
        self._times.append(now)
        self._n_bytes += len(payload) + RECORD_OVERHEAD_BYTES
        if self._n_bytes > FLUSH_BYTES:
            self._on_flush_due()

    def record_output(self, delta: AudioDelta, samples: bytes, now: float, *, discarded: bool) -> None:
        """The upstream sent audio, in its format; `discarded`: the rules had given its response up."""
        self._add((BatchBuilder.add_output, samples, delta[:3], discarded), now, len(samples))

    def record_raw_delta(self, delta: RawDelta, now: float) -> None:
        """The upstream sent a delta of audio or text to a Realtime client."""
        if type(delta.raw) is not bytes:
            delta = delta._replace(raw=bytes(delta.raw))
        self._add((BatchBuilder.add_raw_delta, delta), now, len(delta.raw))

    def record_discarded_tts_audio(self, context_id: str, samples: bytes, now: float) -> None:
        """An external voice sent audio that nobody waited for."""
        self._add((BatchBuilder.add_discarded_tts_audio, samples, context_id), now, len(samples))

    def record_sent_audio(self, samples: BytesLike, now: float) -> None:
        """Audio went to the client's socket, after pacing and conversion."""
        samples = samples if type(samples) is bytes else bytes(samples)
        self._add(
            (BatchBuilder.add_sent_audio, samples, self.stores_sent_audio),
            now,
            len(samples) if self.stores_sent_audio else 0,
        )

    def record_event(
        self, event: Any, now: float, commands: Sequence[Any] | None, raised: str, tts_audio: bytes
    ) -> None:
        """Something happened, and these commands followed."""
        self._add(
            (BatchBuilder.add_event, event, commands, raised, tts_audio), now, EVENT_ESTIMATE_BYTES + len(tts_audio)
        )

    def record_line(self, line: bytes, now: float, samples: bytes) -> None:
        """The same as a line, and the client's audio that it counts."""
        self._add((BatchBuilder.add_line, line, samples), now, len(line) + len(samples))

    def _add(self, record: BufferedRecord, now: float, n_bytes: int) -> None:
        if not self.is_open:
            self.has_skipped_audio = True
            return
        self._records.append(record)
        self._times.append(now)
        self._n_bytes += n_bytes + RECORD_OVERHEAD_BYTES
        if self._n_bytes > FLUSH_BYTES:
            self._on_flush_due()

    # -- to the writer ------------------------------------------------------------------------------------------------

    def flush(self, files: RecordingFiles) -> None:
        """Give all of it to the writer's thread; what cannot be written down raises, and what came before it goes."""
        if not self._records:
            return
        records, times, builder = self._records, self._times, self._new_batch_builder()
        self.clear()
        self._has_begun = True
        try:
            builder.add(records, times)
        finally:
            self._submit(files, builder.build(times, gap_line(self._gap)))

    def end(self, files: RecordingFiles, now: float, reason: str) -> None:
        """Hand over what is left, and the last line."""
        try:
            self.flush(files)
        finally:
            # Not by `put`: a gap and an end are so small that they need no room, whatever waits already.
            batch = WriteBatch((b"", b"", b"", b""), gap_line(self._gap) + end_line(now, reason), 1, now, now)
            self._writer.submit_job(lambda: files.write_batch(batch), files)

    def clear(self) -> None:
        """Forget all that was not handed over."""
        self._records, self._times, self._n_bytes = [], [], 0

    def _submit(self, files: RecordingFiles, batch: WriteBatch) -> None:
        if self._writer.submit(files, batch):
            self._gap = None
            self._total_bytes += batch.n_bytes
            return
        if self._gap is None:
            _log.error("recording %s has a gap: the disk is too slow", self._name)
        self._gap = extended_gap(self._gap, batch)
