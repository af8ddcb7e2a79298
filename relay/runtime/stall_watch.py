"""A client or an upstream that does not read what it is sent."""

import asyncio
from collections.abc import Callable

from relay.peers.frames import MessageListener

MAX_STALL_S = 10.0
"""How long a peer may read nothing while its socket is full."""
MAX_UNSENT_BYTES = 1024 * 1024
"""More than this unsent, while its socket is full, ends the wait at once."""


class StallWatch:
    """Reports one peer that does not read, with the bytes that are unsent by then."""

    __slots__ = ("_on_stalled", "_socket", "_timer")

    def __init__(self, socket: MessageListener, on_stalled: Callable[[int], None]) -> None:
        self._socket = socket
        self._on_stalled = on_stalled
        self._timer: asyncio.TimerHandle | None = None

    def set_writable(self, is_writable: bool) -> None:
        """The socket filled up, or the peer reads again."""
        if is_writable:
            self.stop()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MAX_STALL_S, self._stalled)

    def check_unsent(self) -> None:
        """A message was sent although the socket is full: report the peer if too much waits."""
        unsent_bytes = self._socket.unsent_bytes
        if unsent_bytes > MAX_UNSENT_BYTES:
            self._on_stalled(unsent_bytes)

    def stop(self) -> None:
        """Watch no more, until the socket fills up again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stalled(self) -> None:
        self._timer = None
        self._on_stalled(self._socket.unsent_bytes)
