"""A client or an upstream that does not read what it is sent."""

from collections.abc import Callable

from relay.peers.frames import MessageListener
from relay.runtime.alarm import Alarm

MAX_STALL_S = 10.0
"""How long a peer may read nothing while its socket is full."""
MAX_UNSENT_BYTES = 1024 * 1024
"""More than this unsent, while its socket is full, ends the wait at once."""


class StallWatch:
    """Reports one peer that does not read, with the bytes that are unsent by then."""

    __slots__ = ("_alarm", "_on_stalled", "_socket")

    def __init__(self, socket: MessageListener, on_stalled: Callable[[int], None]) -> None:
        self._socket = socket
        self._on_stalled = on_stalled
        self._alarm = Alarm(self._stalled)

    def set_writable(self, is_writable: bool) -> None:
        """The socket filled up, or the peer reads again."""
        if is_writable:
            self.stop()
        else:
            self._alarm.set_in(MAX_STALL_S)

    def check_unsent(self) -> None:
        """A message was sent although the socket is full: report the peer if too much waits."""
        unsent_bytes = self._socket.unsent_bytes
        if unsent_bytes > MAX_UNSENT_BYTES:
            self._on_stalled(unsent_bytes)

    def stop(self) -> None:
        """Watch no more, until the socket fills up again."""
        self._alarm.stop()

    def _stalled(self) -> None:
        self._on_stalled(self._socket.unsent_bytes)
