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
from relay.transport.read_budget import LONG_READ_BYTES, ReadBudget, ReadShare, SparingReader
from relay.transport.websocket import MessageListener, noop

_READ_BUFFER_BYTES = 2048
"""What one read brings at first; it doubles whenever a read fills it."""
_KERNEL_BUFFER_BYTES = 64 * 1024
"""What the kernel keeps of a client that is not read. picows reads all there is at once into a buffer that grows to it
and never shrinks; 64 KiB let 200 KiB/s through over a line with 300 ms of delay, more than any microphone."""
_EARLY_BYTES = 1024
"""What is taken at once of the frames that came with the request: others have their turn before the next."""

_logger = logging.getLogger("picows.server")


@dataclass(frozen=True, slots=True)
class Keepalive:
    """A client that has been quiet for `interval_s` is pinged, and is gone if nothing comes within `timeout_s`."""

    interval_s: float = 20.0
    timeout_s: float = 10.0


class _Upgraded(web.StreamResponse):
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
        listener: MessageListener,
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
        self._early = memoryview(b"")
        self._share: ReadShare | None = None
        self._reads_sparingly = False

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._handler.connection_lost(exc)
        if self._share is not None:
            self._share.release()
        # Cycles would keep what has been read of a long message until the garbage collector finds them.
        self._share = None
        self._listener.read_sparingly = self._listener.recount = noop
        self.__dict__.pop("get_buffer", None)
        self.__dict__.pop("buffer_updated", None)

    def read_within(self, budget: ReadBudget, owner: str) -> None:
        """Take the room for long messages from `budget`; the connection is paused while there is none."""
        share = self._share = ReadShare(
            owner, budget, self._listener, super().buffer_updated, self.read_in_pieces, super().get_buffer
        )
        self._listener.recount = share.recount
        self.buffer_updated = share.buffer_updated
        self.transport.underlying_transport.set_protocol(self)  # uvloop looks the method up here, and only here

    def read_in_pieces(self) -> None:
        """Let no read bring more than `LONG_READ_BYTES`: what is read at once is also parsed at once, and picows'
        buffer stays as long as it was for the longest message."""
        if "get_buffer" not in self.__dict__:
            take_all: Callable[[int], memoryview] = super().get_buffer

            def take_piece(hint: int) -> memoryview:
                return take_all(hint)[:LONG_READ_BYTES]

            self.get_buffer = take_piece
            self.transport.underlying_transport.set_protocol(self)

    def read_sparingly(self) -> None:
        """Read little at a time from here on (`SparingReader`)."""
        if self._reads_sparingly:
            return
        self._reads_sparingly = True
        line = self.transport.underlying_transport
        sparing = SparingReader(line, self._listener, super().get_buffer, self.buffer_updated)
        self.get_buffer, self.buffer_updated = sparing.get_buffer, sparing.buffer_updated
        line.set_protocol(self)

    def take_early(self, data: bytes) -> None:
        """Take what came behind the head of the request: little at a time, and nothing while the client is paused."""
        self._early = memoryview(data)
        self._listener.on_resumed = self._take_more
        self._take_more()

    @property
    def has_early(self) -> bool:
        """Whether some of it is still to be taken."""
        return bool(self._early)

    def _take_more(self) -> None:
        listener, line = self._listener, self.transport.underlying_transport
        if self.transport.is_disconnected or listener.is_paused or not self._early:
            return
        piece, self._early = self._early[:_EARLY_BYTES], self._early[_EARLY_BYTES:]
        self.take(bytes(piece))
        if self._early:
            line.pause_reading()  # what comes later stays behind it
            asyncio.get_running_loop().call_soon(self._take_more)
        elif not listener.is_paused:
            listener.on_resumed = noop
            listener.resume_reading("early data")

    def take(self, data: bytes) -> None:
        """Give `data` to picows as if it had come from the socket."""
        view = memoryview(data)
        while view:
            room = self.get_buffer(-1)
            n_bytes = min(len(room), len(view))
            room[:n_bytes] = view[:n_bytes]
            self.buffer_updated(n_bytes)
            view = view[n_bytes:]


class _EarlyData:
    """A parser for aiohttp that passes on what arrived behind the head, before the hand-over."""

    def __init__(self, protocol: _ServerProtocol) -> None:
        self._protocol = protocol

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._protocol.take_early(bytes(data))
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


def take_over(
    request: web.Request,
    socket: MessageListener,
    keepalive: Keepalive,
    *,
    subprotocol: str | None = None,
    read_within: tuple[ReadBudget, str] | None = None,
) -> bool:
    """Answer the upgrade and hand the connection to `socket`. Returns False if the client has left already.

    `read_within`: the budget for unfinished messages, and whose they are, for a client whose messages may be long.
    Messages may reach the socket's callbacks before this returns. The request must have passed `check_upgrade`.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        return False
    headers = {"Sec-WebSocket-Protocol": subprotocol} if subprotocol else {}
    protocol = _ServerProtocol(request.protocol, socket, keepalive, headers)
    protocol.connection_made(transport)
    transport.set_protocol(protocol)
    socket.read_sparingly = protocol.read_sparingly
    transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, _KERNEL_BUFFER_BYTES)
    # picows reads a head of our own making: whatever else the client's held is aiohttp's business and is done with.
    key = request.headers["Sec-WebSocket-Key"].strip().encode("ascii")
    protocol.take(
        b"GET / HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    if read_within is not None:
        protocol.read_within(*read_within)
    request.protocol.set_parser(cast(Any, _EarlyData(protocol)))
    if not protocol.has_early and not socket.is_paused:
        transport.resume_reading()  # aiohttp pauses after 64 KiB of early data
    return True


def upgraded_response() -> web.StreamResponse:
    """What the handler must return once the socket is closed, or when `take_over` returned False."""
    return _Upgraded()
