"""`relay replay`: replay a journal through the current rules, and its audio through the current codec."""

from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from relay.recording.derive.playout_model import ReconstructedPlayout
from relay.recording.format.records import (
    EventRecord,
    GapRecord,
    InputAudioRecord,
    OutputAudioRecord,
    SentAudioRecord,
    TtsAudioRecord,
)
from relay.recording.replay.replayer import Difference, Replayer
from relay.recording.store.header import RecordingHeader, current_platform
from relay.recording.store.layout import SENT_AUDIO_FILE, RecordingError
from relay.recording.store.reader import JournalEntry, Recording, decode_commands
from relay.session.device.events import PlayoutOverflow

SAMPLE_TOLERANCE = 1
"""The allowed difference of a converted sample (of 32768) on another platform or with other library versions."""


@dataclass(slots=True)
class VerifyResult:
    """The result of a replay: identical if there is no difference. `notes` are its limitations.

    `n_records`: the number of replayed events and audio frames.
    """

    n_records: int = 0
    sent_bytes: int = 0
    difference: Difference | None = None
    is_exact: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def is_identical(self) -> bool:
        """Whether no difference was found."""
        return self.difference is None


def verify(recording: Recording) -> VerifyResult:
    """Replay a recording to its end or its first difference. Raises RecordingError."""
    result = _new_result(recording)
    verifier = _Verifier(recording, result)
    for entry in recording.entries():
        if isinstance(entry.record, GapRecord):
            result.notes.append(
                f"line {entry.number} is a gap of {entry.record.n_records} records that were not written: "
                "the rest is not compared"
            )
            return result
        result.difference = verifier.step(entry)
        if result.difference is not None:
            return result
    if not recording.has_end:
        result.notes.append("the recording has no end: it is being written, or it needs `relay recordings repair`")
    return result


def _new_result(recording: Recording) -> VerifyResult:
    header, platform = recording.header, current_platform()
    if not header.from_start:
        raise RecordingError(
            f"{recording.folder.name} begins in the middle of its session, when consent was given, so it cannot be "
            "replayed; use --as-upstream or --against"
        )
    result = VerifyResult(is_exact=header.recorded_platform == platform)
    if not result.is_exact:
        result.notes.append(
            f"recorded on {_format_platform(header.recorded_platform)}, replayed on {_format_platform(platform)}: "
            f"converted samples may differ by {SAMPLE_TOLERANCE}"
        )
    if header.has_format_1_commands:
        result.notes.append(
            "the recording has format 1: its commands are not compared, only the audio that was sent to the client"
        )
    return result


class _Verifier:
    """Compares rules and playout; for format 1 only the playout, which then follows the recorded commands."""

    def __init__(self, recording: Recording, result: VerifyResult) -> None:
        self._recording = recording
        self._result = result
        header: RecordingHeader = recording.header
        self._replayer = None if header.has_format_1_commands else Replayer(header.setup)
        self._playout: ReconstructedPlayout | None = ReconstructedPlayout(header.setup.options)

    def step(self, entry: JournalEntry) -> Difference | None:
        """Replay an entry. Returns the difference, if there is one."""
        record, result = entry.record, self._result
        if isinstance(record, SentAudioRecord):
            if self._playout is None:
                return None
            result.sent_bytes += record.n_bytes
            return self._sent(entry, record, self._playout)
        if not isinstance(record, EventRecord | InputAudioRecord | OutputAudioRecord | TtsAudioRecord):
            return None
        result.n_records += 1
        difference = self._replayer.step(entry) if self._replayer is not None else None
        if isinstance(record, EventRecord) and isinstance(record.event, PlayoutOverflow) and self._playout is not None:
            result.notes.append(f"audio was dropped at line {entry.number}: audio after it is not compared")
            self._playout = None
        if isinstance(record, OutputAudioRecord) and record.envelope is not None:
            result.sent_bytes += record.n_bytes  # forwarded unchanged to a Realtime client
        elif self._playout is not None:
            commands = (
                self._replayer.commands if self._replayer is not None else decode_commands(self._recording, entry)
            )
            self._playout.apply(record, entry.samples, commands)
        return difference

    def _sent(self, entry: JournalEntry, record: SentAudioRecord, playout: ReconstructedPlayout) -> Difference | None:
        samples = b"".join(chunk.samples for chunk in playout.read(record.n_bytes))
        if record.is_stored and crc32(entry.samples) != record.crc:
            description = f"the {record.n_bytes} bytes in {SENT_AUDIO_FILE} are not those that were sent to the client"
        elif len(samples) < record.n_bytes:
            description = f"{record.n_bytes} bytes were sent to the client, but only {len(samples)} in the replay"
        elif crc32(samples) == record.crc:
            return None
        else:
            description = f"the {record.n_bytes} bytes that were sent to the client differ in the replay"
            if record.is_stored:
                distance = _max_difference(entry.samples, samples, playout.options.output.encoding)
                if not self._result.is_exact and distance <= SAMPLE_TOLERANCE:
                    return None
                description += f" (by at most {distance} of 32768)"
        preceding = self._replayer.preceding if self._replayer is not None else ()
        return Difference(entry.number, record.time_s, description, preceding=preceding)


def _max_difference(recorded: Any, replayed: bytes, encoding: str) -> int:
    """Return the largest difference of two samples."""
    dtype = "<i2" if encoding == "pcm16" else "u1"
    left, right = (np.frombuffer(samples, dtype).astype(np.int64) for samples in (recorded, replayed))
    return int(np.abs(left - right).max(initial=0))


def _format_platform(platform: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in platform.items())
