"""Timers of a session at run time: an alarm, the watch over peers that do not read, the wait for what is played out."""

import asyncio
from collections.abc import Callable

from relay.transport.websocket import WebSocketConnection

MAX_STALL_S = 10.0
"""How long a peer may read nothing while its socket is full."""
MAX_UNSENT_BYTES = 1024 * 1024
"""More than this unsent, while its socket is full, ends the wait at once."""
ECHO_TAIL_MS = 200
"""How long after its last audio a device is taken to hear itself: its buffer, and the room."""


class Alarm:
    """Calls back once, then waits for the next `set`.

    Setting a later time leaves the timer alone: it fires early, and whoever is called looks again and sets it anew.
    `clock` is the one that times are given by; None is the loop's.
    """

    __slots__ = ("_at", "_callback", "_clock", "_timer")

    def __init__(self, callback: Callable[[], None], clock: Callable[[], float] | None = None) -> None:
        self._callback = callback
        self._clock = clock or asyncio.get_running_loop().time
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, at: float) -> None:
        """Call back at `at`, unless that is to happen before it already."""
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(max(at - self._clock(), 0.001), self._fire)

    def set_in(self, wait_s: float) -> None:
        """Call back after `wait_s`, unless that is to happen before it already."""
        self.set(self._clock() + wait_s)

    def stop(self) -> None:
        """Do not call back until the next `set`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._callback()


class StallWatch:
    """Reports one peer that does not read, with the bytes that are unsent by then."""

    __slots__ = ("_alarm", "_on_stalled", "_socket")

    def __init__(self, socket: WebSocketConnection, on_stalled: Callable[[int], None]) -> None:
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


class PlayoutEndTimer:
    """Waits until a client has played all that it was sent, and the echo of the room is over.

    `unplayed_ms` is what the client has still to play; None while more audio is to be sent: then nothing is reported,
    and the wait begins anew with the end of that audio.
    """

    __slots__ = ("_alarm", "_on_played_out", "_unplayed_ms")

    def __init__(self, unplayed_ms: Callable[[], float | None], on_played_out: Callable[[], None]) -> None:
        self._unplayed_ms = unplayed_ms
        self._on_played_out = on_played_out
        self._alarm = Alarm(self._check)

    def start(self, unplayed_ms: float) -> None:
        """All audio of a part was sent, and the client has so much still to play; an earlier wait is over."""
        self.stop()
        self._alarm.set_in((unplayed_ms + ECHO_TAIL_MS) / 1000)

    def stop(self) -> None:
        """Wait no more."""
        self._alarm.stop()

    def _check(self) -> None:
        unplayed_ms = self._unplayed_ms()
        if unplayed_ms is None:
            return
        if unplayed_ms > 0:  # the client is slower than its audio
            self.start(unplayed_ms)
        else:
            self._on_played_out()
