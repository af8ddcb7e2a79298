"""How clients are read: in small pieces where they send bursts, and within one budget for unfinished messages.

The first 64 KiB of every message are free, so that audio and ordinary events never wait. Beyond that a connection that
finds no room is not read until there is some. The message that has been arriving for longest always goes on, or
nobody's would become whole. When it holds up others for `STALL_TIMEOUT_S`, its connection is closed.
"""

import asyncio
import ctypes
import functools
import mmap
import sys
from collections import Counter
from collections.abc import Callable
from time import thread_time

from relay.transport.websocket import WebSocketConnection

MAX_BUFFERED_INPUT_BYTES = 64 * 1024 * 1024
UNBUDGETED_BYTES = 64 * 1024
STALL_TIMEOUT_S = 10.0
BUDGET_USED_UP = "no room for long messages"
LONG_MESSAGE_READ_BYTES = 8192
"""What one read brings of a client that sends messages of more than half of this: 200 of the shortest events."""
_MIN_RELEASED_BYTES = 256 * 1024
"""What is worth a system call."""
MIN_READ_BYTES = 256
MAX_READ_BYTES = 64 * 1024
CHEAP_PARSE_S = 0.0003
"""What parsing a piece may take for the next one to be twice as long: a long message takes few rounds."""


class BudgetHolder:
    """One connection's share of the budget; `owner` says whose it is."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.reserved_bytes = 0

    def pause(self) -> None:
        """Read the connection no more for now."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read it on."""
        raise NotImplementedError

    def close_stalled(self) -> None:
        """End it: its message takes too long."""
        raise NotImplementedError


class ReadBudget:
    """Limits the buffered bytes of unfinished messages. One owner may hold half of them, and one message more."""

    def __init__(self, max_bytes: int = MAX_BUFFERED_INPUT_BYTES, stall_timeout_s: float = STALL_TIMEOUT_S) -> None:
        self._max_bytes = max_bytes
        self._stall_timeout_s = stall_timeout_s
        self.reserved_bytes = 0
        """How much is held in all."""
        self._bytes_by_owner: Counter[str] = Counter()
        self._holders: dict[BudgetHolder, None] = {}  # the oldest message first, as in the next two
        self._holders_by_owner: dict[str, dict[BudgetHolder, None]] = {}
        self._waiting: dict[BudgetHolder, None] = {}
        self._blocker: BudgetHolder | None = None
        self._timer: asyncio.TimerHandle | None = None

    def reserve(self, holder: BudgetHolder, n_bytes: int) -> None:
        """Count `n_bytes` of its unfinished message as buffered. The connection is paused if the budget is used up."""
        self._set_reserved(holder, n_bytes)
        self._holders.setdefault(holder)
        self._holders_by_owner.setdefault(holder.owner, {}).setdefault(holder)
        if not self._has_room(holder) and holder not in self._waiting:
            self._waiting[holder] = None
            holder.pause()
            self._update_stall_timer()

    def release(self, holder: BudgetHolder) -> None:
        """Its message is complete, or its connection is closed: resume others that now fit."""
        if holder not in self._holders:
            return
        self._set_reserved(holder, 0)
        del self._holders[holder]
        owner_holders = self._holders_by_owner[holder.owner]
        del owner_holders[holder]
        if not owner_holders:
            del self._holders_by_owner[holder.owner], self._bytes_by_owner[holder.owner]
        if holder in self._waiting:  # what it waited with has gone on, and it may be paused for other reasons
            del self._waiting[holder]
            holder.resume()
        for other in list(self._waiting):
            if other in self._waiting and self._has_room(other):
                del self._waiting[other]
                other.resume()
        self._update_stall_timer()

    def _set_reserved(self, holder: BudgetHolder, n_bytes: int) -> None:
        more_bytes, holder.reserved_bytes = n_bytes - holder.reserved_bytes, n_bytes
        self.reserved_bytes += more_bytes
        self._bytes_by_owner[holder.owner] += more_bytes

    def _has_room(self, holder: BudgetHolder) -> bool:
        fits = self.reserved_bytes < self._max_bytes or holder is self._oldest()
        is_fair = self._bytes_by_owner[holder.owner] < self._max_bytes // 2 or holder is self._oldest(holder.owner)
        return fits and is_fair

    def _oldest(self, owner: str | None = None) -> BudgetHolder:
        return next(iter(self._holders if owner is None else self._holders_by_owner[owner]))

    def _update_stall_timer(self) -> None:
        """Give the message that the first one waits for its time: it begins when it is the one."""
        blocker = None
        if self._waiting:
            first = next(iter(self._waiting))
            blocker = self._oldest(first.owner if self.reserved_bytes < self._max_bytes else None)
        if blocker is self._blocker:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._blocker = blocker
        if blocker is not None:
            self._timer = asyncio.get_running_loop().call_later(self._stall_timeout_s, self._close_stalled, blocker)

    def _close_stalled(self, holder: BudgetHolder) -> None:
        self._timer = None
        self.release(holder)
        holder.close_stalled()


class BudgetedReader(BudgetHolder):
    """What one connection holds of the budget for unfinished messages, and the parser that fills it."""

    def __init__(
        self,
        owner: str,
        budget: ReadBudget,
        listener: WebSocketConnection,
        parse: Callable[[int], None],
        limit_read_size: Callable[[], None],
        get_buffer: Callable[[int], memoryview],
    ) -> None:
        super().__init__(owner)
        self._budget = budget
        self._listener = listener
        self._parse = parse
        self._limit_read_size = limit_read_size
        self._get_buffer = get_buffer

    def buffer_updated(self, n_bytes: int) -> None:
        """Parse what has come, and count what is left of it."""
        listener = self._listener
        listener.partial_frame_bytes += n_bytes
        self._parse(n_bytes)
        if (
            listener.partial_frame_bytes > LONG_MESSAGE_READ_BYTES // 2
            or listener.fragment_bytes
            or self.reserved_bytes
        ):
            self._limit_read_size()
            self.update_budget()

    def update_budget(self) -> None:
        """Hold as much as is unfinished now."""
        buffered_bytes = self._listener.buffered_input_bytes
        if buffered_bytes > UNBUDGETED_BYTES:
            self._budget.reserve(self, buffered_bytes)
        elif self.reserved_bytes:
            self.release()
            _release_pages(self._get_buffer(-1))

    def release(self) -> None:
        """Hold nothing any more."""
        self._budget.release(self)

    def pause(self) -> None:
        """Read the connection no more for now."""
        self._listener.pause_reading(BUDGET_USED_UP)

    def resume(self) -> None:
        """Read it on."""
        self._listener.resume_reading(BUDGET_USED_UP)

    def close_stalled(self) -> None:
        """End it: its message takes too long."""
        self._listener.on_message_stalled()


def _release_pages(unused: memoryview) -> None:
    """Give pages that hold nothing back to the system: picows never makes its read buffer smaller."""
    if sys.platform != "linux" or len(unused) < _MIN_RELEASED_BYTES:
        return
    address = ctypes.addressof(ctypes.c_char.from_buffer(unused))
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + len(unused) - first) // mmap.PAGESIZE * mmap.PAGESIZE
    _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class ThrottledReader:
    """The buffer of one connection and its parser, with pieces of `MIN_READ_BYTES` to `MAX_READ_BYTES`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        listener: WebSocketConnection,
        get_buffer: Callable[[int], memoryview],
        parse: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._listener = listener
        self._get_buffer = get_buffer
        self._parse = parse
        self._read_bytes = MIN_READ_BYTES
        self._call_soon = asyncio.get_running_loop().call_soon

    def get_buffer(self, hint: int) -> memoryview:
        """Room for one piece."""
        return self._get_buffer(hint)[: self._read_bytes]

    def buffer_updated(self, n_bytes: int) -> None:
        """Parse a piece, and read the next one in the next round."""
        started_at = thread_time()
        self._parse(n_bytes)
        is_cheap = thread_time() - started_at < CHEAP_PARSE_S
        self._read_bytes = min(2 * self._read_bytes, MAX_READ_BYTES) if is_cheap else MIN_READ_BYTES
        if self._may_read:
            self._transport.pause_reading()
            self._call_soon(self._resume)

    @property
    def _may_read(self) -> bool:
        return not self._listener.is_reading_paused and not self._transport.is_closing()

    def _resume(self) -> None:
        if self._may_read:
            self._transport.resume_reading()
