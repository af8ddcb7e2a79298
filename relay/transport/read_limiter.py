"""How fast peers are read: clients by their allowances, and upstreams by at most a burst of messages in 10 ms.

A peer that sends too much is not cut off: its socket is not read for a while, and TCP makes it wait. `ReadLimiter`
bounds a client over seconds, by audio and by messages. For a frame of audio the uplink only lowers a number, and calls
`throttle` when that is below zero. `PacedReader` bounds what an upstream can make the event loop do in one go: after a
burst, its messages wait and others have their turn. Both pause reading under a reason of their own, so that neither
resumes what another part has paused.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Literal

from relay.session.common.rate_limit import KeyedRateLimiter, RateLimit
from relay.session.common.read_allowance import ReadAllowance
from relay.session.device.events import ClientRateLimited
from relay.transport.websocket import WebSocketConnection, noop

YIELD_S = 0.05
"""How long a client is not read that has used up a slice of its allowance at once: others have their turn."""
BACKOFF_S = 0.25
"""A client that is too fast is read again this much later than it might be, so that it is not once per frame."""
REPORTS_PER_MINUTE = 6
_RATE_LIMITED = "too fast"
BURST_MESSAGES = 50
BURST_BYTES = 256 * 1024
BURST_PAUSE_S = 0.01
"""How long others have their turn after an upstream's burst; longer in proportion after a longer message."""
_BURST = "a burst of messages"


class ReadLimiter:
    """One client's allowances: `audio` in bytes, each message at least `min_message_bytes`; `messages` in texts and
    pings.

    Whoever has the frame at hand lowers `audio.left` by the greater of its length and `min_message_bytes`, and calls
    `throttle` once it is below zero.
    """

    def __init__(
        self,
        client: WebSocketConnection,
        audio: ReadAllowance,
        min_message_bytes: int,
        messages: ReadAllowance,
        dispatch: Callable[[ClientRateLimited], None],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._dispatch = dispatch
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._reports = KeyedRateLimiter(RateLimit(REPORTS_PER_MINUTE, 1))
        self.messages = messages
        self.set_audio_allowance(audio, min_message_bytes)
        client.on_control_frame = self.count_message
        client.on_fragment = self.count_fragment

    def set_audio_allowance(self, audio: ReadAllowance, min_message_bytes: int) -> None:
        """The client's audio comes in another format from here on."""
        self.audio, self.min_message_bytes = audio, min_message_bytes

    def count_bytes(self, n_bytes: int) -> None:
        """Count `n_bytes` of one message, whatever it holds."""
        self.audio.remaining -= max(n_bytes, self.min_message_bytes)
        if self.audio.remaining < 0:
            self.throttle(self.audio, "audio")

    def count_message(self, cost: float = 1) -> None:
        """Count a message, as `cost` of them."""
        self.messages.remaining -= cost
        if self.messages.remaining < 0:
            self.throttle(self.messages, "messages")

    def count_fragment(self) -> None:
        """Count a part of a message as the shortest of audio frames: there may be thousands in one message."""
        self.count_bytes(0)

    def throttle(self, allowance: ReadAllowance, kind: Literal["audio", "messages"]) -> None:
        """Pause reading until the used-up allowance has refilled; after a burst, for as long as others have their turn.

        The rules hear of it at most `REPORTS_PER_MINUTE` times a minute, for audio and messages each.
        """
        now = self._clock()
        wait_s = allowance.wait_s(now)
        if wait_s > 0:
            self._pause(wait_s + BACKOFF_S)
            if self._reports.take(kind, now) == 0:
                self._dispatch(ClientRateLimited(kind))
        elif allowance.renew_slice(now):
            self._pause(YIELD_S)

    def _pause(self, wait_s: float) -> None:
        if self._timer is None:
            self._client.pause_reading(_RATE_LIMITED)
            self._client.throttle_reads()
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._resume)

    def stop(self) -> None:
        """Let no timer outlive the session."""
        if self._timer is not None:
            self._timer.cancel()
            self._resume()
        self._client.on_control_frame = self._client.on_fragment = noop

    def _resume(self) -> None:
        self._timer = None
        if self._client.peer_closed:  # what it has sent would keep a dead session alive for minutes at this speed
            self._client.abort()
        else:
            self._client.resume_reading(_RATE_LIMITED)


class PacedReader:
    """Hands messages to `on_message`, and the end of the connection to `closed`, in their order.

    Beyond `BURST_MESSAGES` or `BURST_BYTES` in `BURST_PAUSE_S` they wait, and the peer is not read. No more wait than
    one read has brought.
    """

    def __init__(
        self,
        socket: WebSocketConnection,
        on_closed: Callable[[int, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._socket = socket
        self.on_message: Callable[[bytes], None] = noop
        self._on_closed = on_closed
        self._clock = clock
        self._queue: deque[bytes] = deque()
        self._close: tuple[int, str] | None = None
        self._burst_started_at = clock()
        self._n_messages = self._n_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def feed(self, message: bytes) -> None:
        """A message has come."""
        if self._timer is not None:
            self._queue.append(message)
            return
        self._n_messages += 1
        self._n_bytes += len(message)
        self.on_message(message)
        if (self._n_messages >= BURST_MESSAGES or self._n_bytes >= BURST_BYTES) and not self._was_slow_burst():
            self._socket.pause_reading(_BURST)
            self._pause()

    def feed_close(self, code: int, reason: str) -> None:
        """The connection is gone."""
        if self._queue:
            self._close = (code, reason)
        else:
            self._on_closed(code, reason)

    def stop(self) -> None:
        """Forget what waits."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _has_room(self) -> bool:
        return self._n_messages < BURST_MESSAGES and self._n_bytes < BURST_BYTES

    def _was_slow_burst(self) -> bool:
        """Whether the burst that is full took longer than `BURST_PAUSE_S`, so that the next one may begin."""
        now = self._clock()
        was_slow = now - self._burst_started_at > BURST_PAUSE_S * max(1.0, self._n_bytes / BURST_BYTES)
        if was_slow:
            self._start_burst(now)
        return was_slow

    def _start_burst(self, now: float) -> None:
        self._burst_started_at, self._n_messages, self._n_bytes = now, 0, 0

    def _pause(self) -> None:
        pause_s = BURST_PAUSE_S * max(1.0, self._n_bytes / BURST_BYTES)
        self._timer = asyncio.get_running_loop().call_later(pause_s, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._start_burst(self._clock())
        while self._queue and self._has_room:
            message = self._queue.popleft()
            self._n_messages += 1
            self._n_bytes += len(message)
            try:
                self.on_message(message)
            except Exception:
                self._socket.on_internal_error()
        if not self._has_room and self._queue:
            self._pause()
        elif self._close is not None:
            self._on_closed(*self._close)
        else:
            self._socket.resume_reading(_BURST)
