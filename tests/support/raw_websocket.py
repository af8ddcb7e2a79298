"""A WebSocket client made of bytes, for frames that no library would send, and the relay's end of such a connection."""

import asyncio
import base64
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from websockets.frames import Frame, Opcode

from relay.app.middleware import error_response
from relay.errors import RelayError
from relay.transport.read_budget import ReadBudget
from relay.transport.upgrade import Keepalive, check_upgrade, upgrade_to_websocket, upgraded_response
from relay.transport.websocket import StrictTextListener, WebSocketConnection
from tests.support.raw_requests import TIMEOUT_S, RawConnection

MAX_BYTES = 1000
"""The message limit of listeners made here."""


class RecordingConnection(StrictTextListener):
    """Keeps what it is told; `closed` is done with the code and reason."""

    def __init__(self, max_message_bytes: int = MAX_BYTES) -> None:
        super().__init__(max_message_bytes)
        self.messages: list[str | bytes] = []
        self.ends: list[tuple[int, str]] = []
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self.on_text = lambda message: self.messages.append(message.decode(errors="replace"))
        self.on_binary = self.messages.append
        self.on_closed = self._ended

    def _ended(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        if not self.closed.done():
            self.closed.set_result((code, reason))

    async def wait_closed(self) -> tuple[int, str]:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.closed


@dataclass
class UpgradeServer:
    """A server whose every WebSocket is a new listener, kept in `listeners`."""

    port: int = 0
    kind: type[RecordingConnection] = RecordingConnection
    listeners: "asyncio.Queue[RecordingConnection]" = field(default_factory=asyncio.Queue)
    subprotocol: str | None = None
    keepalive: Keepalive = Keepalive()
    read_within: tuple[ReadBudget, str] | None = None
    max_bytes: int = MAX_BYTES
    request: web.Request | None = None
    before_upgrade: asyncio.Event | None = None
    upgrading: asyncio.Event = field(default_factory=asyncio.Event)
    runner: Any = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.request = request
        check_upgrade(request)
        self.upgrading.set()
        if self.before_upgrade is not None:
            await self.before_upgrade.wait()
        listener = self.kind(self.max_bytes)
        if upgrade_to_websocket(
            request,
            listener,
            self.keepalive,
            subprotocol=self.subprotocol,
            read_budget=self.read_within,
        ):
            self.listeners.put_nowait(listener)
            await listener.closed
        return upgraded_response()

    async def listener(self) -> RecordingConnection:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.listeners.get()


@asynccontextmanager
async def upgrade_server(**options: Any) -> AsyncIterator[UpgradeServer]:
    """The relay's end on a free port: `/ws` upgrades, `/plain` answers."""
    end = UpgradeServer(**options)
    app = web.Application(middlewares=[_errors_as_json])
    app.router.add_get("/ws", end.handle)
    app.router.add_get("/plain", _plain)
    runner = web.AppRunner(app, keepalive_timeout=15, shutdown_timeout=1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    end.runner, end.port = runner, runner.addresses[0][1]
    try:
        yield end
    finally:
        await runner.cleanup()


async def _plain(request: web.Request) -> web.Response:
    return web.Response(text="plain")


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RelayError as error:
        return error_response(request, error)


def upgrade_request(path: str = "/ws", **changes: str | None) -> bytes:
    """The head of an upgrade; `changes` replace or (None) leave out headers, `_` stands for `-`."""
    headers: dict[str, str | None] = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()


class RawClient(RawConnection):
    """A WebSocket client, before and after its upgrade."""

    async def upgrade(self, then: bytes = b"", **changes: str | None) -> bytes:
        """Ask for the upgrade, with `then` right behind; returns the head of the answer."""
        self.writer.write(upgrade_request(**changes) + then)
        return await self.head()

    def send(self, *frames: Frame | bytes) -> None:
        self.writer.write(b"".join(masked(frame) for frame in frames))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. (8, b"") also for a connection that ends without a close frame."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                first, second = await self.reader.readexactly(2)
                assert first & 0x70 == 0, "a reserved bit is set"
                assert second & 0x80 == 0, "a server does not mask"
                length = second
                if length == 126:
                    [length] = struct.unpack("!H", await self.reader.readexactly(2))
                elif length == 127:
                    [length] = struct.unpack("!Q", await self.reader.readexactly(8))
                return first & 0x0F, await self.reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                return 8, b""

    async def close_code(self) -> int:
        """The code of the close frame that comes; whatever comes before is passed over."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                return int.from_bytes(payload[:2]) if payload else 1006

    async def close(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def raw_client(end: UpgradeServer, **changes: str | None) -> AsyncIterator[tuple[RawClient, WebSocketConnection]]:
    """An upgraded connection and the listener at the other end of it."""
    client = await RawClient.open(end.port)
    assert (await client.upgrade(**changes)).startswith(b"HTTP/1.1 101 ")
    try:
        yield client, await end.listener()
    finally:
        await client.close()


class AnyFrame(Frame):
    """A frame that nobody checks before it is sent."""

    def check(self) -> None:
        """Leave that to the receiver."""


def masked(frame: Frame | bytes) -> bytes:
    """A frame as a client sends it; bytes are sent as they are."""
    return frame if isinstance(frame, bytes) else frame.serialize(mask=True)


def text(payload: bytes | str, fin: bool = True, **bits: bool) -> Frame:
    return AnyFrame(Opcode.TEXT, payload.encode() if isinstance(payload, str) else payload, fin, **bits)


def binary(payload: bytes, fin: bool = True, **bits: bool) -> Frame:
    return AnyFrame(Opcode.BINARY, payload, fin, **bits)


def continuation(payload: bytes, fin: bool = True, **bits: bool) -> Frame:
    """A continuation."""
    return AnyFrame(Opcode.CONT, payload, fin, **bits)


def ping(payload: bytes = b"") -> Frame:
    return AnyFrame(Opcode.PING, payload)


def pong(payload: bytes = b"") -> Frame:
    return AnyFrame(Opcode.PONG, payload)


def close(code: int | None, reason: str = "") -> Frame:
    return AnyFrame(Opcode.CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())
