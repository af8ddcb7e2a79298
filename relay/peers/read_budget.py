"""One budget for the unfinished messages of all clients: what has come of long messages that are not whole yet.

The first 64 KiB of every message are free, so that audio and ordinary events never wait here. Beyond that a connection
that finds no room is not read until there is some. The message that has been arriving for longest always goes on, or
nobody's would become whole; when it holds up others for `PATIENCE_S` its connection is closed.
"""

import asyncio
from collections import Counter

MAX_UNFINISHED_BYTES = 64 * 1024 * 1024
FREE_BYTES = 64 * 1024
PATIENCE_S = 10.0
NO_ROOM = "no room for long messages"


class Holder:
    """One connection's share of the budget; `owner` says whose it is."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.held_bytes = 0

    def pause(self) -> None:
        """Read the connection no more for now."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read it on."""
        raise NotImplementedError

    def cut(self) -> None:
        """End it: its message takes too long."""
        raise NotImplementedError


class ReadBudget:
    """Hands out room for unfinished messages; an owner gets at most half of it, and one message more."""

    def __init__(self, max_bytes: int = MAX_UNFINISHED_BYTES, patience_s: float = PATIENCE_S) -> None:
        self._max_bytes = max_bytes
        self._patience_s = patience_s
        self._holders: dict[Holder, None] = {}
        self._waiting: dict[Holder, None] = {}
        self._owned: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def held_bytes(self) -> int:
        """How much is held in all."""
        return self._owned.total()

    def hold(self, holder: Holder, n_bytes: int) -> None:
        """So much of its message has come. The connection is paused if it finds no room for more."""
        self._owned[holder.owner] += n_bytes - holder.held_bytes
        holder.held_bytes = n_bytes
        self._holders.setdefault(holder)
        if not self._has_room(holder) and holder not in self._waiting:
            self._waiting[holder] = None
            holder.pause()
            self._watch()

    def release(self, holder: Holder) -> None:
        """Its message is whole, or its connection gone: others may go on."""
        self._owned[holder.owner] -= holder.held_bytes
        if not self._owned[holder.owner]:
            del self._owned[holder.owner]
        holder.held_bytes = 0
        self._holders.pop(holder, None)
        self._waiting.pop(holder, None)
        for other in list(self._waiting):
            if self._has_room(other):
                del self._waiting[other]
                other.resume()
        self._watch()

    def _has_room(self, holder: Holder) -> bool:
        fits = self.held_bytes < self._max_bytes or holder is self._oldest()
        is_fair = self._owned[holder.owner] < self._max_bytes // 2 or holder is self._oldest(holder.owner)
        return fits and is_fair

    def _oldest(self, owner: str | None = None) -> Holder:
        return next(one for one in self._holders if owner in (None, one.owner))

    def _watch(self) -> None:
        if not self._waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._cut_oldest)

    def _cut_oldest(self) -> None:
        """End the message that the first one waits for."""
        self._timer = None
        waits = next(iter(self._waiting))
        oldest = self._oldest(waits.owner if self.held_bytes < self._max_bytes else None)
        self.release(oldest)
        oldest.cut()
