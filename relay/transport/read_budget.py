"""How clients are read: in small pieces where they send bursts, and within one budget for unfinished messages.

The first 64 KiB of every message are free, so that audio and ordinary events never wait. Beyond that a connection that
finds no room is not read until there is some. The message that has been arriving for longest always goes on, or
nobody's would become whole. When it holds up others for `PATIENCE_S`, its connection is closed.
"""

import asyncio
import ctypes
import functools
import mmap
import sys
from collections import Counter
from collections.abc import Callable
from time import thread_time

from relay.transport.websocket import MessageListener

MAX_UNFINISHED_BYTES = 64 * 1024 * 1024
FREE_BYTES = 64 * 1024
PATIENCE_S = 10.0
NO_ROOM = "no room for long messages"
LONG_READ_BYTES = 8192
"""What one read brings of a client that sends messages of more than half of this: 200 of the shortest events."""
_LEAST_RELEASED_BYTES = 256 * 1024
"""What is worth a system call."""
LEAST_PIECE_BYTES = 256
MOST_PIECE_BYTES = 64 * 1024
CHEAP_S = 0.0003
"""What parsing a piece may take for the next one to be twice as long: a long message takes few rounds."""


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


class ReadShare(Holder):
    """What one connection holds of the budget for unfinished messages, and the parser that fills it."""

    def __init__(
        self,
        owner: str,
        budget: ReadBudget,
        listener: MessageListener,
        parse: Callable[[int], None],
        read_in_pieces: Callable[[], None],
        unused: Callable[[int], memoryview],
    ) -> None:
        super().__init__(owner)
        self._budget = budget
        self._listener = listener
        self._parse = parse
        self._read_in_pieces = read_in_pieces
        self._unused = unused

    def buffer_updated(self, n_bytes: int) -> None:
        """Parse what has come, and count what is left of it."""
        listener = self._listener
        listener.unread_bytes += n_bytes
        self._parse(n_bytes)
        if listener.unread_bytes > LONG_READ_BYTES // 2 or listener.fragment_bytes or self.held_bytes:
            self._read_in_pieces()
            self.recount()

    def recount(self) -> None:
        """Hold as much as is unfinished now."""
        unfinished_bytes = self._listener.unfinished_bytes
        if unfinished_bytes > FREE_BYTES:
            self._budget.hold(self, unfinished_bytes)
        elif self.held_bytes:
            self.release()
            _release_pages(self._unused(-1))

    def release(self) -> None:
        """Hold nothing any more."""
        self._budget.release(self)

    def pause(self) -> None:
        """Read the connection no more for now."""
        self._listener.pause_reading(NO_ROOM)

    def resume(self) -> None:
        """Read it on."""
        self._listener.resume_reading(NO_ROOM)

    def cut(self) -> None:
        """End it: its message takes too long."""
        self._listener.on_stalled()


def _release_pages(unused: memoryview) -> None:
    """Give pages that hold nothing back to the system: picows never makes its read buffer smaller."""
    if sys.platform != "linux" or len(unused) < _LEAST_RELEASED_BYTES:
        return
    address = ctypes.addressof(ctypes.c_char.from_buffer(unused))
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + len(unused) - first) // mmap.PAGESIZE * mmap.PAGESIZE
    _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class SparingReader:
    """The buffer of one connection and its parser, with pieces of `LEAST_PIECE_BYTES` to `MOST_PIECE_BYTES`."""

    def __init__(
        self,
        line: asyncio.Transport,
        listener: MessageListener,
        get_buffer: Callable[[int], memoryview],
        parse: Callable[[int], None],
    ) -> None:
        self._line = line
        self._listener = listener
        self._get_buffer = get_buffer
        self._parse = parse
        self._n_bytes = LEAST_PIECE_BYTES
        self._call_soon = asyncio.get_running_loop().call_soon

    def get_buffer(self, hint: int) -> memoryview:
        """Room for one piece."""
        return self._get_buffer(hint)[: self._n_bytes]

    def buffer_updated(self, n_bytes: int) -> None:
        """Parse a piece, and read the next one in the next round."""
        began_s = thread_time()
        self._parse(n_bytes)
        is_cheap = thread_time() - began_s < CHEAP_S
        self._n_bytes = min(2 * self._n_bytes, MOST_PIECE_BYTES) if is_cheap else LEAST_PIECE_BYTES
        if self._may_read:
            self._line.pause_reading()
            self._call_soon(self._go_on)

    @property
    def _may_read(self) -> bool:
        return not self._listener.is_paused and not self._line.is_closing()

    def _go_on(self) -> None:
        if self._may_read:
            self._line.resume_reading()
