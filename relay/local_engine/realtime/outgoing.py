"""What a session sends its client: in order, by one writer, through the faults that the client asked for."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from relay.local_engine.realtime.commands import CloseConnection
from relay.testing.faults import FaultInjector, FaultScript, FaultSpec

MAX_UNSENT_BYTES = 64 * 1024 * 1024
"""A client that reads nothing while it goes on asking is cut off here; no close frame would reach it."""
_PAUSE_AT_UNSENT_BYTES = 4 * 1024 * 1024

_log = logging.getLogger(__name__)


class EventSender:
    """The events of one connection that are not sent yet."""

    def __init__(
        self, socket: web.WebSocketResponse, abort: Callable[[], None], fault_script: FaultScript, *, is_faulty: bool
    ) -> None:
        """`abort` drops the connection at once; `is_faulty`: it misbehaves from the start."""
        self._socket = socket
        self._abort = abort
        self._injector = FaultInjector(fault_script, self._send, self._close, abort)
        self._is_faulty = is_faulty
        self._unsent: deque[bytes | CloseConnection] = deque()
        self._unsent_bytes = 0
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    def enqueue(self, event: Mapping[str, Any]) -> None:
        """Send an event after all before it."""
        data = orjson.dumps(event)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._wake.set()
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            _log.warning("a client does not read what it asks for; its connection is dropped")
            self._unsent.clear()
            self._abort()

    def close_when_sent(self, command: CloseConnection) -> None:
        """Close once all before it is sent."""
        self._unsent.append(command)
        self._wake.set()

    async def add_faults(self, faults: Sequence[FaultSpec]) -> None:
        """Misbehave from now on."""
        self._is_faulty = True
        await self._injector.add_faults(faults)

    async def drain(self) -> None:
        """Wait while the client has much to read."""
        while self._unsent_bytes > _PAUSE_AT_UNSENT_BYTES:
            self._progress.clear()
            await self._progress.wait()

    async def run(self) -> None:
        """The only writer of the socket: keeps the order, and lets everything else go on while the client reads."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._unsent:
                data = self._unsent.popleft()
                if isinstance(data, CloseConnection):
                    await self._close(data.code, data.reason)
                    return
                if self._is_faulty:
                    await self._injector.send(orjson.loads(data))
                else:
                    await self._socket.send_frame(data, WSMsgType.TEXT)
                self._unsent_bytes -= len(data)
                self._progress.set()

    async def stop(self) -> None:
        """Let no fault outlive the connection."""
        await self._injector.stop()

    async def _send(self, text: str) -> None:
        if not self._socket.closed:  # a client that has gone is no trouble
            await self._socket.send_frame(text.encode(), WSMsgType.TEXT)

    async def _close(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())
