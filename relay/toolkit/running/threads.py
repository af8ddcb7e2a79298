"""Threads for blocking tools: a fixed number of slots, no queue, and never in the way of the process's end.

Not a ThreadPoolExecutor: that one queues without bound and is joined when the interpreter exits, so that one
hung tool would keep a stopped server alive for ever. These threads are daemons, one for each call.
"""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class DaemonThreads:
    """Runs functions in at most `max_threads` threads. A thread keeps its slot until its function returns."""

    def __init__(self, max_threads: int) -> None:
        if max_threads < 1:
            raise ValueError("max_threads must be at least 1")
        self._max_threads = max_threads
        self._slots_in_use = 0
        self._lock = threading.Lock()
        self.pending: set[asyncio.Future[Any]] = set()

    @property
    def slots_in_use(self) -> int:
        """How many slots are taken, those of abandoned calls included."""
        return self._slots_in_use

    def submit(self, function: Callable[[], T], name: str) -> asyncio.Future[T] | None:
        """Starts `function` with the caller's context variables; None at once where no slot is free.

        The future gets the function's value. The function must not raise: what to do with an exception is the
        caller's business, and a future refuses some of them.
        """
        if not self._acquire_slot():
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                value = context.run(function)
            finally:
                self._release_slot()
            _post_result(loop, future, value)

        try:
            threading.Thread(target=work, name=f"tool {name}", daemon=True).start()
        except RuntimeError:  # the system has no thread left
            self._release_slot()
            log.warning("no thread could be started for tool %s", name)
            return None
        self.pending.add(future)
        future.add_done_callback(self.pending.discard)
        return future

    def _acquire_slot(self) -> bool:
        with self._lock:
            if self._slots_in_use >= self._max_threads:
                return False
            self._slots_in_use += 1
            return True

    def _release_slot(self) -> None:
        with self._lock:
            self._slots_in_use -= 1


def _post_result(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], value: T) -> None:
    def settle() -> None:
        if not future.done():
            future.set_result(value)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop is closed: nobody is left to be told
        log.debug("a tool returned after the end of the event loop")
