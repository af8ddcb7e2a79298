"""`relay replay`: a recording's journal through today's rules, and its sound through today's codec."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from relay.core import events as ev
from relay.core.journal_lines import Gap, Happened, Sent
from relay.core.replay import Difference, Neighbour, Rerun
from relay.recording.client_stream import ClientStream
from relay.recording.folder import RecordingError
from relay.recording.header import this_platform
from relay.recording.reader import Entry, Recording

TOLERANCE = 1
"""On another platform or with other library versions a converted sample may differ by this much (of 32768)."""


@dataclass(frozen=True, slots=True)
class AudioDifference:
    """The first sound for the client that is not what it was then."""

    number: int
    now: float
    what: str
    before: Sequence[Neighbour] = ()


@dataclass(slots=True)
class Outcome:
    """What a re-run found; identical if there is no difference. `notes` limit what that means."""

    events: int = 0
    sent_bytes: int = 0
    difference: Difference | AudioDifference | None = None
    exact: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether all that was compared is the same."""
        return self.difference is None


def rerun(recording: Recording) -> Outcome:
    """Run the journal again, to its end or its first difference. Raises RecordingError if it can't be read or run."""
    header = recording.header
    if not header.from_start:
        raise RecordingError(
            f"{recording.folder.name} begins in the middle of its session, when consent was given: what led to there "
            "was not recorded, so it cannot be run again; --as-upstream and --against can be used"
        )
    here = this_platform()
    outcome = Outcome(exact=header.made_on == here)
    if not outcome.exact:
        outcome.notes.append(
            f"recorded on {_words(header.made_on)}, run on {_words(here)}: converted samples may differ by {TOLERANCE}"
        )
    session = Rerun(header.beginning)
    stream: ClientStream | None = ClientStream(header.beginning.options)
    for entry in recording.entries():
        if isinstance(entry.line, Gap):
            outcome.notes.append(
                f"line {entry.number} is a gap of {entry.line.records} records, which the disk did not take: "
                "what comes after it cannot be compared"
            )
            return outcome
        if isinstance(entry.line, Happened) and entry.event is not None:
            outcome.events += 1
            outcome.difference = session.step(entry.number, entry.line, entry.event)
            if isinstance(entry.event, ev.AudioOverflow) and stream is not None:
                outcome.notes.append(f"from line {entry.number} on sound was dropped unplayed: it is not compared")
                stream = None
            if entry.line.n_audio_bytes and not entry.line.is_input and header.beginning.realtime is not None:
                outcome.sent_bytes += entry.line.n_audio_bytes  # it stands in the event that was passed on
            elif stream is not None:
                stream.run(entry.event, session.commands)
        elif isinstance(entry.line, Sent) and stream is not None:
            outcome.sent_bytes += entry.line.n_bytes
            outcome.difference = _sound(entry, entry.line, stream, outcome.exact, session.before)
        if outcome.difference is not None:
            return outcome
    if not recording.ended:
        outcome.notes.append("the recording has no end: it is being written, or `relay recordings repair` is due")
    return outcome


def _sound(
    entry: Entry, line: Sent, stream: ClientStream, exact: bool, before: Sequence[Neighbour]
) -> AudioDifference | None:
    samples = b"".join(piece.samples for piece in stream.take(line.n_bytes))
    if len(samples) < line.n_bytes:
        what = f"{line.n_bytes} bytes went to the client, today it would be {len(samples)}"
    elif crc32(samples) == line.crc:
        return None
    else:
        what = f"the {line.n_bytes} bytes that went to the client are other ones today"
        if line.kept:
            distance = _distance(entry.samples, samples, stream.options.output.encoding)
            if not exact and distance <= TOLERANCE:
                return None
            what += f" (by at most {distance} of 32768)"
    return AudioDifference(entry.number, line.now, what, before)


def _distance(then: Any, now: bytes, encoding: str) -> int:
    """How far two stretches of sound are apart, at most."""
    kind = "<i2" if encoding == "pcm16" else "u1"
    one, other = np.frombuffer(then, kind).astype(np.int64), np.frombuffer(now, kind).astype(np.int64)
    return int(np.abs(one - other).max(initial=0))


def _words(platform: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in platform.items())
