"""The records of one session that are not yet submitted to the writer thread.

While the session runs, a record is little more than a reference. It is encoded when its batch is submitted: many
records in one go are encoded several times as fast as one at a time, because code and data stay in the CPU's caches.

A batch that the writer refuses becomes a gap: the next batch begins with a line that counts the missing records.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from audio.framing import BytesLike
from relay.recording.batch_builder import BatchBuilder, BufferedRecord
from relay.recording.format.records import GapRecord
from relay.recording.format.write import end_line, gap_line
from relay.recording.store.writer import RecordingFiles, RecordingWriter, WriteBatch, extend_gap
from relay.session.common.media_types import AudioDelta, RawDelta

FLUSH_BYTES: Final = 96 * 1024
"""A larger buffer is flushed at once. A conversation at 24 kHz reaches this in a second."""
RECORD_OVERHEAD_BYTES: Final = 160
"""The estimated memory of a record without its audio."""
EVENT_ESTIMATE_BYTES: Final = 1024
"""The estimated memory of an event; it bounds the number of buffered events."""

_log = logging.getLogger("relay.recordings")

BatchBuilderFactory = Callable[[], "BatchBuilder"]


class JournalBuffer:
    """Collects the records of one session between two flushes, while it `is_open`. No method blocks.

    The `record_` methods are called up to fifty times a second: each does as little as possible.
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
        """`name`: for the log. `max_bytes`: the limit of the recording. `on_flush_due` must flush at once."""
        self.is_open = False
        self.has_skipped_audio = False
        """Whether audio arrived while it was not open."""
        self.stores_sent_audio = False
        """Whether the audio for the client is converted, so that its bytes must be stored."""
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
        """Whether the recording has reached its limit; the batch that reaches it is still written."""
        return self._max_bytes is not None and self._total_bytes >= self._max_bytes

    # -- records ------------------------------------------------------------------------------------------------------

    def record_input(self, payload: BytesLike, now: float) -> None:
        """Record audio from the client: whole samples, or the complete append of a Realtime client."""
        if not self.is_open:
            self.has_skipped_audio = True
            return
        self._records.append(payload if type(payload) is bytes else bytes(payload))
        self._times.append(now)
        self._n_bytes += len(payload) + RECORD_OVERHEAD_BYTES
        if self._n_bytes > FLUSH_BYTES:
            self._on_flush_due()

    def record_output(self, delta: AudioDelta, samples: bytes, now: float, *, discarded: bool) -> None:
        """Record audio from the upstream; `discarded`: its response was cancelled."""
        self._add((BatchBuilder.add_output, samples, delta[:3], discarded), now, len(samples))

    def record_raw_delta(self, delta: RawDelta, now: float) -> None:
        """Record a delta of audio or text for a Realtime client."""
        if type(delta.raw) is not bytes:
            delta = delta._replace(raw=bytes(delta.raw))
        self._add((BatchBuilder.add_raw_delta, delta), now, len(delta.raw))

    def record_discarded_tts_audio(self, context_id: str, samples: bytes, now: float) -> None:
        """Record TTS audio that the session did not wait for."""
        self._add((BatchBuilder.add_discarded_tts_audio, samples, context_id), now, len(samples))

    def record_sent_audio(self, samples: BytesLike, now: float) -> None:
        """Record audio that was sent to the client, after pacing and conversion."""
        samples = samples if type(samples) is bytes else bytes(samples)
        self._add(
            (BatchBuilder.add_sent_audio, samples, self.stores_sent_audio),
            now,
            len(samples) if self.stores_sent_audio else 0,
        )

    def record_event(
        self, event: Any, now: float, commands: Sequence[Any] | None, raised: str, tts_audio: bytes
    ) -> None:
        """Record an event and its commands."""
        self._add(
            (BatchBuilder.add_event, event, commands, raised, tts_audio), now, EVENT_ESTIMATE_BYTES + len(tts_audio)
        )

    def record_line(self, line: bytes, now: float, samples: bytes) -> None:
        """Record an event as an encoded line, and the client's audio in it."""
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
        """Submit all records to the writer. A record that cannot be encoded raises; those before it are submitted."""
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
        """Submit the remaining records and the end line."""
        try:
            self.flush(files)
        finally:
            # Not by `submit`, which may refuse: a gap and an end are small enough for any backlog.
            batch = WriteBatch((b"", b"", b"", b""), gap_line(self._gap) + end_line(now, reason), 1, now, now)
            self._writer.submit_job(lambda: files.write_batch(batch), files)

    def clear(self) -> None:
        """Drop all records that were not submitted."""
        self._records, self._times, self._n_bytes = [], [], 0

    def _submit(self, files: RecordingFiles, batch: WriteBatch) -> None:
        if self._writer.submit(files, batch):
            self._gap = None
            self._total_bytes += batch.n_bytes
            return
        if self._gap is None:
            _log.error("recording gap: recording=%s error=disk too slow", self._name)
        self._gap = extend_gap(self._gap, batch)
