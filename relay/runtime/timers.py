"""Timers of a running session: an alarm, a stall watch for peers that do not read, and the end of playout."""

import asyncio
from collections.abc import Callable

from relay.transport.websocket import WebSocketConnection

MAX_STALL_S = 10.0
"""How long a peer may read nothing while its socket buffer is full."""
MAX_UNSENT_BYTES = 1024 * 1024
"""If more than this is unsent while the socket buffer is full, the peer counts as stalled at once."""
ECHO_TAIL_MS = 200
"""How long after its last audio a device may still pick up its own echo: its buffer, and the room."""


class Alarm:
    """A timer that calls back once per `set`.

    Setting a later time does not restart the timer: it fires early, and the callback sets it again. `clock` defaults to
    the event loop's.
    """

    __slots__ = ("_at", "_callback", "_clock", "_timer")

    def __init__(self, callback: Callable[[], None], clock: Callable[[], float] | None = None) -> None:
        self._callback = callback
        self._clock = clock or asyncio.get_running_loop().time
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, at: float) -> None:
        """Call back at `at`, unless an earlier time is set."""
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(max(at - self._clock(), 0.001), self._fire)

    def set_in(self, wait_s: float) -> None:
        """Call back after `wait_s`, unless an earlier time is set."""
        self.set(self._clock() + wait_s)

    def stop(self) -> None:
        """Cancel the timer until the next `set`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._callback()


class StallWatch:
    """Reports a peer that does not read, with the number of unsent bytes."""

    __slots__ = ("_alarm", "_on_stalled", "_socket")

    def __init__(self, socket: WebSocketConnection, on_stalled: Callable[[int], None]) -> None:
        self._socket = socket
        self._on_stalled = on_stalled
        self._alarm = Alarm(self._on_alarm)

    def set_writable(self, is_writable: bool) -> None:
        """Start the watch when the socket buffer is full, stop it when the peer reads again."""
        if is_writable:
            self.stop()
        else:
            self._alarm.set_in(MAX_STALL_S)

    def check_unsent(self) -> None:
        """Report the peer if too much is unsent; call it after sending to a full socket."""
        unsent_bytes = self._socket.unsent_bytes
        if unsent_bytes > MAX_UNSENT_BYTES:
            self._on_stalled(unsent_bytes)

    def stop(self) -> None:
        """Stop until the socket buffer fills again."""
        self._alarm.stop()

    def _on_alarm(self) -> None:
        self._on_stalled(self._socket.unsent_bytes)


class PlayoutEndTimer:
    """Calls back when the client has played everything it was sent, and the echo in the room has decayed.

    `unplayed_ms` returns what the client has still to play, or None while more audio is queued. Nothing is reported
    then; the end of that audio starts the timer again.
    """

    __slots__ = ("_alarm", "_on_played_out", "_unplayed_ms")

    def __init__(self, unplayed_ms: Callable[[], float | None], on_played_out: Callable[[], None]) -> None:
        self._unplayed_ms = unplayed_ms
        self._on_played_out = on_played_out
        self._alarm = Alarm(self._check)

    def start(self, unplayed_ms: float) -> None:
        """Start the timer when the last audio of a part was sent; replaces an earlier start."""
        self.stop()
        self._alarm.set_in((unplayed_ms + ECHO_TAIL_MS) / 1000)

    def stop(self) -> None:
        """Stop the timer."""
        self._alarm.stop()

    def _check(self) -> None:
        unplayed_ms = self._unplayed_ms()
        if unplayed_ms is None:
            return
        if unplayed_ms > 0:  # the client plays more slowly than real time
            self.start(unplayed_ms)
        else:
            self._on_played_out()
