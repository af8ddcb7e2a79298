"""`relay replay`: a recording's journal through today's rules, and its audio through today's codec."""

from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from relay.recording.derive.playout_model import ReconstructedPlayout
from relay.recording.format.lines import (
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
"""On another platform or with other library versions a converted sample may differ by this much (of 32768)."""


@dataclass(slots=True)
class VerifyResult:
    """What a replay found; identical if there is no difference. `notes` limit what that means.

    `n_records`: how many events and frames of audio were replayed.
    """

    n_records: int = 0
    sent_bytes: int = 0
    difference: Difference | None = None
    is_exact: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def is_identical(self) -> bool:
        """Whether all that was compared is the same."""
        return self.difference is None


def verify(recording: Recording) -> VerifyResult:
    """Replay the journal to its end or its first difference. Raises RecordingError if it can't be read or replayed."""
    result = _begun(recording)
    verifier = _Verifier(recording, result)
    for entry in recording.entries():
        if isinstance(entry.record, GapRecord):
            result.notes.append(
                f"line {entry.number} is a gap of {entry.record.n_records} records, which the disk did not take: "
                "what comes after it cannot be compared"
            )
            return result
        result.difference = verifier.step(entry)
        if result.difference is not None:
            return result
    if not recording.has_end:
        result.notes.append("the recording has no end: it is being written, or `relay recordings repair` is due")
    return result


def _begun(recording: Recording) -> VerifyResult:
    header, here = recording.header, current_platform()
    if not header.from_start:
        raise RecordingError(
            f"{recording.folder.name} begins in the middle of its session, when consent was given: what led to there "
            "was not recorded, so it cannot be run again; --as-upstream and --against can be used"
        )
    result = VerifyResult(is_exact=header.recorded_platform == here)
    if not result.is_exact:
        result.notes.append(
            f"recorded on {_listed(header.recorded_platform)}, run on {_listed(here)}: "
            f"converted samples may differ by {SAMPLE_TOLERANCE}"
        )
    if header.has_format_1_commands:
        result.notes.append(
            "the recording is of format 1, of an earlier Relay: its commands are not compared, only the audio that the "
            "client was sent"
        )
    return result


class _Verifier:
    """The rules and the playout, line by line; of format 1 the playout alone, by the commands that were recorded."""

    def __init__(self, recording: Recording, result: VerifyResult) -> None:
        self._recording = recording
        self._result = result
        header: RecordingHeader = recording.header
        self._replayer = None if header.has_format_1_commands else Replayer(header.setup)
        self._playout: ReconstructedPlayout | None = ReconstructedPlayout(header.setup.options)

    def step(self, entry: JournalEntry) -> Difference | None:
        """One line; the difference, if there is one."""
        line, result = entry.record, self._result
        if isinstance(line, SentAudioRecord):
            if self._playout is None:
                return None
            result.sent_bytes += line.n_bytes
            return self._sent(entry, line, self._playout)
        if not isinstance(line, EventRecord | InputAudioRecord | OutputAudioRecord | TtsAudioRecord):
            return None
        result.n_records += 1
        difference = self._replayer.step(entry) if self._replayer is not None else None
        if isinstance(line, EventRecord) and isinstance(line.event, PlayoutOverflow) and self._playout is not None:
            result.notes.append(f"from line {entry.number} on audio was dropped unplayed: it is not compared")
            self._playout = None
        if isinstance(line, OutputAudioRecord) and line.envelope is not None:
            result.sent_bytes += line.n_bytes  # to a Realtime client, who gets it as it came
        elif self._playout is not None:
            commands = (
                self._replayer.commands if self._replayer is not None else decode_commands(self._recording, entry)
            )
            self._playout.apply(line, entry.samples, commands)
        return difference

    def _sent(self, entry: JournalEntry, line: SentAudioRecord, playout: ReconstructedPlayout) -> Difference | None:
        samples = b"".join(piece.samples for piece in playout.read(line.n_bytes))
        if line.is_stored and crc32(entry.samples) != line.crc:
            what = f"the {line.n_bytes} bytes in {SENT_AUDIO_FILE} are not those that went to the client"
        elif len(samples) < line.n_bytes:
            what = f"{line.n_bytes} bytes went to the client, today it would be {len(samples)}"
        elif crc32(samples) == line.crc:
            return None
        else:
            what = f"the {line.n_bytes} bytes that went to the client are other ones today"
            if line.is_stored:
                distance = _distance(entry.samples, samples, playout.options.output.encoding)
                if not self._result.is_exact and distance <= SAMPLE_TOLERANCE:
                    return None
                what += f" (by at most {distance} of 32768)"
        before = self._replayer.preceding if self._replayer is not None else ()
        return Difference(entry.number, line.time_s, what, preceding=before)


def _distance(then: Any, now: bytes, encoding: str) -> int:
    """How far the samples of two stretches of audio are apart, at most."""
    kind = "<i2" if encoding == "pcm16" else "u1"
    recorded, today = (np.frombuffer(samples, kind).astype(np.int64) for samples in (then, now))
    return int(np.abs(recorded - today).max(initial=0))


def _listed(platform: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in platform.items())
