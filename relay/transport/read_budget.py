"""A shared memory budget for unfinished messages of clients, and small reads for clients that send bursts.

The first 64 KiB of every message are free, so that audio and ordinary events never wait. Beyond that, reading of a
connection pauses while the budget is used up. The oldest unfinished message is always read on, so that it can complete.
If it blocks others for `STALL_TIMEOUT_S`, its connection is closed.
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
BUDGET_USED_UP = "read budget used up"
LONG_MESSAGE_READ_BYTES = 8192
"""The read size for clients with messages longer than half of it; it holds 200 of the shortest events."""
_MIN_RELEASED_BYTES = 256 * 1024
"""Less is not worth a system call."""
MIN_READ_BYTES = 256
MAX_READ_BYTES = 64 * 1024
CHEAP_PARSE_S = 0.0003
"""If parsing took less, the next read is twice as long: a long message then needs few rounds."""


class BudgetHolder:
    """A connection that takes part in the budget; `owner` identifies its client."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.reserved_bytes = 0

    def pause(self) -> None:
        """Pause reading."""
        raise NotImplementedError

    def resume(self) -> None:
        """Resume reading."""
        raise NotImplementedError

    def close_stalled(self) -> None:
        """Close the connection: its message takes too long to arrive."""
        raise NotImplementedError


class ReadBudget:
    """Limits the buffered bytes of unfinished messages. One owner may use half of the budget, plus one message."""

    def __init__(self, max_bytes: int = MAX_BUFFERED_INPUT_BYTES, stall_timeout_s: float = STALL_TIMEOUT_S) -> None:
        self._max_bytes = max_bytes
        self._stall_timeout_s = stall_timeout_s
        self.reserved_bytes = 0
        """The sum for all connections."""
        self._bytes_by_owner: Counter[str] = Counter()
        self._holders: dict[BudgetHolder, None] = {}  # oldest message first, as in the next two
        self._holders_by_owner: dict[str, dict[BudgetHolder, None]] = {}
        self._waiting: dict[BudgetHolder, None] = {}
        self._blocker: BudgetHolder | None = None
        self._timer: asyncio.TimerHandle | None = None

    def reserve(self, holder: BudgetHolder, n_bytes: int) -> None:
        """Set the buffered bytes of the holder's unfinished message. Pauses its reading if the budget is used up."""
        self._set_reserved(holder, n_bytes)
        self._holders.setdefault(holder)
        self._holders_by_owner.setdefault(holder.owner, {}).setdefault(holder)
        if not self._has_room(holder) and holder not in self._waiting:
            self._waiting[holder] = None
            holder.pause()
            self._update_stall_timer()

    def release(self, holder: BudgetHolder) -> None:
        """Free the holder's bytes: its message is complete or its connection closed. Resumes others that now fit."""
        if holder not in self._holders:
            return
        self._set_reserved(holder, 0)
        del self._holders[holder]
        owner_holders = self._holders_by_owner[holder.owner]
        del owner_holders[holder]
        if not owner_holders:
            del self._holders_by_owner[holder.owner], self._bytes_by_owner[holder.owner]
        if holder in self._waiting:  # reading may stay paused for another reason
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
        """Start the stall timeout of the message that blocks the first waiting connection."""
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
    """Counts the unfinished messages of one connection in the budget, before and after its parser runs."""

    def __init__(
        self,
        owner: str,
        budget: ReadBudget,
        connection: WebSocketConnection,
        parse: Callable[[int], None],
        limit_read_size: Callable[[], None],
        get_buffer: Callable[[int], memoryview],
    ) -> None:
        super().__init__(owner)
        self._budget = budget
        self._connection = connection
        self._parse = parse
        self._limit_read_size = limit_read_size
        self._get_buffer = get_buffer

    def buffer_updated(self, n_bytes: int) -> None:
        """Parse the received bytes, and count those that remain buffered."""
        connection = self._connection
        connection.partial_frame_bytes += n_bytes
        self._parse(n_bytes)
        if (
            connection.partial_frame_bytes > LONG_MESSAGE_READ_BYTES // 2
            or connection.fragment_bytes
            or self.reserved_bytes
        ):
            self._limit_read_size()
            self.update_budget()

    def update_budget(self) -> None:
        """Set the reserved bytes to the bytes that are buffered now."""
        buffered_bytes = self._connection.buffered_input_bytes
        if buffered_bytes > UNBUDGETED_BYTES:
            self._budget.reserve(self, buffered_bytes)
        elif self.reserved_bytes:
            self.release()
            _release_pages(self._get_buffer(-1))

    def release(self) -> None:
        """Free all reserved bytes."""
        self._budget.release(self)

    def pause(self) -> None:
        """Pause reading."""
        self._connection.pause_reading(BUDGET_USED_UP)

    def resume(self) -> None:
        """Resume reading."""
        self._connection.resume_reading(BUDGET_USED_UP)

    def close_stalled(self) -> None:
        """Report that the connection's message takes too long to arrive."""
        self._connection.on_message_stalled()


def _release_pages(unused_buffer: memoryview) -> None:
    """Return unused memory pages to the system: picows never shrinks its read buffer."""
    if sys.platform != "linux" or len(unused_buffer) < _MIN_RELEASED_BYTES:
        return
    address = ctypes.addressof(ctypes.c_char.from_buffer(unused_buffer))
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + len(unused_buffer) - first) // mmap.PAGESIZE * mmap.PAGESIZE
    _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class ThrottledReader:
    """Read buffer and parser of one connection, with reads of `MIN_READ_BYTES` to `MAX_READ_BYTES`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        connection: WebSocketConnection,
        get_buffer: Callable[[int], memoryview],
        parse: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._connection = connection
        self._get_buffer = get_buffer
        self._parse = parse
        self._read_bytes = MIN_READ_BYTES
        self._call_soon = asyncio.get_running_loop().call_soon

    def get_buffer(self, hint: int) -> memoryview:
        """Return the buffer for the next read."""
        return self._get_buffer(hint)[: self._read_bytes]

    def buffer_updated(self, n_bytes: int) -> None:
        """Parse the received bytes, and read on in the next iteration of the event loop."""
        started_at = thread_time()
        self._parse(n_bytes)
        is_cheap = thread_time() - started_at < CHEAP_PARSE_S
        self._read_bytes = min(2 * self._read_bytes, MAX_READ_BYTES) if is_cheap else MIN_READ_BYTES
        if self._may_read:
            self._transport.pause_reading()
            self._call_soon(self._resume)

    @property
    def _may_read(self) -> bool:
        return not self._connection.is_reading_paused and not self._transport.is_closing()

    def _resume(self) -> None:
        if self._may_read:
            self._transport.resume_reading()
