"""The client's WebSocket: aiohttp parses, routes and authorises the request, then picows takes the connection over.

The only module that knows both libraries. aiohttp's handler stays pending while the socket lives: it is the session, so
that its keep-alive timer, its access log and its shutdown go on working. Undocumented parts in use, held by
tests/transport/test_upgrade.py: aiohttp's `RequestHandler.set_parser` (its own WebSocketResponse uses it) and
`connection_lost`; picows' `WSProtocol` and the order of its constructor's arguments.
"""

import asyncio
import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any, cast

from aiohttp import web
from picows import WSAutoPingStrategy, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not in the stubs

from relay.errors import BadRequest
from relay.transport.read_budget import LONG_MESSAGE_READ_BYTES, BudgetedReader, ReadBudget, ThrottledReader
from relay.transport.websocket import WebSocketConnection, noop

_READ_BUFFER_BYTES = 2048
"""What one read brings at first; it doubles whenever a read fills it."""
_KERNEL_BUFFER_BYTES = 64 * 1024
"""What the kernel keeps of a client that is not read. picows reads all there is at once into a buffer that grows to it
and never shrinks; 64 KiB let 200 KiB/s through over a line with 300 ms of delay, more than any microphone."""
_EARLY_DATA_BYTES = 1024
"""What is taken at once of the frames that came with the request: others have their turn before the next."""

_logger = logging.getLogger("picows.server")


@dataclass(frozen=True, slots=True)
class Keepalive:
    """A client that has been quiet for `interval_s` is pinged, and is gone if nothing comes within `timeout_s`."""

    interval_s: float = 20.0
    timeout_s: float = 10.0


class _UpgradedResponse(web.StreamResponse):
    """What the handler returns after the socket is gone: aiohttp must write nothing more."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _ServerProtocol(WSProtocol):  # type: ignore[misc]
    """picows' server side on a connection that aiohttp accepted; aiohttp is told when it is lost."""

    def __init__(
        self,
        handler: Any,
        listener: WebSocketConnection,
        keepalive: Keepalive,
        headers: dict[str, str],
    ) -> None:
        def factory(_: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), listener)

        super().__init__(
            None,
            None,
            False,
            factory,
            _logger,
            True,
            None,
            True,
            keepalive.interval_s,
            keepalive.timeout_s,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # pings are answered by the listener, which knows whether the peer reads
            listener.max_message_bytes,
            None,
            _READ_BUFFER_BYTES,
        )
        self._handler = handler
        self._listener = listener
        self._early_data = memoryview(b"")
        self._budgeted_reader: BudgetedReader | None = None
        self._is_throttled = False

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._handler.connection_lost(exc)
        if self._budgeted_reader is not None:
            self._budgeted_reader.release()
        # Cycles would keep what has been read of a long message until the garbage collector finds them.
        self._budgeted_reader = None
        self._listener.throttle_reads = self._listener.update_read_budget = noop
        self.__dict__.pop("get_buffer", None)
        self.__dict__.pop("buffer_updated", None)

    def use_read_budget(self, budget: ReadBudget, owner: str) -> None:
        """Take the room for long messages from `budget`; the connection is paused while there is none."""
        reader = self._budgeted_reader = BudgetedReader(
            owner, budget, self._listener, super().buffer_updated, self.limit_read_size, super().get_buffer
        )
        self._listener.update_read_budget = reader.update_budget
        self.buffer_updated = reader.buffer_updated
        self.transport.underlying_transport.set_protocol(self)  # uvloop looks the method up here, and only here

    def limit_read_size(self) -> None:
        """Let no read bring more than `LONG_MESSAGE_READ_BYTES`: what is read at once is also parsed at once, and
        picows'
        buffer stays as long as it was for the longest message."""
        if "get_buffer" not in self.__dict__:
            get_whole_buffer: Callable[[int], memoryview] = super().get_buffer

            def get_limited_buffer(hint: int) -> memoryview:
                return get_whole_buffer(hint)[:LONG_MESSAGE_READ_BYTES]

            self.get_buffer = get_limited_buffer
            self.transport.underlying_transport.set_protocol(self)

    def throttle_reads(self) -> None:
        """Read little at a time from here on (`ThrottledReader`)."""
        if self._is_throttled:
            return
        self._is_throttled = True
        transport = self.transport.underlying_transport
        throttled = ThrottledReader(transport, self._listener, super().get_buffer, self.buffer_updated)
        self.get_buffer, self.buffer_updated = throttled.get_buffer, throttled.buffer_updated
        transport.set_protocol(self)

    def feed_early_data(self, data: bytes) -> None:
        """Take what came behind the head of the request: little at a time, and nothing while the client is paused."""
        self._early_data = memoryview(data)
        self._listener.on_reading_resumed = self._feed_next_early_data
        self._feed_next_early_data()

    @property
    def has_early_data(self) -> bool:
        """Whether some of it is still to be taken."""
        return bool(self._early_data)

    def _feed_next_early_data(self) -> None:
        listener, transport = self._listener, self.transport.underlying_transport
        if self.transport.is_disconnected or listener.is_reading_paused or not self._early_data:
            return
        chunk, self._early_data = self._early_data[:_EARLY_DATA_BYTES], self._early_data[_EARLY_DATA_BYTES:]
        self.feed_data(bytes(chunk))
        if self._early_data:
            transport.pause_reading()  # what comes later stays behind it
            asyncio.get_running_loop().call_soon(self._feed_next_early_data)
        elif not listener.is_reading_paused:
            listener.on_reading_resumed = noop
            listener.resume_reading("early data")

    def feed_data(self, data: bytes) -> None:
        """Give `data` to picows as if it had come from the socket."""
        view = memoryview(data)
        while view:
            room = self.get_buffer(-1)
            n_bytes = min(len(room), len(view))
            room[:n_bytes] = view[:n_bytes]
            self.buffer_updated(n_bytes)
            view = view[n_bytes:]


class _EarlyDataParser:
    """A parser for aiohttp that passes on what arrived behind the head, before the hand-over."""

    def __init__(self, protocol: _ServerProtocol) -> None:
        self._protocol = protocol

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._protocol.feed_early_data(bytes(data))
        return False, b""

    def feed_eof(self) -> None: ...

    def set_exception(self, *_: object) -> None: ...


def check_upgrade(request: web.Request) -> None:
    """Raise BadRequest unless `request` is a WebSocket upgrade (RFC 6455, 4.2.1)."""
    headers = request.headers
    if request.method != "GET" or "websocket" not in headers.get("Upgrade", "").lower():
        raise BadRequest("this is a WebSocket address: connect with ws:// or wss://", "Upgrade")
    if "upgrade" not in headers.get("Connection", "").lower():
        raise BadRequest("the Connection header must say Upgrade", "Connection")
    if headers.get("Sec-WebSocket-Version") != "13":
        raise BadRequest("only WebSocket version 13 is spoken here", "Sec-WebSocket-Version")
    try:
        key = base64.b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
    except ValueError:  # no base64, or not even ASCII
        key = b""
    if len(key) != 16:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64", "Sec-WebSocket-Key")


def upgrade_to_websocket(
    request: web.Request,
    socket: WebSocketConnection,
    keepalive: Keepalive,
    *,
    subprotocol: str | None = None,
    read_budget: tuple[ReadBudget, str] | None = None,
) -> bool:
    """Answer the upgrade and hand the connection to `socket`. Returns False if the client has left already.

    `read_budget`: the budget for unfinished messages, and whose they are, for a client whose messages may be long.
    Messages may reach the socket's callbacks before this returns. The request must have passed `check_upgrade`.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        return False
    headers = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol else {}
    protocol = _ServerProtocol(request.protocol, socket, keepalive, headers)
    protocol.connection_made(transport)
    transport.set_protocol(protocol)
    socket.throttle_reads = protocol.throttle_reads
    transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, _KERNEL_BUFFER_BYTES)
    # picows reads a head of our own making: whatever else the client's held is aiohttp's business and is done with.
    key = request.headers["Sec-WebSocket-Key"].strip().encode("ascii")
    protocol.feed_data(
        b"GET / HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    if read_budget is not None:
        protocol.use_read_budget(*read_budget)
    request.protocol.set_parser(cast(Any, _EarlyDataParser(protocol)))
    if not protocol.has_early_data and not socket.is_reading_paused:
        transport.resume_reading()  # aiohttp pauses after 64 KiB of early data
    return True


def upgraded_response() -> web.StreamResponse:
    """What the handler must return once the socket is closed, or when `upgrade_to_websocket` returned False."""
    return _UpgradedResponse()
