"""How far a device client's audio may run ahead of its playback, and what of each content part it was sent (D1, D2).

All audio of a session is one stream; a position in it is the number of ms sent before. `PlayoutClock` knows up to
which position the client has played. `PlayoutPacer` lets audio go while the client holds at most `max_ahead_ms`
unplayed, and keeps for each content part the segment of the stream that is its own. It holds no audio. Time is an
argument.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from relay.session.common.media_types import PartKey
from relay.session.common.model import DeviceOptions, SentAudio
from relay.session.device.playback import JITTER_BUFFER_MS, MAX_PLAYBACK_PARTS

CHUNK_MS = 100
"""Audio that has to wait goes in pieces of this length, one wake-up for each; in smaller ones with little headroom."""
MIN_HEADROOM_MS = 20
"""The least headroom, whatever was agreed: with none, nothing would ever be sent."""
WAKE_MARGIN_S = 0.001
"""A timer that fires a little early must not find the piece still too long."""


class PlayoutClock:
    """The position in the stream of all its audio of a client that plays at once, in real time and without gaps.

    The clock runs in ms of audio. It stops when the client has run dry. An acknowledgement moves it.
    """

    __slots__ = ("_base_ms", "_base_now", "sent_ms")

    def __init__(self) -> None:
        self.sent_ms = 0.0
        self._base_ms = 0.0
        self._base_now = 0.0

    def sent(self, ms: float, now: float) -> None:
        """`ms` more audio went to the client. A client that had run dry fills its jitter buffer first."""
        self.send_if_room(ms, now, float("inf"))

    def send_if_room(self, ms: float, now: float, max_ahead_ms: float) -> bool:
        """Count `ms` as sent if the client then holds at most `max_ahead_ms` unplayed; else change nothing."""
        position_ms = self.position_ms(now)
        if self.sent_ms + ms - position_ms > max_ahead_ms:
            return False
        if position_ms >= self.sent_ms:
            self._base_ms, self._base_now = self.sent_ms, now + JITTER_BUFFER_MS / 1000
        self.sent_ms += ms
        return True

    def position_ms(self, now: float) -> float:
        """How much of the stream has been played by `now`; never more than was sent."""
        ran_ms = (now - self._base_now) * 1000
        if ran_ms <= 0:
            return self._base_ms
        position_ms = self._base_ms + ran_ms
        return position_ms if position_ms < self.sent_ms else self.sent_ms

    def ahead_ms(self, now: float) -> float:
        """How much audio the client holds that it has not played."""
        return self.sent_ms - self.position_ms(now)

    def sync(self, position_ms: float, now: float) -> None:
        """The client reported its position."""
        self._base_ms, self._base_now = min(position_ms, self.sent_ms), now

    def clear(self, now: float) -> None:
        """The client has thrown away all that it had not played."""
        self._base_ms = self.sent_ms = self.position_ms(now)
        self._base_now = now


@dataclass(slots=True)
class _Segment:
    """The part of the stream that belongs to one content part; `ended`: no more of it comes."""

    key: PartKey
    start_ms: float
    sent_ms: float = 0.0
    ended: bool = False


class PlayoutPacer:
    """Decides how much of one client's audio may go now, and when more may."""

    __slots__ = ("_bytes_per_ms", "_chunk_ms", "_clock", "_max_ahead_ms", "_segments")

    def __init__(self, options: DeviceOptions) -> None:
        self._clock = PlayoutClock()
        self._segments: deque[_Segment] = deque(maxlen=MAX_PLAYBACK_PARTS)  # the rules know no more of them either
        self.apply_options(options)

    def apply_options(self, options: DeviceOptions) -> None:
        """Pace by `options` from here on."""
        ahead_ms = float("inf") if options.max_ahead_ms is None else max(options.max_ahead_ms, MIN_HEADROOM_MS)
        self._max_ahead_ms = ahead_ms
        self._chunk_ms = min(CHUNK_MS, ahead_ms / 2)  # the next piece goes before the client has run dry
        self._bytes_per_ms = options.output.bytes_per_ms

    # -- what may go --------------------------------------------------------------------------------------------------

    def send_more(self, key: PartKey, n_bytes: int, now: float) -> bool:
        """Count `n_bytes` as sent if all of them may go now and belong to the part that was sent last."""
        segments = self._segments
        if not segments or segments[-1].key != key:
            return False
        ms = n_bytes / self._bytes_per_ms
        if not self._clock.send_if_room(ms, now, self._max_ahead_ms):
            return False
        segments[-1].sent_ms += ms
        return True

    def send(self, key: PartKey, n_bytes: int, now: float) -> int:
        """Count as sent what may go now of a part's next `n_bytes`, and return how many bytes that is.

        It is all of them, or whole ms and at least a piece, or nothing: then more may go at `next_chunk_at`.
        """
        wanted_ms = n_bytes / self._bytes_per_ms
        room_ms = self._max_ahead_ms - self._clock.ahead_ms(now)
        if room_ms < min(wanted_ms, self._chunk_ms):
            return 0
        allowed_bytes = n_bytes if wanted_ms <= room_ms else int(room_ms) * self._bytes_per_ms
        ms = allowed_bytes / self._bytes_per_ms
        self._clock.sent(ms, now)
        if self.latest_part != key:
            self._forget_played(now)
            self._segments.append(_Segment(key, self._clock.sent_ms - ms))
        self._segments[-1].sent_ms += ms
        return allowed_bytes

    def next_chunk_at(self, n_bytes: int, now: float) -> float:
        """When the next piece of `n_bytes` that wait may go, unless the client reports its position before."""
        piece_ms = min(n_bytes / self._bytes_per_ms, self._chunk_ms)
        room_ms = self._max_ahead_ms - self._clock.ahead_ms(now)
        return now + (piece_ms - room_ms) / 1000 + WAKE_MARGIN_S

    def ahead_ms(self, now: float) -> float:
        """How much audio the client holds that it has not played."""
        return self._clock.ahead_ms(now)

    # -- what belongs to which part -----------------------------------------------------------------------------------

    @property
    def latest_part(self) -> PartKey | None:
        """The part whose audio was sent last; None if there was none since the stream began or was cleared."""
        return self._segments[-1].key if self._segments else None

    def end_part(self, key: PartKey) -> None:
        """All audio of a part has been sent."""
        for segment in self._segments:
            if segment.key == key:
                segment.ended = True

    def sync(self, item_id: str, played_ms: int, now: float) -> None:
        """The client reported its position in an item, which replaces the estimate."""
        for segment in self._segments:
            if segment.key[0] == item_id:
                self._clock.sync(segment.start_ms + min(played_ms, segment.sent_ms), now)
                break

    def clear(self, now: float, pending_parts: Iterable[PartKey]) -> tuple[SentAudio, ...]:
        """The client throws away what it has not played.

        Returns what it was sent, in playing order, of every part that it still plays or of which more may come; and of
        those that are still `pending_parts` to be sent. Any other part was played to its end.
        """
        position_ms = self._clock.position_ms(now)
        sent = {
            segment.key: SentAudio(
                *segment.key,
                sent_ms=int(segment.sent_ms),
                estimated_played_ms=int(min(max(position_ms - segment.start_ms, 0), segment.sent_ms)),
            )
            for segment in self._segments
            if not segment.ended or position_ms < segment.start_ms + segment.sent_ms
        }
        for key in pending_parts:
            sent.setdefault(key, SentAudio(*key, sent_ms=0, estimated_played_ms=0))
        self._segments.clear()
        self._clock.clear(now)
        return tuple(sent.values())

    def _forget_played(self, now: float) -> None:
        position_ms = self._clock.position_ms(now)
        while self._segments and self._segments[0].start_ms + self._segments[0].sent_ms <= position_ms:
            self._segments.popleft()
