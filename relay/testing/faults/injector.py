"""Carries a misbehaviour out over a connection."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import orjson

from relay.json_types import JsonObject
from relay.testing.faults.script import Action, Close, Misbehaviour, Send, SendRaw, Wait
from relay.testing.faults.spec import FaultSpec

BROKEN = 1006
"""No code that can be sent: the connection just ends."""


class FaultyLine:
    """Sends events as a `Misbehaviour` would have them, in order; `stop` ends what is still to come."""

    def __init__(
        self,
        misbehaviour: Misbehaviour,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int, str], Awaitable[None]],
        abort: Callable[[], object],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`send` a text message, `close` with a close frame, `abort`: break the connection underneath."""
        self._misbehaviour = misbehaviour
        self._send, self._close, self._abort = send, close, abort
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        for fault in misbehaviour.timed:
            self._spawn(self._strike_later(fault))

    async def send(self, event: JsonObject) -> None:
        """Send an event, or what comes in its place."""
        async with self._turn:
            await self._carry_out(self._misbehaviour.send(event))

    async def add(self, faults: Iterable[FaultSpec]) -> None:
        """More faults, from now on."""
        faults = list(faults)
        for fault in faults:
            if fault.after_s is not None:
                self._spawn(self._strike_later(fault))
        async with self._turn:
            await self._carry_out(self._misbehaviour.add(faults))

    async def stop(self) -> None:
        """Drop what is still to come."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _strike_later(self, fault: FaultSpec) -> None:
        await self._sleep(fault.after_s or 0.0)
        async with self._turn:
            await self._carry_out(self._misbehaviour.strike(fault))

    async def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(event, 0.0):
                    await self._send(orjson.dumps(event).decode())
                case Send(event, delay_s):
                    self._spawn(self._send_later(event, delay_s))
                case SendRaw(text):
                    await self._send(text)
                case Wait(seconds):
                    await self._sleep(seconds)
                case Close(code, reason) if code != BROKEN:
                    await self._close(code, reason)
                case Close():
                    self._abort()

    async def _send_later(self, event: JsonObject, delay_s: float) -> None:
        await self._sleep(delay_s)
        await self._send(orjson.dumps(event).decode())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
