"""The fault injector: sends events over a connection as a fault script modifies them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import orjson

from relay.json_types import JsonObject
from relay.testing.faults.script import CloseSocket, Delay, DeliverEvent, DeliverText, FaultAction, FaultScript
from relay.testing.faults.spec import FaultSpec

ABNORMAL_CLOSURE = 1006
"""Close code 1006 (RFC 6455): the connection ends without a close frame."""


class FaultInjector:
    """Send events in order, as a `FaultScript` modifies them."""

    def __init__(
        self,
        script: FaultScript,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int, str], Awaitable[None]],
        abort: Callable[[], object],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`send` sends a text message, `close` sends a close frame, `abort` drops the TCP connection."""
        self._script = script
        self._send, self._close, self._abort = send, close, abort
        self._sleep = sleep
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        for fault in script.timed_faults:
            self._start_task(self._trigger_later(fault))

    async def send(self, event: JsonObject) -> None:
        """Send an event as the faults modify it."""
        async with self._lock:
            await self._execute(self._script.apply(event))

    async def add_faults(self, faults: Iterable[FaultSpec]) -> None:
        """Add faults; they apply from now on."""
        faults = list(faults)
        for fault in faults:
            if fault.after_s is not None:
                self._start_task(self._trigger_later(fault))
        async with self._lock:
            await self._execute(self._script.add_faults(faults))

    async def stop(self) -> None:
        """Cancel delayed events and timed faults."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _trigger_later(self, fault: FaultSpec) -> None:
        await self._sleep(fault.after_s or 0.0)
        async with self._lock:
            await self._execute(self._script.trigger(fault))

    async def _execute(self, actions: Iterable[FaultAction]) -> None:
        for action in actions:
            match action:
                case DeliverEvent(event, 0.0):
                    await self._send(orjson.dumps(event).decode())
                case DeliverEvent(event, delay_s):
                    self._start_task(self._send_later(event, delay_s))
                case DeliverText(text):
                    await self._send(text)
                case Delay(seconds):
                    await self._sleep(seconds)
                case CloseSocket(code, reason) if code != ABNORMAL_CLOSURE:
                    await self._close(code, reason)
                case CloseSocket():
                    self._abort()

    async def _send_later(self, event: JsonObject, delay_s: float) -> None:
        await self._sleep(delay_s)
        await self._send(orjson.dumps(event).decode())

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
