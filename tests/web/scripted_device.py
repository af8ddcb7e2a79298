"""A relay that does what a test says: serves the page, and speaks the device protocol by script."""

import asyncio
import contextlib
import math
import time
from array import array
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from relay.web import CONTENT_SECURITY_POLICY, STATIC_DIR, static_files
from tests.support.device_schema import check

TIMEOUT_S = 20.0
RATE_HZ = 24_000
PCM = {"format": "pcm16", "rate": RATE_HZ}

Message = dict[str, Any]


def tone(ms: int, hz: float = 330.0, amplitude: float = 0.4, rate_hz: int = RATE_HZ) -> bytes:
    """PCM16 of a sine."""
    step = 2 * math.pi * hz / rate_hz
    samples = (round(32767 * amplitude * math.sin(step * i)) for i in range(rate_hz * ms // 1000))
    return array("h", samples).tobytes()


class DeviceSession:
    """One connection of the page, driven by the test; everything that comes from the page is kept, with its time."""

    def __init__(self, socket: web.WebSocketResponse, query: dict[str, str]) -> None:
        self.socket = socket
        self.query = query
        self.messages: list[Message] = []
        self.frames: list[tuple[float, bytes]] = []
        self.closed = asyncio.Event()
        self._news = asyncio.Condition()
        self._goodbye: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def send(self, kind: str, **fields: Any) -> None:
        """Send a message of plain type."""
        await self.socket.send_json(check({"type": kind, **fields}, "toClient"))

    async def event(self, name: str, **fields: Any) -> None:
        """Send a named event."""
        await self.send("event", name=name, **fields)

    async def begin(self, **ready: Any) -> None:
        """Open the session as the relay does: AIConnected, and `ready` to the page's hello."""
        await self.event("AIConnected", sessionId="s_test_1", protocol=1, input=PCM, output=PCM)
        await self.expect("hello")
        fields = {
            "voice": "marin",
            "turn": "server_vad",
            "maxAheadMs": 1000,
            "duplex": "full",
            "language": None,
            "tools": [],
        }
        await self.send("ready", input=PCM, output=PCM, **{**fields, **ready})

    async def audio(self, item_id: str, pcm: bytes, *, end: bool = True, chunk_ms: int = 100) -> None:
        """Send an item's audio in chunks, without pacing."""
        await self.send("audioStart", itemId=item_id)
        size = chunk_ms * RATE_HZ // 1000 * 2
        for at in range(0, len(pcm), size):
            await self.socket.send_bytes(pcm[at : at + size])
        if end:
            await self.send("audioEnd", itemId=item_id, totalMs=len(pcm) // 2 * 1000 // RATE_HZ)

    async def expect(self, kind: str, where: Callable[[Message], bool] = lambda _: True) -> Message:
        """Wait for the first message of this type that fits, among those that came and those to come."""

        def found() -> Message | None:
            return next((m for m in self.messages if m["type"] == kind and where(m)), None)

        await self.until(lambda: found() is not None, f"{kind} message")
        message = found()
        assert message is not None
        return message

    async def expect_frames(self, count: int) -> list[tuple[float, bytes]]:
        """Wait until so many microphone frames have come in all."""
        await self.until(lambda: len(self.frames) >= count, f"{count} microphone frames")
        return self.frames[:count]

    def playback(self, item_id: str) -> list[int]:
        """What the page has reported so far of an item, in the order it came."""
        return [m["playedMs"] for m in self.messages if m["type"] == "playback" and m["itemId"] == item_id]

    async def close(self, code: int, reason: str) -> None:
        """Close with this code, and read on until the page has answered.

        A connection let go with microphone audio still unread is reset, and the page would see 1006 instead.
        """
        self._goodbye.set_result((code, reason))
        await self.closed.wait()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until this holds, looking again at everything that comes from the page."""
        async with self._news:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._news.wait_for(condition)
            except TimeoutError:
                raise AssertionError(f"no {what} in {TIMEOUT_S} s; came: {self.messages}") from None

    async def read(self) -> None:
        """Keep what the page sends until it leaves, or until it has answered our close.

        One task alone may use the socket: aiohttp's close, called beside a receive, may give up without an answer.
        """
        while message := await self._receive():
            async with self._news:
                if message.type is WSMsgType.BINARY:
                    self.frames.append((time.monotonic(), message.data))
                elif message.type is WSMsgType.TEXT:
                    self.messages.append(check(message.json(), "toRelay"))
                self._news.notify_all()
        self.closed.set()

    async def _receive(self) -> WSMessage | None:
        """The page's next message; None once it, or the test, has closed."""
        receiving = asyncio.ensure_future(self.socket.receive())
        try:
            await asyncio.wait({receiving, self._goodbye}, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                return receiving.result() if receiving.result().type in (WSMsgType.TEXT, WSMsgType.BINARY) else None
        finally:
            receiving.cancel()
            await asyncio.wait({receiving})
        code, reason = self._goodbye.result()
        await self.socket.close(code=code, message=reason.encode())
        return None


class ScriptedRelay:
    """The server; `await relay.session()` gives the next connection of a page."""

    def __init__(self) -> None:
        self.url = ""
        self.refuse_upgrades = False
        self._sessions: asyncio.Queue[DeviceSession] = asyncio.Queue()

    async def session(self) -> DeviceSession:
        async with asyncio.timeout(TIMEOUT_S):
            return await self._sessions.get()

    async def _index(self, _: web.Request) -> web.StreamResponse:
        return web.FileResponse(STATIC_DIR / "index.html", headers=_headers("index.html"))

    async def _static(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in static_files():
            raise web.HTTPNotFound
        return web.FileResponse(STATIC_DIR / name, headers=_headers(name))

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        if self.refuse_upgrades:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        session = DeviceSession(socket, dict(request.query))
        self._sessions.put_nowait(session)
        await session.read()
        return socket

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedRelay"]:
        app = web.Application()
        app.router.add_get("/", self._index)
        app.router.add_get("/static/{name}", self._static)
        app.router.add_get("/ws", self._socket)
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        try:
            yield self
        finally:
            await runner.cleanup()


def _headers(name: str) -> dict[str, str]:
    return {
        "Content-Type": f"{static_files()[name]}; charset=utf-8",
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Cache-Control": "no-store",
    }
