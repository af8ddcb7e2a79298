"""How fast peers are read: clients by their allowances, and upstreams by at most a burst of messages in 10 ms.

A peer that sends too much is not cut off: its socket is not read for a while, and TCP makes it wait. `ReadLimiter`
bounds a client over seconds, by audio and by messages. For a frame of audio the uplink only lowers a number, and calls
`slow_down` when that is below zero. `PacedReader` bounds what an upstream can make the event loop do in one go: after a
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
from relay.transport.websocket import MessageListener, noop

YIELD_S = 0.05
"""How long a client is not read that has used up a slice of its allowance at once: others have their turn."""
BACKOFF_S = 0.25
"""A client that is too fast is read again this much later than it might be, so that it is not once per frame."""
REPORTS_PER_MINUTE = 6
_TOO_FAST = "too fast"
BURST_MESSAGES = 50
BURST_BYTES = 256 * 1024
TURN_S = 0.01
"""How long others have their turn after an upstream's burst; longer in proportion after a longer message."""
_BURST = "a burst of messages"


class ReadLimiter:
    """One client's allowances: `audio` in bytes, each message at least `least_bytes`; `messages` in texts and pings.

    Whoever has the frame at hand lowers `audio.left` by the greater of its length and `least_bytes`, and calls
    `slow_down` once it is below zero.
    """

    def __init__(
        self,
        client: MessageListener,
        audio: ReadAllowance,
        least_bytes: int,
        messages: ReadAllowance,
        feed: Callable[[ClientRateLimited], None],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._feed = feed
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._reports = KeyedRateLimiter(RateLimit(REPORTS_PER_MINUTE, 1))
        self.messages = messages
        self.use(audio, least_bytes)
        client.on_control = self.message
        client.on_fragment = self.fragment

    def use(self, audio: ReadAllowance, least_bytes: int) -> None:
        """The client's audio comes in another format from here on."""
        self.audio, self.least_bytes = audio, least_bytes

    def take(self, n_bytes: int) -> None:
        """Count `n_bytes` of one message, whatever it holds."""
        self.audio.remaining -= max(n_bytes, self.least_bytes)
        if self.audio.remaining < 0:
            self.slow_down(self.audio, "audio")

    def message(self, cost: float = 1) -> None:
        """Count a message, as `cost` of them."""
        self.messages.remaining -= cost
        if self.messages.remaining < 0:
            self.slow_down(self.messages, "messages")

    def fragment(self) -> None:
        """Count a part of a message as the shortest of audio frames: there may be thousands in one message."""
        self.take(0)

    def slow_down(self, allowance: ReadAllowance, what: Literal["audio", "messages"]) -> None:
        """Pause reading until the used-up allowance has refilled; after a burst, for as long as others have their turn.

        The rules hear of it at most `REPORTS_PER_MINUTE` times a minute, for audio and messages each.
        """
        now = self._clock()
        wait_s = allowance.wait_s(now)
        if wait_s > 0:
            self._pause(wait_s + BACKOFF_S)
            if self._reports.take(what, now) == 0:
                self._feed(ClientRateLimited(what))
        elif allowance.take_burst(now):
            self._pause(YIELD_S)

    def _pause(self, wait_s: float) -> None:
        if self._timer is None:
            self._client.pause_reading(_TOO_FAST)
            self._client.read_sparingly()
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._read_on)

    def stop(self) -> None:
        """Let no timer outlive the session."""
        if self._timer is not None:
            self._timer.cancel()
            self._read_on()
        self._client.on_control = self._client.on_fragment = noop

    def _read_on(self) -> None:
        self._timer = None
        if self._client.has_left:  # what it has sent would keep a dead session alive for minutes at this speed
            self._client.abort()
        else:
            self._client.resume_reading(_TOO_FAST)


class PacedReader:
    """Hands messages to `handle`, and the end of the connection to `closed`, in their order.

    Beyond `BURST_MESSAGES` or `BURST_BYTES` in `TURN_S` they wait, and the peer is not read. No more wait than one read
    has brought.
    """

    def __init__(
        self,
        socket: MessageListener,
        closed: Callable[[int, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._socket = socket
        self.handle: Callable[[bytes], None] = noop
        self._closed = closed
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._end: tuple[int, str] | None = None
        self._began = clock()
        self._n_messages = self._n_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, message: bytes) -> None:
        """A message has come."""
        if self._timer is not None:
            self._waiting.append(message)
            return
        self._n_messages += 1
        self._n_bytes += len(message)
        self.handle(message)
        if (self._n_messages >= BURST_MESSAGES or self._n_bytes >= BURST_BYTES) and not self._took_its_time():
            self._socket.pause_reading(_BURST)
            self._wait()

    def take_end(self, code: int, reason: str) -> None:
        """The connection is gone."""
        if self._waiting:
            self._end = (code, reason)
        else:
            self._closed(code, reason)

    def stop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _has_room(self) -> bool:
        return self._n_messages < BURST_MESSAGES and self._n_bytes < BURST_BYTES

    def _took_its_time(self) -> bool:
        """Whether the burst that is full took longer than `TURN_S`, so that the next one may begin."""
        now = self._clock()
        took_its_time = now - self._began > TURN_S * max(1.0, self._n_bytes / BURST_BYTES)
        if took_its_time:
            self._begin(now)
        return took_its_time

    def _begin(self, now: float) -> None:
        self._began, self._n_messages, self._n_bytes = now, 0, 0

    def _wait(self) -> None:
        wait_s = TURN_S * max(1.0, self._n_bytes / BURST_BYTES)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self._begin(self._clock())
        while self._waiting and self._has_room:
            message = self._waiting.popleft()
            self._n_messages += 1
            self._n_bytes += len(message)
            try:
                self.handle(message)
            except Exception:
                self._socket.on_failed()
        if not self._has_room and self._waiting:
            self._wait()
        elif self._end is not None:
            self._closed(*self._end)
        else:
            self._socket.resume_reading(_BURST)
