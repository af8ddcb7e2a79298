"""What goes to a device client: messages at once, audio in line and paced, so that nobody has to hold much of it.

The outbox keeps at most `max_ahead_ms` of audio ahead of the client's playback, so that even a client that ignores
`interrupted` falls silent within that time. Asked to drop the rest, it tells the session what was handed over.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core.events import (
    AudioDropped,
    AudioHanded,
    AudioOverflow,
    ClientStuck,
    Event,
    Forwarded,
    MalformedUpstream,
    PlayedOut,
)
from relay.core.playback import MAX_CLIPS, Playhead
from relay.core.values import ClipHanded, DeviceOptions
from relay.peers.frames import MessageListener
from relay.wire.append import decode_audio
from relay.wire.device import DeviceCodec

PIECE_MS = 100
"""Paced audio goes out in pieces of this length, one wake-up for each; in smaller ones if the client allows no more."""
LEAST_AHEAD_MS = 20
"""Whatever was agreed: with nothing ahead, nothing would ever go out."""
MAX_QUEUED_MS = 300_000
MAX_QUEUED = 20_000
"""Pieces of audio, starts and ends that may wait: 300 s in pieces of 15 ms, far shorter than any model sends."""
MAX_DELTA_CHARS = 64 * 1024
"""48 KiB of audio: longer deltas are taken apart, so that little is in hand at once, and little goes at once."""
MAX_UNSENT_BYTES = 1024 * 1024
MAX_PASSING_MS = 1000
"""What may be handed over before it is counted."""
STUCK_S = 10.0
ECHO_TAIL_MS = 200
"""How long after its last sound a half-duplex device is taken to hear itself: its buffer, and the room."""

Key = tuple[str, int]


@dataclass(slots=True)
class Segment:
    """The part of the client's stream that belongs to one clip."""

    key: Key
    start_ms: float
    handed_ms: float = 0.0
    ended: bool = False


class Outbox:
    """One client's way out. `feed` takes the events that come of it; `now` is the session's clock."""

    def __init__(
        self,
        socket: MessageListener,
        codec: DeviceCodec,
        options: DeviceOptions,
        feed: Callable[[Event], None],
        clock: Callable[[], float],
        max_queued_ms: float = MAX_QUEUED_MS,
    ) -> None:
        self._max_queued_ms = max_queued_ms
        self._socket = socket
        self._codec = codec
        self._feed = feed
        self._clock = clock
        self._pace(options)
        self._playhead = Playhead()
        self._queue: deque[tuple[Key, Chunk] | cmd.PlayStart | cmd.PlayEnd] = deque()
        self._queued_bytes = 0
        self._segments: deque[Segment] = deque(maxlen=MAX_CLIPS)  # the core knows no more of them either
        self._current: Key | None = None
        self._overflowed: Key | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._stuck_timer: asyncio.TimerHandle | None = None
        self._silence_timer: asyncio.TimerHandle | None = None
        socket.on_writable = self._writable

    # -- at once ------------------------------------------------------------------------------------------------------

    def tell(self, message: cmd.ClientMessage) -> None:
        """Send a message; it overtakes audio that waits."""
        self._send(self._codec.encode(message))

    def close(self, code: int, reason: str) -> None:
        """Close the client's connection."""
        self.stop()
        self._socket.close(code, reason)

    def stop(self) -> None:
        """Let no timer outlive the session."""
        self._socket.on_writable = _no_matter
        for timer in (self._timer, self._stuck_timer, self._silence_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._stuck_timer = self._silence_timer = None
        self._queue.clear()
        self._queued_bytes = 0

    # -- in line ------------------------------------------------------------------------------------------------------

    def use(self, options: DeviceOptions) -> None:
        """Pace and encode by `options` from here on."""
        self._codec.use(options)
        self._pace(options)

    def start(self, command: cmd.PlayStart) -> None:
        """A clip's audio follows."""
        if self._current is not None:
            self._finish_filter(self._current)
        self._current = (command.item_id, command.content_index)
        self._enqueue(command)

    def play(self, audio: Forwarded, now: float) -> None:
        """One delta of a clip; one that is not base64 is reported and left out."""
        if len(audio.raw) > MAX_DELTA_CHARS:
            for start in range(0, len(audio.raw), MAX_DELTA_CHARS):
                self.play(audio._replace(raw=audio.raw[start : start + MAX_DELTA_CHARS]), now)
            return
        try:
            samples: Chunk = decode_audio(audio.raw)
        except ValueError:
            self._feed(MalformedUpstream("audio that is not base64"))
            return
        if not self._codec.passes_down:
            samples = self._codec.to_client(samples)
        if not samples:
            return
        key = (audio.item_id, audio.content_index)
        if not self._queue and self._socket.is_writable:
            n_ms = len(samples) / self._bytes_per_ms
            if self._playhead.hand_over(n_ms, now, self._max_ahead_ms):
                segment = self._segments[-1] if self._segments else None
                if segment is not None and segment.key == key:
                    segment.handed_ms += n_ms
                    self._socket.send_binary(samples)
                else:
                    self._hand(key, samples, n_ms, now)
                return
        self._enqueue_audio(key, samples)

    def room_ms(self, key: Key) -> int:
        """How much more of a clip's audio may be handed over at once; 0 if it is not its turn."""
        if self._queue or not self._socket.is_writable or not self._segments or self._segments[-1].key != key:
            return 0
        room_ms = min(self._max_ahead_ms - self._playhead.ahead_ms(self._clock()), MAX_PASSING_MS)
        return max(int(room_ms), 0)

    def passed(self, n_bytes: int, now: float) -> None:
        """Audio of the clip whose turn it is was handed over at `now`, within the room that there was."""
        n_ms = n_bytes / self._bytes_per_ms
        self._playhead.handed(n_ms, now)
        self._segments[-1].handed_ms += n_ms

    def end(self, command: cmd.PlayEnd) -> None:
        """A clip's audio is complete."""
        key = (command.item_id, command.content_index)
        if key == self._current:
            self._finish_filter(key)
            self._current = None
        self._enqueue(command)

    def drop(self) -> None:
        """Let no more audio out; answers with `AudioDropped`."""
        now = self._clock()
        position_ms = self._playhead.position_ms(now)
        clips = {
            segment.key: ClipHanded(
                *segment.key,
                handed_ms=int(segment.handed_ms),
                estimated_ms=int(min(max(position_ms - segment.start_ms, 0), segment.handed_ms)),
            )
            for segment in self._segments
            if not segment.ended or position_ms < segment.start_ms + segment.handed_ms
        }
        for waiting in self._queue:
            key = waiting[0] if isinstance(waiting, tuple) else (waiting.item_id, waiting.content_index)
            clips.setdefault(key, ClipHanded(*key, handed_ms=0, estimated_ms=0))
        self._queue.clear()
        self._queued_bytes = 0
        self._segments.clear()
        self._playhead.drop(now)
        self._codec.drop_item()
        self._current = self._overflowed = None
        self._feed(AudioDropped(tuple(clips.values())))

    def sync(self, item_id: str, played_ms: int) -> None:
        """The client told its position: the pacing goes by it, and not by the estimate."""
        for segment in self._segments:
            if segment.key[0] == item_id:
                self._playhead.sync(segment.start_ms + min(played_ms, segment.handed_ms), self._clock())
                break
        self._drain()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _pace(self, options: DeviceOptions) -> None:
        ahead_ms = float("inf") if options.max_ahead_ms is None else max(options.max_ahead_ms, LEAST_AHEAD_MS)
        self._max_ahead_ms = ahead_ms
        self._piece_ms = min(PIECE_MS, ahead_ms / 2)  # the next piece goes out before the client has run dry
        self._bytes_per_ms = options.output.bytes_per_ms
        self._half_duplex = options.half_duplex

    def _enqueue(self, message: cmd.PlayStart | cmd.PlayEnd) -> None:
        if self._queue:
            self._queue.append(message)
            self._bound(None)
        else:
            self._pass(message, self._clock())

    def _enqueue_audio(self, key: Key, samples: Chunk) -> None:
        self._queue.append((key, samples))
        self._queued_bytes += len(samples)
        self._bound(key)
        self._drain()

    def _bound(self, key: Key | None) -> None:
        """Let the oldest go while too much waits: audio is left out; starts and ends are told, they are never lost."""
        dropped_bytes = 0
        while self._queued_bytes > self._max_queued_ms * self._bytes_per_ms or len(self._queue) > MAX_QUEUED:
            oldest = self._queue.popleft()
            if isinstance(oldest, tuple):
                self._queued_bytes -= len(oldest[1])
                dropped_bytes += len(oldest[1])
                key = key or oldest[0]
            else:
                self._pass(oldest, self._clock())
        if key is not None and dropped_bytes and self._overflowed != key:
            self._overflowed = key
            self._feed(AudioOverflow(key[0], dropped_bytes // self._bytes_per_ms))

    def _finish_filter(self, key: Key) -> None:
        rest = self._codec.end_item()
        if rest:
            self._enqueue_audio(key, rest)

    def _drain(self) -> None:
        """Hand over what may go now; sleep until the next piece may."""
        now = self._clock()
        while self._queue and self._socket.is_writable:
            waiting = self._queue[0]
            if not isinstance(waiting, tuple):
                self._queue.popleft()
                self._pass(waiting, now)
                continue
            key, samples = waiting
            room_ms = self._max_ahead_ms - self._playhead.ahead_ms(now)
            wanted_ms = len(samples) / self._bytes_per_ms
            least_ms = min(wanted_ms, self._piece_ms)
            if room_ms < least_ms:
                self._wake_at(now + (least_ms - room_ms) / 1000 + 0.001)
                return
            n_bytes = len(samples) if wanted_ms <= room_ms else int(room_ms) * self._bytes_per_ms
            if n_bytes < len(samples):
                self._queue[0] = (key, memoryview(samples)[n_bytes:])
            else:
                self._queue.popleft()
            self._queued_bytes -= n_bytes
            n_ms = n_bytes / self._bytes_per_ms
            self._playhead.handed(n_ms, now)
            self._hand(key, memoryview(samples)[:n_bytes], n_ms, now)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_later(when - self._clock(), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._drain()

    def _hand(self, key: Key, samples: Chunk, n_ms: float, now: float) -> None:
        """Send audio that the playhead has counted."""
        self._socket.send_binary(samples)
        segment = self._segments[-1] if self._segments else None
        if segment is None or segment.key != key:
            self._forget_played(now)
            segment = Segment(key, self._playhead.handed_ms - n_ms)
            self._segments.append(segment)
            self._feed(AudioHanded(key[0]))
        segment.handed_ms += n_ms

    def _pass(self, message: cmd.PlayStart | cmd.PlayEnd, now: float) -> None:
        if isinstance(message, cmd.PlayEnd):
            for segment in self._segments:
                if segment.key == (message.item_id, message.content_index):
                    segment.ended = True
            if self._half_duplex:
                self._await_silence(now)
        self._send(self._codec.encode(message))

    def _await_silence(self, now: float) -> None:
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        wait_s = (self._playhead.ahead_ms(now) + ECHO_TAIL_MS) / 1000
        self._silence_timer = asyncio.get_running_loop().call_later(wait_s, self._silent)

    def _silent(self) -> None:
        self._silence_timer = None
        now = self._clock()
        if self._queue or self._current is not None:
            return  # another clip is under way: its end is waited for
        if self._playhead.ahead_ms(now) > 0:  # the client is slower than its audio
            self._await_silence(now)
        else:
            self._feed(PlayedOut())

    def _forget_played(self, now: float) -> None:
        position_ms = self._playhead.position_ms(now)
        while self._segments and self._segments[0].start_ms + self._segments[0].handed_ms <= position_ms:
            self._segments.popleft()

    def _send(self, message: bytes) -> None:
        self._socket.send_text(message)
        if not self._socket.is_writable and self._socket.unsent_bytes > MAX_UNSENT_BYTES:
            self._feed(ClientStuck(self._socket.unsent_bytes))

    def _writable(self, is_writable: bool) -> None:
        if is_writable:
            if self._stuck_timer is not None:
                self._stuck_timer.cancel()
                self._stuck_timer = None
            self._drain()
        elif self._stuck_timer is None:
            self._stuck_timer = asyncio.get_running_loop().call_later(STUCK_S, self._stuck)

    def _stuck(self) -> None:
        self._stuck_timer = None
        self._feed(ClientStuck(self._socket.unsent_bytes))


def _no_matter(_: bool) -> None:
    """The session is over: how fast the client reads is nobody's business any more."""
