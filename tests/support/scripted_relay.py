"""A relay that speaks the device protocol by a test's script, over a real socket: for clients."""

import asyncio
import http
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support.device_schema import check

TIMEOUT_S = 20.0
Message = dict[str, Any]
USAGE = {
    "inputTokens": 120,
    "outputTokens": 45,
    "totalTokens": 165,
    "inputAudioTokens": 100,
    "inputTextTokens": 20,
    "cachedTokens": 0,
    "outputAudioTokens": 30,
    "outputTextTokens": 15,
}


class ScriptedConnection:
    """One connection of `relay talk`, seen from the relay; keeps all that comes, with its time."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []
        self.frames: list[tuple[float, bytes]] = []
        self.is_closed = False
        self._news = asyncio.Condition()

    async def listen(self) -> None:
        try:
            async for received in self.socket:
                if isinstance(received, bytes):
                    self.frames.append((asyncio.get_running_loop().time(), received))
                else:
                    self.messages.append(check(json.loads(received), "toRelay"))
                await self._notify()
        except ConnectionClosed:
            pass
        self.is_closed = True
        await self._notify()

    async def _notify(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, what: Callable[[], object]) -> None:
        async with self._news, asyncio.timeout(TIMEOUT_S):
            await self._news.wait_for(lambda: what() or self.is_closed)
        assert what(), "the client left before that"

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps(check({"type": kind, **fields}, "toClient")))

    async def event(self, name: str, **fields: Any) -> None:
        await self.send("event", name=name, **fields)

    async def begin(self, rate: int = 24000, encoding: str = "pcm16") -> None:
        form = {"format": encoding, "rate": rate}
        await self.event("AIConnected", sessionId="s_1", protocol=1, input=form, output=form)

    async def hear(self, text: str = "what time is it") -> None:
        await self.event("AISpeechDetected")
        await self.event("AISpeechEnded")
        await self.send("transcript", role="user", itemId="u", order=1, text=text, final=True)

    async def answer(self, pcm: bytes = b"", text: str = "Ten past three.", item_id: str = "a") -> None:
        await self.event("AIResponseStart")
        for word in text.split(" "):
            await self.send("textDelta", text=word + " ")
        if pcm:
            await self.send("audioStart", itemId=item_id)
            for at in range(0, len(pcm), 4800):
                await self.socket.send(pcm[at : at + 4800])
            await self.send("audioEnd", itemId=item_id, totalMs=len(pcm) // 48)
        await self.send("transcript", role="assistant", itemId=item_id, order=2, text=text, final=True)
        await self.send("usage", **USAGE)
        await self.event("AIResponseEnd", finalText=text, status="completed", more=False)
        steps = {"speechStoppedMs": 210, "firstDeltaMs": 180, "firstByteMs": 2, "firstPlayedMs": None}
        await self.send("latency", itemId=item_id, totalMs=392, **steps)

    def played(self, item_id: str) -> list[int]:
        return [m["playedMs"] for m in self.messages if m["type"] == "playback" and m["itemId"] == item_id]

    def received(self, kind: str) -> list[Message]:
        return [m for m in self.messages if m["type"] == kind]


RelayScript = Callable[[ScriptedConnection], Awaitable[None]]


class ScriptedRelay:
    """A scripted relay's address and the devices that came."""

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/"
        self.devices: list[ScriptedConnection] = []
        self.requests: list[Request] = []
        self.faults: list[BaseException] = []

    @property
    def device(self) -> ScriptedConnection:
        assert len(self.devices) == 1
        return self.devices[0]


@asynccontextmanager
async def scripted_relay(
    script: RelayScript, refuse: http.HTTPStatus | None = None, body: str = ""
) -> AsyncIterator[ScriptedRelay]:
    harness = ScriptedRelay(0)

    async def serve_one(socket: ServerConnection) -> None:
        device = ScriptedConnection(socket)
        harness.devices.append(device)
        listening = asyncio.create_task(device.listen())
        try:
            await script(device)
            await listening
        except ConnectionClosed:
            await listening
        except BaseException as fault:
            harness.faults.append(fault)
            raise
        finally:
            listening.cancel()

    def admit(connection: ServerConnection, request: Request) -> Response | None:
        harness.requests.append(request)
        return connection.respond(refuse, body) if refuse else None

    async with serve(serve_one, "127.0.0.1", 0, process_request=admit, close_timeout=1) as server:
        harness.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield harness
    assert harness.faults == []
