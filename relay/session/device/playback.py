"""What was sent to the client, how much of it was played, and where a barge-in cuts (D1, D2).

A `AudioPart` is the audio of one content part, keyed by (item_id, content_index). `clips` are those that may still
play, in playing order. The rules start and complete clips by the upstream's events, and move `played_ms` by
acknowledgements: monotone, never past what was received, and an acknowledged item means that all earlier ones were
played. How much was received is in the `MediaLedger`, which only the audio lines write. It counts upstream bytes,
before any resampling.

A barge-in asks `cut`, with the playout's account of what was handed to the socket. The position of an acknowledged clip
is taken to go on, from `ACK_FRESH_MS` to `ACK_HORIZON_MS` after the acknowledgement. Without acknowledgements it is the
playout's estimate, and marked so. Unheard clips are deleted, complete ones that were played to their end stay, and all
others are truncated at the position. An item's end may come after the next item's start; `_unended` keeps such clips
until then.
"""

from dataclasses import dataclass
from typing import Literal

from audio.formats import AudioFormat
from relay.session.common.bounded_set import BoundedSet
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import AudioSource, SentAudio

ACK_FRESH_MS = 100
"""An acknowledgement is taken as it stands for this long: clients send one every 200 to 500 ms."""
ACK_HORIZON_MS = 500
"""Past `ACK_FRESH_MS`, playback is taken to have gone on, but never further than a client's slowest interval."""
JITTER_BUFFER_MS = 100
"""What a client without acknowledgements is assumed to hold back before it plays."""
MAX_PLAYBACK_PARTS = 64
MAX_KNOWN_ITEMS = 1024

AckResult = Literal["ok", "late", "unknown"]


@dataclass(slots=True)
class AudioPart:
    """The audio of one content part, from its first byte until it has been played."""

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
    """What a barge-in does to one clip: `truncate` at `played_ms`, `delete` what was never heard, or leave it."""

    item_id: str
    content_index: int
    played_ms: int
    received_ms: int
    estimated: bool
    action: Literal["truncate", "delete", "keep"]
    source: AudioSource = "model"


class PlaybackLedger:
    """The clips that are not yet known to have been played to their end, in playing order."""

    __slots__ = ("_format", "_known", "_ledger", "_unended", "acknowledged_ms", "parts")

    def __init__(self, upstream_format: AudioFormat, ledger: MediaLedger) -> None:
        self._format = upstream_format
        self._ledger = ledger
        self.acknowledged_ms = 0  # of the item that was acknowledged last
        self.parts: dict[tuple[str, int], AudioPart] = {}
        self._unended: dict[
            tuple[str, int], AudioPart
        ] = {}  # played, but their end comes after the next one's start (D1)
        self._known = BoundedSet(MAX_KNOWN_ITEMS)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left that could still be playing."""
        return not self.parts

    @property
    def unplayed_ms(self) -> int:
        """How much of what was received may still have to be played, by what the client has told."""
        return sum(max(self._received_ms(clip) - clip.played_ms, 0) for clip in self.parts.values())

    def start(self, item_id: str, content_index: int, response_id: str, source: AudioSource = "model") -> None:
        """The audio of a content part begins."""
        for clips in (self.parts, self._unended):
            if len(clips) >= MAX_PLAYBACK_PARTS:
                del clips[next(iter(clips))]
        self._unended.pop((item_id, content_index), None)
        clip = AudioPart(item_id, content_index, response_id, self._format.bytes_per_ms, source)
        self.parts[item_id, content_index] = clip
        self._known.add(item_id)

    def complete(self, item_id: str, content_index: int) -> int | None:
        """The upstream has sent all of a clip. Returns its length in ms, None for a clip not known or ended before."""
        key = (item_id, content_index)
        clip = self.parts.get(key) or self._unended.pop(key, None)
        if clip is None or clip.is_complete:
            return None
        clip.is_complete = True
        received_ms = self._received_ms(clip)
        if clip.acknowledged_at is not None and clip.played_ms >= received_ms:
            self.parts.pop(key, None)
        return received_ms

    def set_format(self, upstream_format: AudioFormat) -> None:
        """The upstream's audio has another format from the next clip on."""
        self._format = upstream_format

    def incomplete_parts(self, response_id: str) -> list[tuple[str, int]]:
        """The clips of a response that the upstream has not ended."""
        return [
            (clip.item_id, clip.content_index)
            for clip in (*self._unended.values(), *self.parts.values())
            if clip.response_id == response_id and clip.source == "model" and not clip.is_complete
        ]

    def acknowledge(self, item_id: str, played_ms: int, now: float) -> AckResult:
        """Take the client's word for its position: monotone, and never past what was received (D1)."""
        clip = next((clip for clip in self.parts.values() if clip.item_id == item_id), None)
        if clip is None:
            return "late" if item_id in self._known else "unknown"
        received_ms = self._received_ms(clip)
        clip.played_ms = max(clip.played_ms, min(played_ms, received_ms))
        clip.acknowledged_at = now
        self.acknowledged_ms = clip.played_ms
        for key, earlier in list(self.parts.items()):  # what came before it has been played
            if earlier is clip:
                break
            del self.parts[key]
            if not earlier.is_complete:
                self._unended[key] = earlier
        if clip.is_complete and clip.played_ms >= received_ms:
            del self.parts[clip.item_id, clip.content_index]
        return "ok"

    def interrupt(self, sent_audio: tuple[SentAudio, ...], now: float) -> list[InterruptedPart]:
        """Decide what a barge-in does to every clip, in playing order, and forget them all.

        `sent_audio` is the playout's account; a clip that it no longer lists was played to its end.
        """
        accounts = {(account.item_id, account.content_index): account for account in sent_audio}
        cuts = [
            self._interrupt_part(clip, accounts.get((clip.item_id, clip.content_index)), now)
            for clip in self.parts.values()
        ]
        self.parts.clear()
        self._unended.clear()
        return cuts

    def _interrupt_part(self, clip: AudioPart, account: SentAudio | None, now: float) -> InterruptedPart:
        received_ms = self._received_ms(clip)
        played_ms, estimated = received_ms, clip.acknowledged_at is None
        if account is not None:
            played_ms = min(self._position_ms(clip, account, now), account.sent_ms, received_ms)
        action: Literal["truncate", "delete", "keep"] = "truncate"
        if played_ms <= 0:
            action = "delete"
        elif clip.is_complete and played_ms >= received_ms:
            action = "keep"
        return InterruptedPart(
            clip.item_id, clip.content_index, max(played_ms, 0), received_ms, estimated, action, clip.source
        )

    def _position_ms(self, clip: AudioPart, account: SentAudio, now: float) -> int:
        if clip.acknowledged_at is None:
            return account.estimated_played_ms
        age_ms = (now - clip.acknowledged_at) * 1000
        return clip.played_ms + int(min(max(age_ms - ACK_FRESH_MS, 0), ACK_HORIZON_MS - ACK_FRESH_MS))

    def _received_ms(self, clip: AudioPart) -> int:
        return self._ledger.received_bytes((clip.item_id, clip.content_index)) // clip.bytes_per_ms
