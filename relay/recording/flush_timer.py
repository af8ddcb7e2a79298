"""When the recorders of a relay hand over what they have.

They do so in groups that take turns. So few of them hold much at a time, and the work of one group is done in one go,
by the loop and by the thread that writes: it costs a fraction of what it costs one by one, each after other work.
"""

import asyncio
from collections.abc import Callable
from typing import Final

FLUSH_S: Final = 0.5
"""With the writer's own delay, what `kill -9` can cost."""
GROUPS: Final = 32
"""So many that a group of a busy relay does not keep the loop from its frames: 3 of 100 sessions, 0.2 ms."""


class FlushTimer:
    """Flushes each recorder once in `FLUSH_S`: calls its `flush`, which never raises."""

    def __init__(self) -> None:
        self._groups: list[list[Callable[[], None]]] = [[] for _ in range(GROUPS)]
        self._turn = 0
        self._turn_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, flush: Callable[[], None]) -> None:
        """Flush a recorder from now on."""
        min(self._groups, key=len).append(flush)
        if self._timer is None:
            self._turn_at = asyncio.get_running_loop().time()
        self._arm()

    def remove(self, flush: Callable[[], None]) -> None:
        """Leave a recorder alone from now on."""
        for group in self._groups:
            if flush in group:
                group.remove(flush)
        self._arm()

    def _arm(self) -> None:
        """Wake up for the next group that is not empty."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for n in range(1, GROUPS + 1):
            if self._groups[(self._turn + n) % GROUPS]:
                at = self._turn_at + n * FLUSH_S / GROUPS
                self._timer = asyncio.get_running_loop().call_at(at, self._flush, (self._turn + n) % GROUPS, at)
                return

    def _flush(self, turn: int, at: float) -> None:
        self._turn, self._turn_at = turn, max(at, asyncio.get_running_loop().time() - FLUSH_S)
        for flush in tuple(self._groups[turn]):
            flush()
        self._arm()
