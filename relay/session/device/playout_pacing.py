"""Paces a device client's audio: how far it may run ahead of playback, and how much of each part was sent (D1, D2).

All audio of a session is one stream, and a position in it is the number of ms sent before. `PlayoutClock` estimates the
position that the client has played. `PlayoutPacer` admits audio while the client has at most `max_ahead_ms` unplayed.
For each content part it keeps the segment of the stream that belongs to it. It contains no audio. Time is an argument.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from relay.session.common.media_types import PartKey
from relay.session.common.model import DeviceOptions, SentAudio
from relay.session.device.playback import JITTER_BUFFER_MS, MAX_PLAYBACK_PARTS

CHUNK_MS = 100
"""The length of the chunks in which waiting audio is sent, one per wake-up; shorter if `max_ahead_ms` is small."""
MIN_HEADROOM_MS = 20
"""The minimum of `max_ahead_ms`: with 0, no audio could be sent."""
WAKE_MARGIN_S = 0.001
"""Added to each wake-up, so that a timer that fires slightly early does not find the chunk still too long."""


class PlayoutClock:
    """Estimates the position of a client that plays its stream at once, in real time and without gaps.

    The position is in ms of audio. It stops when the client has played everything. An acknowledgement moves it.
    """

    __slots__ = ("_base_ms", "_base_now", "sent_ms")

    def __init__(self) -> None:
        self.sent_ms = 0.0
        self._base_ms = 0.0
        self._base_now = 0.0

    def count_sent(self, duration_ms: float, now: float) -> None:
        """Count `duration_ms` of audio as sent. A client that has played everything fills its jitter buffer first."""
        self.send_if_room(duration_ms, now, float("inf"))

    def send_if_room(self, duration_ms: float, now: float, max_ahead_ms: float) -> bool:
        """Count `duration_ms` as sent if the client then has at most `max_ahead_ms` unplayed; else return False."""
        position_ms = self.position_ms(now)
        if self.sent_ms + duration_ms - position_ms > max_ahead_ms:
            return False
        if position_ms >= self.sent_ms:
            self._base_ms, self._base_now = self.sent_ms, now + JITTER_BUFFER_MS / 1000
        self.sent_ms += duration_ms
        return True

    def position_ms(self, now: float) -> float:
        """Return the estimated playback position at `now`, at most `sent_ms`."""
        elapsed_ms = (now - self._base_now) * 1000
        if elapsed_ms <= 0:
            return self._base_ms
        position_ms = self._base_ms + elapsed_ms
        return position_ms if position_ms < self.sent_ms else self.sent_ms

    def ahead_ms(self, now: float) -> float:
        """Return the audio that the client has received but not played, in ms."""
        return self.sent_ms - self.position_ms(now)

    def sync(self, position_ms: float, now: float) -> None:
        """Move to the position that the client reports."""
        self._base_ms, self._base_now = min(position_ms, self.sent_ms), now

    def clear(self, now: float) -> None:
        """Forget the unplayed audio, which the client has discarded."""
        self._base_ms = self.sent_ms = self.position_ms(now)
        self._base_now = now


@dataclass(slots=True)
class _Segment:
    """The segment of the stream that belongs to one content part; `is_complete`: all of its audio was sent."""

    key: PartKey
    start_ms: float
    sent_ms: float = 0.0
    is_complete: bool = False


class PlayoutPacer:
    """Decides how much of one client's audio may be sent now, and when more may."""

    __slots__ = ("_bytes_per_ms", "_chunk_ms", "_clock", "_max_ahead_ms", "_segments")

    def __init__(self, options: DeviceOptions) -> None:
        self._clock = PlayoutClock()
        self._segments: deque[_Segment] = deque(maxlen=MAX_PLAYBACK_PARTS)  # as many as the rules keep
        self.apply_options(options)

    def apply_options(self, options: DeviceOptions) -> None:
        """Use `options` from here on."""
        ahead_ms = float("inf") if options.max_ahead_ms is None else max(options.max_ahead_ms, MIN_HEADROOM_MS)
        self._max_ahead_ms = ahead_ms
        self._chunk_ms = min(CHUNK_MS, ahead_ms / 2)  # the next chunk is sent before the client has played this one
        self._bytes_per_ms = options.output.bytes_per_ms

    # -- what may be sent ---------------------------------------------------------------------------------------------

    def send_more(self, key: PartKey, n_bytes: int, now: float) -> bool:
        """Count `n_bytes` as sent if all of them may be sent now and belong to the latest part; else return False."""
        segments = self._segments
        if not segments or segments[-1].key != key:
            return False
        ms = n_bytes / self._bytes_per_ms
        if not self._clock.send_if_room(ms, now, self._max_ahead_ms):
            return False
        segments[-1].sent_ms += ms
        return True

    def send(self, key: PartKey, n_bytes: int, now: float) -> int:
        """Count as sent, and return, how many of a part's next `n_bytes` may be sent now.

        That is all of them, or whole ms and at least a chunk, or 0. After 0, more may be sent at `next_chunk_at`.
        """
        requested_ms = n_bytes / self._bytes_per_ms
        room_ms = self._max_ahead_ms - self._clock.ahead_ms(now)
        if room_ms < min(requested_ms, self._chunk_ms):
            return 0
        allowed_bytes = n_bytes if requested_ms <= room_ms else int(room_ms) * self._bytes_per_ms
        ms = allowed_bytes / self._bytes_per_ms
        self._clock.count_sent(ms, now)
        if self.latest_part != key:
            self._forget_played(now)
            self._segments.append(_Segment(key, self._clock.sent_ms - ms))
        self._segments[-1].sent_ms += ms
        return allowed_bytes

    def next_chunk_at(self, n_bytes: int, now: float) -> float:
        """Return when the next chunk of `n_bytes` may be sent, unless the client reports its position before."""
        chunk_ms = min(n_bytes / self._bytes_per_ms, self._chunk_ms)
        room_ms = self._max_ahead_ms - self._clock.ahead_ms(now)
        return now + (chunk_ms - room_ms) / 1000 + WAKE_MARGIN_S

    def ahead_ms(self, now: float) -> float:
        """Return the audio that the client has received but not played, in ms."""
        return self._clock.ahead_ms(now)

    # -- what belongs to which part -----------------------------------------------------------------------------------

    @property
    def latest_part(self) -> PartKey | None:
        """The part whose audio was sent last; None if none was sent since the stream began or was cleared."""
        return self._segments[-1].key if self._segments else None

    def end_part(self, key: PartKey) -> None:
        """Record that all audio of a part has been sent."""
        for segment in self._segments:
            if segment.key == key:
                segment.is_complete = True

    def sync(self, item_id: str, played_ms: int, now: float) -> None:
        """Replace the estimate by the position in an item that the client reports."""
        for segment in self._segments:
            if segment.key[0] == item_id:
                self._clock.sync(segment.start_ms + min(played_ms, segment.sent_ms), now)
                break

    def clear(self, now: float, pending_parts: Iterable[PartKey]) -> tuple[SentAudio, ...]:
        """Forget the unplayed audio, which the client has discarded.

        Returns the sent audio, in playing order, of each part that is still playing, incomplete, or in `pending_parts`,
        whose audio waits to be sent. Any other part was played completely.
        """
        position_ms = self._clock.position_ms(now)
        sent = {
            segment.key: SentAudio(
                *segment.key,
                sent_ms=int(segment.sent_ms),
                estimated_played_ms=int(min(max(position_ms - segment.start_ms, 0), segment.sent_ms)),
            )
            for segment in self._segments
            if not segment.is_complete or position_ms < segment.start_ms + segment.sent_ms
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
