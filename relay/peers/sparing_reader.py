"""Reads a client that sends in bursts in small pieces, so that other connections are served in between.

A reader that is paused still parses all that it has read, and libuv reads a socket up to 32 times in a row while there
is more. So one piece is read each time around the loop.
"""

import asyncio
from collections.abc import Callable
from time import thread_time

from relay.peers.frames import MessageListener

LEAST_BYTES = 256
MOST_BYTES = 64 * 1024
CHEAP_S = 0.0003
"""What parsing a piece may take for the next one to be twice as long: a long message takes few rounds."""


class SparingReader:
    """The buffer of one connection and its parser, with pieces of `LEAST_BYTES` to `MOST_BYTES`."""

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
        self._n_bytes = LEAST_BYTES
        self._call_soon = asyncio.get_running_loop().call_soon

    def get_buffer(self, hint: int) -> memoryview:
        """Room for one piece."""
        return self._get_buffer(hint)[: self._n_bytes]

    def buffer_updated(self, n_bytes: int) -> None:
        """Parse a piece, and read the next one in the next round."""
        began_s = thread_time()
        self._parse(n_bytes)
        is_cheap = thread_time() - began_s < CHEAP_S
        self._n_bytes = min(2 * self._n_bytes, MOST_BYTES) if is_cheap else LEAST_BYTES
        if self._may_read:
            self._line.pause_reading()
            self._call_soon(self._go_on)

    @property
    def _may_read(self) -> bool:
        return not self._listener.is_paused and not self._line.is_closing()

    def _go_on(self) -> None:
        if self._may_read:
            self._line.resume_reading()
