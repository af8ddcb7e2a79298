"""What a session sends its client: in order, by one writer, through the faults that the client asked for."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from relay.local_engine.realtime.commands import HangUp
from relay.testing.faults import FaultSpec, FaultyLine, Misbehaviour

MOST_UNSENT_BYTES = 64 * 1024 * 1024
"""A client that reads nothing while it goes on asking is cut off here; no close frame would reach it."""
_PAUSE_UNSENT_BYTES = 4 * 1024 * 1024

log = logging.getLogger(__name__)


class Outgoing:
    """The events of one connection that are not sent yet."""

    def __init__(
        self, socket: web.WebSocketResponse, abort: Callable[[], None], misbehaviour: Misbehaviour, *, is_faulty: bool
    ) -> None:
        """`abort` drops the connection at once; `is_faulty`: it misbehaves from the start."""
        self._socket = socket
        self._abort = abort
        self._line = FaultyLine(misbehaviour, self._send, self._close, abort)
        self._is_faulty = is_faulty
        self._unsent: deque[bytes | HangUp] = deque()
        self._unsent_bytes = 0
        self._wake = asyncio.Event()
        self._sent_some = asyncio.Event()

    def post(self, event: Mapping[str, Any]) -> None:
        """Send an event after all before it."""
        data = orjson.dumps(event)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._wake.set()
        if self._unsent_bytes > MOST_UNSENT_BYTES:
            log.warning("a client does not read what it asks for; its connection is dropped")
            self._unsent.clear()
            self._abort()

    def hang_up(self, effect: HangUp) -> None:
        """Close once all before it is sent."""
        self._unsent.append(effect)
        self._wake.set()

    async def add_faults(self, faults: Sequence[FaultSpec]) -> None:
        """Misbehave from now on."""
        self._is_faulty = True
        await self._line.add(faults)

    async def wait_for_room(self) -> None:
        """Wait while the client has much to read."""
        while self._unsent_bytes > _PAUSE_UNSENT_BYTES:
            self._sent_some.clear()
            await self._sent_some.wait()

    async def run(self) -> None:
        """The only writer of the socket: keeps the order, and lets everything else go on while the client reads."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._unsent:
                data = self._unsent.popleft()
                if isinstance(data, HangUp):
                    await self._close(data.code, data.reason)
                    return
                if self._is_faulty:
                    await self._line.send(orjson.loads(data))
                else:
                    await self._socket.send_frame(data, WSMsgType.TEXT)
                self._unsent_bytes -= len(data)
                self._sent_some.set()

    async def stop(self) -> None:
        """Let no fault outlive the connection."""
        await self._line.stop()

    async def _send(self, text: str) -> None:
        if not self._socket.closed:  # a client that has gone is no trouble
            await self._socket.send_frame(text.encode(), WSMsgType.TEXT)

    async def _close(self, code: int, reason: str) -> None:
        await self._socket.close(code=code, message=reason.encode())
