"""Gathering wake-ups: with many sessions the loop looks at its sockets every few ms instead of for every frame.

What a frame costs is mostly the waking up for it. A loop whose rounds begin `RELAY_TICK_MS` apart finds several frames
waiting; each of them waits half a tick on average, in either direction. Devices play from a buffer and can wait;
Realtime clients need not. It begins with enough sessions only, since few of them have nothing to gather; a loop that is
busy for half of the time gathers enough by itself, and has no time to sleep. And whatever takes many rounds, each
waiting for the one before, would be as many ticks late: a session that begins, a tool, a request keep the loop awake.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

BUSY_SESSIONS = 10
LOOK_S = 0.25
"""How often is looked how busy the loop is."""
BUSY, CALM = 0.5, 0.35
"""The thread's share of a processor above which it does not sleep, and below which it does again."""
AFTERWARDS_S = 0.1
"""How long the loop stays awake after what it was kept awake for: the model is told of it, and answers."""


class Tick:
    """Slows the running loop down to one round a tick, while there are `BUSY_SESSIONS` or more, it is not busy, and
    nothing keeps it awake."""

    def __init__(self, tick_ms: float) -> None:
        self._tick_s = tick_ms / 1000
        self._handle: asyncio.Handle | None = None
        self._woke_at = self._looked_at = self._cpu_s = 0.0
        self._n_awake, self._awake_until = 0, 0.0

    @property
    def is_on(self) -> bool:
        """Whether the loop is being slowed down, or will be once it is calm and nothing keeps it awake."""
        return self._handle is not None

    def sessions(self, count: int) -> None:
        """There are so many sessions now that can wait."""
        if not self._tick_s:
            return
        if count >= BUSY_SESSIONS and self._handle is None:
            self._share()
            self._handle = asyncio.get_running_loop().call_soon(self._round)
        elif count < BUSY_SESSIONS and self._handle is not None:
            self._handle.cancel()
            self._handle = None

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Don't slow the loop down meanwhile, nor for `AFTERWARDS_S`."""
        self._n_awake += 1
        try:
            yield
        finally:
            self._n_awake -= 1
            self._awake_until = time.monotonic() + AFTERWARDS_S

    def _round(self) -> None:
        # The loop stands still on purpose: whatever arrives meanwhile is read in one go afterwards. Other threads run.
        now, loop = time.monotonic(), asyncio.get_running_loop()
        if self._n_awake or now < self._awake_until:
            self._handle = loop.call_later(AFTERWARDS_S, self._round)
            return
        if now - self._looked_at >= LOOK_S and self._share() > BUSY:
            self._handle = loop.call_later(LOOK_S, self._look)
            return
        spare_s = self._woke_at + self._tick_s - now
        if spare_s > 0:
            time.sleep(spare_s)
        self._woke_at = time.monotonic()
        self._handle = loop.call_soon(self._round)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._handle = loop.call_soon(self._round) if self._share() < CALM else loop.call_later(LOOK_S, self._look)

    def _share(self) -> float:
        """The thread's share of a processor since this was last asked."""
        now, cpu_s = time.monotonic(), time.thread_time()
        share = (cpu_s - self._cpu_s) / max(now - self._looked_at, 0.001)
        self._looked_at, self._cpu_s = now, cpu_s
        return share
