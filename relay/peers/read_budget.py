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
    """Limits the buffered bytes of unfinished messages. One owner may hold half of them, and one message more."""

    def __init__(self, max_bytes: int = MAX_UNFINISHED_BYTES, patience_s: float = PATIENCE_S) -> None:
        self._max_bytes = max_bytes
        self._patience_s = patience_s
        self.held_bytes = 0
        """How much is held in all."""
        self._owned: Counter[str] = Counter()
        self._holders: dict[Holder, None] = {}  # the oldest message first, as in the next two
        self._holders_of: dict[str, dict[Holder, None]] = {}
        self._waiting: dict[Holder, None] = {}
        self._blocker: Holder | None = None
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, holder: Holder, n_bytes: int) -> None:
        """Count `n_bytes` of its unfinished message as buffered. The connection is paused if the budget is used up."""
        self._count(holder, n_bytes)
        self._holders.setdefault(holder)
        self._holders_of.setdefault(holder.owner, {}).setdefault(holder)
        if not self._has_room(holder) and holder not in self._waiting:
            self._waiting[holder] = None
            holder.pause()
            self._watch()

    def release(self, holder: Holder) -> None:
        """Its message is complete, or its connection is closed: resume others that now fit."""
        if holder not in self._holders:
            return
        self._count(holder, 0)
        del self._holders[holder]
        of_owner = self._holders_of[holder.owner]
        del of_owner[holder]
        if not of_owner:
            del self._holders_of[holder.owner], self._owned[holder.owner]
        if holder in self._waiting:  # what it waited with has gone on, and it may be paused for other reasons
            del self._waiting[holder]
            holder.resume()
        for other in list(self._waiting):
            if other in self._waiting and self._has_room(other):
                del self._waiting[other]
                other.resume()
        self._watch()

    def _count(self, holder: Holder, n_bytes: int) -> None:
        more_bytes, holder.held_bytes = n_bytes - holder.held_bytes, n_bytes
        self.held_bytes += more_bytes
        self._owned[holder.owner] += more_bytes

    def _has_room(self, holder: Holder) -> bool:
        fits = self.held_bytes < self._max_bytes or holder is self._oldest()
        is_fair = self._owned[holder.owner] < self._max_bytes // 2 or holder is self._oldest(holder.owner)
        return fits and is_fair

    def _oldest(self, owner: str | None = None) -> Holder:
        return next(iter(self._holders if owner is None else self._holders_of[owner]))

    def _watch(self) -> None:
        """Give the message that the first one waits for its time: it begins when it is the one."""
        blocker = None
        if self._waiting:
            first = next(iter(self._waiting))
            blocker = self._oldest(first.owner if self.held_bytes < self._max_bytes else None)
        if blocker is self._blocker:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._blocker = blocker
        if blocker is not None:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._cut, blocker)

    def _cut(self, holder: Holder) -> None:
        self._timer = None
        self.release(holder)
        holder.cut()
