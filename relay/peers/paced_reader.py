"""Limits how many messages of one peer are handled in 10 ms."""

import asyncio
from collections import deque
from collections.abc import Callable

from relay.callbacks import ignore
from relay.peers.frames import MessageListener

BURST_MESSAGES = 50
BURST_BYTES = 256 * 1024
TURN_S = 0.01
"""How long others have their turn after a burst; longer in proportion after a longer message."""
_BURST = "a burst of messages"


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
        self.handle: Callable[[bytes], None] = ignore
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
