"""A ledger of playback: what the client may still be playing, and what a barge-in does to it (D1, D2).

An `AudioPart` is the audio of one content part, keyed by (item_id, content_index). `parts` are those that may still be
playing, in playing order. The rules start and complete parts by the upstream's events, and move `played_ms` by the
client's acknowledgements. A position never goes back and never exceeds the received audio. An acknowledged item means
that all earlier ones were played. The received audio is counted in the `MediaLedger`, in upstream bytes.

On a barge-in the rules call `interrupt` with the audio that the playout has sent. An acknowledged position is assumed
to advance, from `ACK_FRESH_MS` to `ACK_HORIZON_MS` after the acknowledgement. Without acknowledgements the position is
the playout's estimate, and marked as such. Unheard parts are deleted, and completely played ones are kept. All others
are truncated at the position. The end of a part may come after the start of the next one; `_incomplete_parts` has such
parts.
"""

from dataclasses import dataclass
from typing import Literal

from audio.formats import AudioFormat
from relay.session.common.bounded_set import BoundedSet
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import PartKey
from relay.session.common.model import AudioSource, SentAudio

ACK_FRESH_MS = 100
"""An acknowledged position is used unchanged for this long: clients send one every 200 to 500 ms."""
ACK_HORIZON_MS = 500
"""After `ACK_FRESH_MS` playback is assumed to go on, until the longest interval of acknowledgements has passed."""
JITTER_BUFFER_MS = 100
"""The assumed jitter buffer of a client that does not acknowledge playback."""
MAX_PLAYBACK_PARTS = 64
MAX_KNOWN_ITEMS = 1024

AckResult = Literal["ok", "late", "unknown"]


@dataclass(slots=True)
class AudioPart:
    """The audio of one content part, while it may still be playing."""

    item_id: str
    content_index: int
    response_id: str
    bytes_per_ms: int
    source: AudioSource = "model"
    is_complete: bool = False
    played_ms: int = 0
    acknowledged_at: float | None = None


@dataclass(frozen=True, slots=True)
class InterruptedPart:
    """What a barge-in does to one part: `truncate` it at `played_ms`, `delete` it if it was not heard, or `keep` it."""

    item_id: str
    content_index: int
    played_ms: int
    received_ms: int
    estimated: bool
    action: Literal["truncate", "delete", "keep"]
    source: AudioSource = "model"


class PlaybackLedger:
    """The audio parts that may not have been played completely, in playing order."""

    __slots__ = ("_format", "_incomplete_parts", "_known_items", "_ledger", "acknowledged_ms", "parts")

    def __init__(self, upstream_format: AudioFormat, ledger: MediaLedger) -> None:
        self._format = upstream_format
        self._ledger = ledger
        self.acknowledged_ms = 0  # the last acknowledged position in the item
        self.parts: dict[PartKey, AudioPart] = {}
        self._incomplete_parts: dict[PartKey, AudioPart] = {}  # played, but not complete yet (D1)
        self._known_items = BoundedSet(MAX_KNOWN_ITEMS)

    @property
    def is_idle(self) -> bool:
        """Whether nothing can still be playing."""
        return not self.parts

    @property
    def unplayed_ms(self) -> int:
        """The received audio that the client has not acknowledged as played, in ms."""
        return sum(max(self._received_ms(part) - part.played_ms, 0) for part in self.parts.values())

    def start(self, item_id: str, content_index: int, response_id: str, source: AudioSource = "model") -> None:
        """Add a content part whose audio begins."""
        for older_parts in (self.parts, self._incomplete_parts):
            if len(older_parts) >= MAX_PLAYBACK_PARTS:
                del older_parts[next(iter(older_parts))]
        self._incomplete_parts.pop((item_id, content_index), None)
        part = AudioPart(item_id, content_index, response_id, self._format.bytes_per_ms, source)
        self.parts[item_id, content_index] = part
        self._known_items.add(item_id)

    def complete(self, item_id: str, content_index: int) -> int | None:
        """Mark a part as complete. Returns its length in ms, None if it is unknown or was complete before."""
        key = (item_id, content_index)
        part = self.parts.get(key) or self._incomplete_parts.pop(key, None)
        if part is None or part.is_complete:
            return None
        part.is_complete = True
        received_ms = self._received_ms(part)
        if part.acknowledged_at is not None and part.played_ms >= received_ms:
            self.parts.pop(key, None)
        return received_ms

    def set_format(self, upstream_format: AudioFormat) -> None:
        """Set the format of the upstream's audio, from the next part on."""
        self._format = upstream_format

    def incomplete_parts(self, response_id: str) -> list[PartKey]:
        """Return the parts of a response that the upstream has not completed."""
        return [
            (part.item_id, part.content_index)
            for part in (*self._incomplete_parts.values(), *self.parts.values())
            if part.response_id == response_id and part.source == "model" and not part.is_complete
        ]

    def acknowledge(self, item_id: str, played_ms: int, now: float) -> AckResult:
        """Set the played position to the reported one, at most the received audio (D1)."""
        part = next((part for part in self.parts.values() if part.item_id == item_id), None)
        if part is None:
            return "late" if item_id in self._known_items else "unknown"
        received_ms = self._received_ms(part)
        part.played_ms = max(part.played_ms, min(played_ms, received_ms))
        part.acknowledged_at = now
        self.acknowledged_ms = part.played_ms
        for key, earlier in list(self.parts.items()):  # all earlier parts have been played
            if earlier is part:
                break
            del self.parts[key]
            if not earlier.is_complete:
                self._incomplete_parts[key] = earlier
        if part.is_complete and part.played_ms >= received_ms:
            del self.parts[part.item_id, part.content_index]
        return "ok"

    def interrupt(self, sent_audio: tuple[SentAudio, ...], now: float) -> list[InterruptedPart]:
        """Remove all parts, and return what the barge-in does to each, in playing order.

        `sent_audio` is what the playout has sent of each part. A part that it no longer lists was played completely.
        """
        sent_parts = {(sent_part.item_id, sent_part.content_index): sent_part for sent_part in sent_audio}
        interrupted_parts = [
            self._interrupt_part(part, sent_parts.get((part.item_id, part.content_index)), now)
            for part in self.parts.values()
        ]
        self.parts.clear()
        self._incomplete_parts.clear()
        return interrupted_parts

    def _interrupt_part(self, part: AudioPart, sent_part: SentAudio | None, now: float) -> InterruptedPart:
        received_ms = self._received_ms(part)
        played_ms, estimated = received_ms, part.acknowledged_at is None
        if sent_part is not None:
            played_ms = min(self._position_ms(part, sent_part, now), sent_part.sent_ms, received_ms)
        action: Literal["truncate", "delete", "keep"] = "truncate"
        if played_ms <= 0:
            action = "delete"
        elif part.is_complete and played_ms >= received_ms:
            action = "keep"
        return InterruptedPart(
            part.item_id, part.content_index, max(played_ms, 0), received_ms, estimated, action, part.source
        )

    def _position_ms(self, part: AudioPart, sent_part: SentAudio, now: float) -> int:
        if part.acknowledged_at is None:
            return sent_part.estimated_played_ms
        age_ms = (now - part.acknowledged_at) * 1000
        return part.played_ms + int(min(max(age_ms - ACK_FRESH_MS, 0), ACK_HORIZON_MS - ACK_FRESH_MS))

    def _received_ms(self, part: AudioPart) -> int:
        return self._ledger.received_bytes((part.item_id, part.content_index)) // part.bytes_per_ms
