"""Send a session's events to its client: in order, with one writer, through the injected faults."""

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
"""A client that sends requests without reading is disconnected at this bound; no close frame would reach it."""
_PAUSE_AT_UNSENT_BYTES = 4 * 1024 * 1024

_log = logging.getLogger(__name__)


class EventSender:
    """The queue of one connection's unsent events, and its writer."""

    def __init__(
        self, socket: web.WebSocketResponse, abort: Callable[[], None], fault_script: FaultScript, *, is_faulty: bool
    ) -> None:
        """`abort` drops the TCP connection at once; `is_faulty`: the script has faults from the start."""
        self._socket = socket
        self._abort = abort
        self._injector = FaultInjector(fault_script, self._send, self._close, abort)
        self._is_faulty = is_faulty
        self._unsent: deque[bytes | CloseConnection] = deque()
        self._unsent_bytes = 0
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    def enqueue(self, event: Mapping[str, Any]) -> None:
        """Queue an event. Drops the connection if too much is unsent."""
        data = orjson.dumps(event)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._wake.set()
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            _log.warning("client reads too slowly, connection dropped unsent_bytes=%d", self._unsent_bytes)
            self._unsent.clear()
            self._abort()

    def close_when_sent(self, command: CloseConnection) -> None:
        """Close the connection once all events before are sent."""
        self._unsent.append(command)
        self._wake.set()

    async def add_faults(self, faults: Sequence[FaultSpec]) -> None:
        """Apply these faults from now on."""
        self._is_faulty = True
        await self._injector.add_faults(faults)

    async def drain(self) -> None:
        """Wait while many bytes are unsent."""
        while self._unsent_bytes > _PAUSE_AT_UNSENT_BYTES:
            self._progress.clear()
            await self._progress.wait()

    async def run(self) -> None:
        """Write queued events until cancelled or closed. No other task writes to the socket."""
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
        """Cancel the faults that are still pending."""
        await self._injector.stop()

    async def _send(self, text: str) -> None:
        if not self._socket.closed:
            await self._socket.send_frame(text.encode(), WSMsgType.TEXT)

    async def _close(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())
