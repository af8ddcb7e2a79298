"""Rate limits for reading: token buckets for clients, and bursts of at most 10 ms for upstreams.

A peer that sends too much is not disconnected: reading pauses for a while, and TCP flow control makes it wait.
`ReadLimiter` limits a client over seconds, by audio and by messages. For an audio frame the uplink only decreases a
number, and calls `throttle` once it is negative. `PacedReader` limits the work per event-loop iteration for an
upstream: after a burst, its messages are queued and other connections run. Each pauses reading with its own reason, so
that neither resumes what another part has paused.
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
"""The pause after a client used up a slice of its allowance at once; other connections run meanwhile."""
BACKOFF_S = 0.25
"""An extra delay before reading resumes, so that a client that is too fast is not paused for every frame."""
REPORTS_PER_MINUTE = 6
_RATE_LIMITED = "rate limited"
BURST_MESSAGES = 50
BURST_BYTES = 256 * 1024
BURST_PAUSE_S = 0.01
"""The pause after an upstream's burst; proportionally longer after a longer message."""
_BURST = "burst"


class ReadLimiter:
    """One client's allowances: `audio` in bytes, at least `min_message_bytes` per message, and `messages` by number.

    Whoever handles a frame decreases `audio.remaining` by the greater of its length and `min_message_bytes`, and calls
    `throttle` once it is negative.
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
        """Replace the allowance for audio after the client's audio format changed."""
        self.audio, self.min_message_bytes = audio, min_message_bytes

    def count_bytes(self, n_bytes: int) -> None:
        """Count one message of `n_bytes`, of any type."""
        self.audio.remaining -= max(n_bytes, self.min_message_bytes)
        if self.audio.remaining < 0:
            self.throttle(self.audio, "audio")

    def count_message(self, cost: float = 1) -> None:
        """Count one message as `cost` messages."""
        self.messages.remaining -= cost
        if self.messages.remaining < 0:
            self.throttle(self.messages, "messages")

    def count_fragment(self) -> None:
        """Count a fragment as the shortest audio frame: a message may have thousands of fragments."""
        self.count_bytes(0)

    def throttle(self, allowance: ReadAllowance, kind: Literal["audio", "messages"]) -> None:
        """Pause reading until the allowance has refilled, or for `YIELD_S` after a burst.

        The session is notified at most `REPORTS_PER_MINUTE` times a minute, for audio and messages each.
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
        """Cancel the timer and resume reading."""
        if self._timer is not None:
            self._timer.cancel()
            self._resume()
        self._client.on_control_frame = self._client.on_fragment = noop

    def _resume(self) -> None:
        self._timer = None
        if self._client.peer_closed:  # at this speed its last data would keep a dead session alive for minutes
            self._client.abort()
        else:
            self._client.resume_reading(_RATE_LIMITED)


class PacedReader:
    """Calls `on_message` for each message and `on_closed` for the end of the connection, in order.

    Beyond `BURST_MESSAGES` or `BURST_BYTES` in `BURST_PAUSE_S`, messages are queued and reading pauses. The queue holds
    at most the messages of one read.
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
        """Pass on a message, or queue it during a pause."""
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
        """Report the end of the connection, after the queued messages."""
        if self._queue:
            self._close = (code, reason)
        else:
            self._on_closed(code, reason)

    def stop(self) -> None:
        """Drop the queued messages and cancel the timer."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _has_room(self) -> bool:
        return self._n_messages < BURST_MESSAGES and self._n_bytes < BURST_BYTES

    def _was_slow_burst(self) -> bool:
        """Return whether the full burst took longer than `BURST_PAUSE_S`, so that the next one may start at once."""
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
