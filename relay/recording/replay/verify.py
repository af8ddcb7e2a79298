"""`relay replay`: a recording's journal through today's rules, and its audio through today's codec."""

from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from relay.recording.derive.playout_model import ReconstructedPlayout
from relay.recording.format.lines import Gap, Happened, InputAudio, OutputAudio, Sent, SpeechAudio
from relay.recording.replay.replayer import Difference, Replayer
from relay.recording.store.header import Header, this_platform
from relay.recording.store.layout import SENT_AUDIO, RecordingError
from relay.recording.store.reader import Entry, Recording, commands_of
from relay.session.device.events import PlayoutOverflow

TOLERANCE = 1
"""On another platform or with other library versions a converted sample may differ by this much (of 32768)."""


@dataclass(slots=True)
class VerifyResult:
    """What a replay found; identical if there is no difference. `notes` limit what that means.

    `events`: how many events and frames of audio were replayed.
    """

    events: int = 0
    sent_bytes: int = 0
    difference: Difference | None = None
    exact: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether all that was compared is the same."""
        return self.difference is None


def verify(recording: Recording) -> VerifyResult:
    """Replay the journal to its end or its first difference. Raises RecordingError if it can't be read or replayed."""
    result = _begun(recording)
    verifier = _Verifier(recording, result)
    for entry in recording.entries():
        if isinstance(entry.line, Gap):
            result.notes.append(
                f"line {entry.number} is a gap of {entry.line.records} records, which the disk did not take: "
                "what comes after it cannot be compared"
            )
            return result
        result.difference = verifier.step(entry)
        if result.difference is not None:
            return result
    if not recording.ended:
        result.notes.append("the recording has no end: it is being written, or `relay recordings repair` is due")
    return result


def _begun(recording: Recording) -> VerifyResult:
    header, here = recording.header, this_platform()
    if not header.from_start:
        raise RecordingError(
            f"{recording.folder.name} begins in the middle of its session, when consent was given: what led to there "
            "was not recorded, so it cannot be run again; --as-upstream and --against can be used"
        )
    result = VerifyResult(exact=header.made_on == here)
    if not result.exact:
        result.notes.append(
            f"recorded on {_listed(header.made_on)}, run on {_listed(here)}: "
            f"converted samples may differ by {TOLERANCE}"
        )
    if header.converted:
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
        header: Header = recording.header
        self._replayer = None if header.converted else Replayer(header.beginning)
        self._playout: ReconstructedPlayout | None = ReconstructedPlayout(header.beginning.options)

    def step(self, entry: Entry) -> Difference | None:
        """One line; the difference, if there is one."""
        line, result = entry.line, self._result
        if isinstance(line, Sent):
            if self._playout is None:
                return None
            result.sent_bytes += line.n_bytes
            return self._sent(entry, line, self._playout)
        if not isinstance(line, Happened | InputAudio | OutputAudio | SpeechAudio):
            return None
        result.events += 1
        difference = self._replayer.step(entry) if self._replayer is not None else None
        if isinstance(line, Happened) and isinstance(line.event, PlayoutOverflow) and self._playout is not None:
            result.notes.append(f"from line {entry.number} on audio was dropped unplayed: it is not compared")
            self._playout = None
        if isinstance(line, OutputAudio) and line.frame is not None:
            result.sent_bytes += line.n_bytes  # to a Realtime client, who gets it as it came
        elif self._playout is not None:
            commands = self._replayer.commands if self._replayer is not None else commands_of(self._recording, entry)
            self._playout.follow(line, entry.samples, commands)
        return difference

    def _sent(self, entry: Entry, line: Sent, playout: ReconstructedPlayout) -> Difference | None:
        samples = b"".join(piece.samples for piece in playout.take(line.n_bytes))
        if line.kept and crc32(entry.samples) != line.crc:
            what = f"the {line.n_bytes} bytes in {SENT_AUDIO} are not those that went to the client"
        elif len(samples) < line.n_bytes:
            what = f"{line.n_bytes} bytes went to the client, today it would be {len(samples)}"
        elif crc32(samples) == line.crc:
            return None
        else:
            what = f"the {line.n_bytes} bytes that went to the client are other ones today"
            if line.kept:
                distance = _distance(entry.samples, samples, playout.options.output.encoding)
                if not self._result.exact and distance <= TOLERANCE:
                    return None
                what += f" (by at most {distance} of 32768)"
        before = self._replayer.before if self._replayer is not None else ()
        return Difference(entry.number, line.now, what, before=before)


def _distance(then: Any, now: bytes, encoding: str) -> int:
    """How far the samples of two stretches of audio are apart, at most."""
    kind = "<i2" if encoding == "pcm16" else "u1"
    recorded, today = (np.frombuffer(samples, kind).astype(np.int64) for samples in (then, now))
    return int(np.abs(recorded - today).max(initial=0))


def _listed(platform: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in platform.items())
