"""Carries a misbehaviour out over a connection."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import orjson

from relay.json_types import JsonObject
from relay.testing.faults.script import CloseSocket, Delay, EmitEvent, EmitText, FaultAction, FaultScript
from relay.testing.faults.spec import FaultSpec

ABNORMAL_CLOSURE = 1006
"""No code that can be sent: the connection just ends."""


class FaultInjector:
    """Sends events as a `FaultScript` would have them, in order; `stop` ends what is still to come."""

    def __init__(
        self,
        script: FaultScript,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int, str], Awaitable[None]],
        abort: Callable[[], object],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`send` a text message, `close` with a close frame, `abort`: break the connection underneath."""
        self._script = script
        self._send, self._close, self._abort = send, close, abort
        self._sleep = sleep
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        for fault in script.timed_faults:
            self._spawn(self._trigger_later(fault))

    async def send(self, event: JsonObject) -> None:
        """Send an event, or what comes in its place."""
        async with self._lock:
            await self._execute(self._script.apply(event))

    async def add_faults(self, faults: Iterable[FaultSpec]) -> None:
        """More faults, from now on."""
        faults = list(faults)
        for fault in faults:
            if fault.after_s is not None:
                self._spawn(self._trigger_later(fault))
        async with self._lock:
            await self._execute(self._script.add_faults(faults))

    async def stop(self) -> None:
        """Drop what is still to come."""
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
                case EmitEvent(event, 0.0):
                    await self._send(orjson.dumps(event).decode())
                case EmitEvent(event, delay_s):
                    self._spawn(self._send_later(event, delay_s))
                case EmitText(text):
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

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
