"""The WebSocket upgrade: aiohttp parses, routes and authorizes the request, then picows takes over the connection.

Only this module uses both libraries. aiohttp's handler stays pending for the whole session, so that its keep-alive
timer, access log and shutdown keep working. Undocumented APIs in use, held by tests/transport/test_upgrade.py:
aiohttp's `RequestHandler.set_parser` (its own WebSocketResponse uses it) and `connection_lost`; picows' `WSProtocol`
and the order of its constructor's arguments.
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
"""The receive buffer in the kernel. picows reads all of it at once into a buffer that grows and never shrinks. 64 KiB
allow 200 KiB/s over a connection with 300 ms of delay, more than any microphone needs."""
_EARLY_DATA_BYTES = 1024
"""How much early data is parsed at once; other connections run before the next piece."""

_logger = logging.getLogger("picows.server")


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Ping a client that sent nothing for `interval_s`; disconnect it if nothing arrives within `timeout_s`."""

    interval_s: float = 20.0
    timeout_s: float = 10.0


class _UpgradedResponse(web.StreamResponse):
    """The handler's return value after the connection is gone; aiohttp must not write anything."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _ServerProtocol(WSProtocol):  # type: ignore[misc]
    """picows' server protocol on a connection that aiohttp accepted; aiohttp is notified when it is lost."""

    def __init__(
        self,
        handler: Any,
        connection: WebSocketConnection,
        keepalive: Keepalive,
        headers: dict[str, str],
    ) -> None:
        def factory(_: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), connection)

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
            False,  # WebSocketConnection answers pings: it knows whether the peer reads
            connection.max_message_bytes,
            None,
            _READ_BUFFER_BYTES,
        )
        self._handler = handler
        self._connection = connection
        self._early_data = memoryview(b"")
        self._budgeted_reader: BudgetedReader | None = None
        self._is_throttled = False

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._handler.connection_lost(exc)
        if self._budgeted_reader is not None:
            self._budgeted_reader.release()
        # Reference cycles would keep the buffer of a long message until the garbage collector runs.
        self._budgeted_reader = None
        self._connection.throttle_reads = self._connection.update_read_budget = noop
        self.__dict__.pop("get_buffer", None)
        self.__dict__.pop("buffer_updated", None)

    def use_read_budget(self, budget: ReadBudget, owner: str) -> None:
        """Count long messages in `budget`; reading pauses while the budget is used up."""
        reader = self._budgeted_reader = BudgetedReader(
            owner, budget, self._connection, super().buffer_updated, self.limit_read_size, super().get_buffer
        )
        self._connection.update_read_budget = reader.update_budget
        self.buffer_updated = reader.buffer_updated
        self.transport.underlying_transport.set_protocol(self)  # uvloop looks up the method only in this call

    def limit_read_size(self) -> None:
        """Read at most `LONG_MESSAGE_READ_BYTES` at once: it is parsed at once, and picows' buffer never shrinks."""
        if "get_buffer" not in self.__dict__:
            get_whole_buffer: Callable[[int], memoryview] = super().get_buffer

            def get_limited_buffer(hint: int) -> memoryview:
                return get_whole_buffer(hint)[:LONG_MESSAGE_READ_BYTES]

            self.get_buffer = get_limited_buffer
            self.transport.underlying_transport.set_protocol(self)

    def throttle_reads(self) -> None:
        """Read small pieces from now on (`ThrottledReader`)."""
        if self._is_throttled:
            return
        self._is_throttled = True
        transport = self.transport.underlying_transport
        throttled_reader = ThrottledReader(transport, self._connection, super().get_buffer, self.buffer_updated)
        self.get_buffer, self.buffer_updated = throttled_reader.get_buffer, throttled_reader.buffer_updated
        transport.set_protocol(self)

    def feed_early_data(self, data: bytes) -> None:
        """Parse data that arrived after the request head: in small pieces, and none while reading is paused."""
        self._early_data = memoryview(data)
        self._connection.on_reading_resumed = self._feed_next_early_data
        self._feed_next_early_data()

    @property
    def has_early_data(self) -> bool:
        """Whether some early data is not parsed yet."""
        return bool(self._early_data)

    def _feed_next_early_data(self) -> None:
        connection, transport = self._connection, self.transport.underlying_transport
        if self.transport.is_disconnected or connection.is_reading_paused or not self._early_data:
            return
        chunk, self._early_data = self._early_data[:_EARLY_DATA_BYTES], self._early_data[_EARLY_DATA_BYTES:]
        self.feed_data(bytes(chunk))
        if self._early_data:
            transport.pause_reading()  # later data must be parsed after it
            asyncio.get_running_loop().call_soon(self._feed_next_early_data)
        elif not connection.is_reading_paused:
            connection.on_reading_resumed = noop
            connection.resume_reading("early data")

    def feed_data(self, data: bytes) -> None:
        """Pass `data` to picows as if it had been read from the socket."""
        view = memoryview(data)
        while view:
            room = self.get_buffer(-1)
            n_bytes = min(len(room), len(view))
            room[:n_bytes] = view[:n_bytes]
            self.buffer_updated(n_bytes)
            view = view[n_bytes:]


class _EarlyDataParser:
    """A parser for aiohttp that forwards data received after the request head and before the hand-over."""

    def __init__(self, protocol: _ServerProtocol) -> None:
        self._protocol = protocol

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._protocol.feed_early_data(bytes(data))
        return False, b""

    def feed_eof(self) -> None: ...

    def set_exception(self, *_: object) -> None: ...


def is_websocket_upgrade(request: web.Request) -> bool:
    """Return whether a request asks for a WebSocket upgrade."""
    return "websocket" in request.headers.get("Upgrade", "").lower()


def check_upgrade(request: web.Request) -> None:
    """Raise BadRequest unless `request` is a WebSocket upgrade (RFC 6455, 4.2.1)."""
    headers = request.headers
    if request.method != "GET" or not is_websocket_upgrade(request):
        raise BadRequest("This is a WebSocket endpoint; connect with ws:// or wss://.", "Upgrade")
    if "upgrade" not in headers.get("Connection", "").lower():
        raise BadRequest("The Connection header must contain Upgrade.", "Connection")
    if headers.get("Sec-WebSocket-Version") != "13":
        raise BadRequest("Sec-WebSocket-Version must be 13.", "Sec-WebSocket-Version")
    try:
        key = base64.b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
    except ValueError:  # not base64, or not ASCII
        key = b""
    if len(key) != 16:
        raise BadRequest("Sec-WebSocket-Key must be 16 bytes in base64.", "Sec-WebSocket-Key")


def upgrade_to_websocket(
    request: web.Request,
    socket: WebSocketConnection,
    keepalive: Keepalive,
    *,
    subprotocol: str | None = None,
    read_budget: tuple[ReadBudget, str] | None = None,
) -> bool:
    """Accept the upgrade and hand the connection over to `socket`. Returns False if the client has disconnected.

    `read_budget`: the budget for unfinished messages and their owner, for a client that may send long messages.
    Messages may reach the callbacks of `socket` before this returns. Call `check_upgrade` first.
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
    # picows parses a minimal request head: aiohttp has handled the client's.
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
    """Return the handler's response after the socket has closed, or after `upgrade_to_websocket` returned False."""
    return _UpgradedResponse()
