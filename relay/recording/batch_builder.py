"""Batches of journal lines and audio, encoded from the records that a `JournalBuffer` collects."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from relay.recording.format.realtime import split_append
from relay.recording.format.write import (
    MAX_LIVE_REDACTED_BYTES,
    event_object,
    input_event_line,
    input_lines,
    live_line,
    output_event_line,
    output_line,
    sent_audio_line,
    text_line,
    tts_audio_line,
)
from relay.recording.store.writer import WriteBatch
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import RawDelta
from relay.session.device import events as ev
from relay.session.realtime.events import ForwardToClient, RealtimeServerEvent

BufferedRecord = bytes | tuple[Any, ...]
"""The client's audio as it arrived; for anything else, a method of the builder and its arguments after the time."""


class BatchBuilder:
    """Encodes one batch of a device's session."""

    def __init__(self, secrets: KnownSecrets) -> None:
        self._secrets = secrets
        self._lines: list[bytes] = []
        self._input_chunks: list[bytes] = []
        self._output_chunks: list[bytes] = []
        self._tts_audio: list[bytes] = []
        self._sent: list[bytes] = []
        self._n_records = 0

    def add(self, records: Sequence[BufferedRecord], times: Sequence[float]) -> None:
        """Encode records. If one raises, those before it are in the batch."""
        records = self._split_audio(records, times)
        input_times: dict[int, list[float]] = {}
        for now, record in zip(times, records, strict=True):
            if isinstance(record, bytes):
                input_times.setdefault(len(record), []).append(now)
        input_by_length = {
            n: iter(input_lines(arrivals, n).splitlines(keepends=True)) for n, arrivals in input_times.items()
        }
        for now, record in zip(times, records, strict=True):
            if isinstance(record, bytes):
                self._input_chunks.append(record)
                self._lines.append(next(input_by_length[len(record)]))
            else:
                write, *arguments = record
                write(self, now, *arguments)
            self._n_records += 1

    def _split_audio(self, records: Sequence[BufferedRecord], times: Sequence[float]) -> Sequence[BufferedRecord]:
        """Split the audio from the client's frames; a device sends nothing else."""
        return records

    def build(self, times: Sequence[float], prefix: bytes) -> WriteBatch:
        """Build the batch; its journal begins with `prefix`."""
        input_, output, tts, sent = map(
            b"".join, (self._input_chunks, self._output_chunks, self._tts_audio, self._sent)
        )
        n_records = self._n_records
        first, last = (times[0], times[n_records - 1]) if n_records else (0.0, 0.0)
        return WriteBatch((input_, output, tts, sent), prefix + b"".join(self._lines), n_records, first, last)

    # -- records ------------------------------------------------------------------------------------------------------

    def add_output(self, now: float, samples: bytes, key: tuple[str, str, int], discarded: bool) -> None:
        """Add audio from the upstream; `key`: its response, item and content part."""
        self._output_chunks.append(samples)
        self._lines.append(output_line(now, len(samples), *key, discarded))

    def add_raw_delta(self, now: float, delta: RawDelta) -> None:
        """Add a delta of audio or text that was forwarded to a Realtime client."""
        line, samples = output_event_line(now, delta)
        self._output_chunks.append(samples)
        self._lines.append(self._secrets.redact_json(line))

    def add_discarded_tts_audio(self, now: float, samples: bytes, context_id: str) -> None:
        """Add TTS audio that the session did not wait for."""
        self._tts_audio.append(samples)
        self._lines.append(tts_audio_line(now, len(samples), context_id, discarded=True))

    def add_sent_audio(self, now: float, samples: bytes, is_stored: bool) -> None:
        """Add audio that was sent to the client."""
        if is_stored:
            self._sent.append(samples)
        self._lines.append(sent_audio_line(now, len(samples), crc32(samples), is_stored=is_stored))

    def add_event(
        self, now: float, event: Any, commands: Sequence[Any] | None, raised: str, tts_audio: bytes = b""
    ) -> None:
        """Add an event and its commands; `tts_audio`: the audio of a `TtsAudio` event."""
        if type(event) is ev.TextDelta and commands is not None and len(event.text) <= MAX_LIVE_REDACTED_BYTES:
            self._lines.append(text_line(event, now, commands))
            return
        if type(event) is ev.TtsAudio:
            self._tts_audio.append(tts_audio)
            is_discarded = commands is None  # a replay then has no event
            self._lines.append(
                tts_audio_line(
                    now, len(tts_audio), event.context_id, event.alignment, commands or (), discarded=is_discarded
                )
            )
            if not is_discarded:
                return
        self._lines.append(self._secrets.redact_json(live_line(event_object(event, now, commands, raised)[0])))

    def add_line(self, now: float, line: bytes, samples: bytes) -> None:
        """Add an encoded line and the client's audio that it refers to."""
        self._input_chunks.append(samples)
        self._lines.append(line)


class RealtimeBatchBuilder(BatchBuilder):
    """Encodes one batch of a Realtime client's session, whose audio is inside of events."""

    def _split_audio(self, records: Sequence[BufferedRecord], times: Sequence[float]) -> Sequence[BufferedRecord]:
        return [
            self._split_frame(record, now) if isinstance(record, bytes) else record
            for now, record in zip(times, records, strict=True)
        ]

    def _split_frame(self, frame: bytes, now: float) -> BufferedRecord:
        envelope, audio = split_append(frame)
        if not envelope:
            return audio
        line, samples = input_event_line(now, frame)
        return BatchBuilder.add_line, self._secrets.redact_json(line), samples


def realtime_event_line(
    secrets: KnownSecrets, event: Any, now: float, commands: Sequence[Any] | None, raised: str
) -> tuple[bytes, bytes]:
    """Encode an event of a Realtime client's session. Returns the line and the client's audio in it.

    Not deferred like other records: the buffer of an upstream event is valid only during the call.
    """
    line_object, samples = event_object(event, now, commands, raised)
    line = live_line(line_object, len(event.raw) if type(event) is RealtimeServerEvent else 0)
    return (line if _is_redacted(event, commands) else secrets.redact_json(line)), samples


def _is_redacted(event: Any, commands: Sequence[Any] | None) -> bool:
    """Return whether the relay's secrets are redacted already: the codec does so when it parses an upstream event."""
    if commands is None:  # the text of an exception may contain anything
        return False
    is_forwarded = all(type(command) is ForwardToClient for command in commands)
    return type(event) is RealtimeServerEvent and bool(event.body) and is_forwarded
