"""Gathering wake-ups: under load the loop looks at its sockets every few ms instead of for every frame.

What a frame costs is mostly the waking up for it. A loop whose rounds begin `RELAY_TICK_MS` apart finds several frames
waiting; each of them waits half a tick on average, in either direction. Devices, which play from a buffer of a hundred
ms, can wait for that; Realtime clients need not. It begins with enough sessions only, since few of them have nothing to
gather; a loop that has no time to spare does not sleep.
"""

import asyncio
import time

BUSY_SESSIONS = 10


class Tick:
    """Slows the running loop down to one round a tick, while there are `BUSY_SESSIONS` or more."""

    def __init__(self, tick_ms: float) -> None:
        self._tick_s = tick_ms / 1000
        self._handle: asyncio.Handle | None = None
        self._woke_at = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the loop is being slowed down now."""
        return self._handle is not None

    def sessions(self, count: int) -> None:
        """There are so many sessions now that can wait."""
        if not self._tick_s:
            return
        if count >= BUSY_SESSIONS and self._handle is None:
            self._handle = asyncio.get_running_loop().call_soon(self._round)
        elif count < BUSY_SESSIONS and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _round(self) -> None:
        # The loop stands still on purpose: whatever arrives meanwhile is read in one go afterwards. Other threads run.
        spare_s = self._woke_at + self._tick_s - time.monotonic()
        if spare_s > 0:
            time.sleep(spare_s)
        self._woke_at = time.monotonic()
        self._handle = asyncio.get_running_loop().call_soon(self._round)
