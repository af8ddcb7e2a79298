"""One connection's share of the budget for unfinished messages: what has come is counted, and its room given back."""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

from relay.peers.frames import MessageListener
from relay.peers.read_budget import FREE_BYTES, NO_ROOM, Holder, ReadBudget

LONG_READ_BYTES = 8192
"""What one read brings of a client that sends messages of more than half of this: 200 of the shortest events."""
_LEAST_RELEASED_BYTES = 256 * 1024
"""What is worth a system call."""


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
