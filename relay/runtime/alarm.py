"""One timer that calls back at the earliest time that was asked for."""

import asyncio
from collections.abc import Callable


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
        self._timer = asyncio.get_running_loop().call_later(max(at - self._clock(), 0.001), self._ring)

    def set_in(self, wait_s: float) -> None:
        """Call back after `wait_s`, unless that is to happen before it already."""
        self.set(self._clock() + wait_s)

    def stop(self) -> None:
        """Do not call back until the next `set`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._callback()
