"""A peer's messages in bursts: who sends thousands of small ones at once is handled a few at a time."""

import asyncio
from collections import deque
from collections.abc import Callable

from relay.peers.frames import MessageListener

BURST_MESSAGES = 50
TURN_S = 0.01
"""How long others have their turn after a burst."""
_BURST = "a burst of messages"


class PacedReader:
    """Hands messages, and the end of the connection, to `handle` and `closed` in their order.

    Beyond `BURST_MESSAGES` in `TURN_S` they wait, and the peer is not read. No more wait than one read has brought.
    """

    def __init__(
        self,
        socket: MessageListener,
        handle: Callable[[memoryview], None],
        closed: Callable[[int, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._socket = socket
        self._handle = handle
        self._closed = closed
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._end: tuple[int, str] | None = None
        self._began = clock()
        self._n_messages = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, message: memoryview) -> None:
        """A message has come."""
        if not self._waiting and self._is_its_turn():
            self._handle(message)
            return
        self._waiting.append(bytes(message))
        if self._timer is None:
            self._socket.pause_reading(_BURST)
            self._timer = asyncio.get_running_loop().call_later(TURN_S, self._go_on)

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

    def _is_its_turn(self) -> bool:
        now = self._clock()
        if now - self._began > TURN_S:
            self._began, self._n_messages = now, 0
        self._n_messages += 1
        return self._n_messages <= BURST_MESSAGES

    def _go_on(self) -> None:
        self._timer = None
        self._began, self._n_messages = self._clock(), 0
        for _ in range(min(len(self._waiting), BURST_MESSAGES)):
            if self._waiting:  # a message may end the session, and with it all that waits
                self._handle(memoryview(self._waiting.popleft()))
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(TURN_S, self._go_on)
        elif self._end is not None:
            self._closed(*self._end)
        else:
            self._socket.resume_reading(_BURST)
