"""Makes lines and files' worth of audio of a session's records, many at once.

A record is made while its session goes on, and is hardly more than a reference that is kept. The work is done when a
batch is handed over: then code and data are in the processor's caches, which makes it several times as fast.
"""

from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from relay.core import events as ev
from relay.core.known_secrets import KnownSecrets
from relay.core.realtime_events import PassDown, UpstreamSaid
from relay.recording.format.realtime import cut_append
from relay.recording.format.write import (
    MAX_LIVE_REDACTED_BYTES,
    event_object,
    input_frame_line,
    input_lines,
    live_line,
    output_frame_line,
    output_line,
    sent_line,
    speech_line,
    text_line,
)
from relay.recording.writer import Batch
from relay.session.common.media_types import DeltaFrame

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

    def output_frame(self, now: float, frame: DeltaFrame) -> None:
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
        """An event with its commands; `speech`: the audio of a `VoiceSpoke`."""
        if type(event) is ev.TextDelta and commands is not None and len(event.text) <= MAX_LIVE_REDACTED_BYTES:
            self._lines.append(text_line(event, now, commands))
            return
        if type(event) is ev.VoiceSpoke:
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


NewBuilder = Callable[[], BatchBuilder]
