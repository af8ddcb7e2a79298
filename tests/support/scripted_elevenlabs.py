"""A relay whose answers an ElevenLabs voice speaks: the local engine's voice, or one that follows a test's script."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import WSMsgType, web

from relay.app.server import create_app
from relay.config.navai_options import NavaiOptions
from relay.local_engine.server import create_engine_app
from relay.testing import ScriptedSession, ScriptedUpstream
from relay.toolkit.registry import ToolRegistry
from tests.support.relay_server import DeviceClient, RunningRelay, serve_app, settings_for

TIMEOUT_S = 10.0
Obj = dict[str, Any]


def navai_options(base_url: str, **more: Any) -> NavaiOptions:
    given: Obj = {"elevenlabs_api_key": "xi_test_key", "elevenlabs_voice_id": "voice-1", "tts_provider": "elevenlabs"}
    return NavaiOptions(allow_api_key_from_request=True, elevenlabs_base_url=base_url, **(given | more))


@asynccontextmanager
async def speaking_relay(
    upstream: str, voices: str, navai: Obj | None = None, registry: ToolRegistry | None = None, **settings: Any
) -> AsyncIterator[RunningRelay]:
    """A relay with its model at `upstream` and its voice at `voices`."""
    app = create_app(
        settings_for(upstream, **settings), registry or ToolRegistry(), navai_options(voices, **navai or {})
    )
    async with serve_app(app) as port:
        yield RunningRelay(app, port)


@asynccontextmanager
async def local_engine() -> AsyncIterator[str]:
    """Run the local engine in this process; yields its HTTP address."""
    async with serve_app(create_engine_app(workers=0)) as port:
        yield f"http://127.0.0.1:{port}"


class ScriptedTtsConnection:
    """One connection of a relay to a scripted ElevenLabs."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.request = request
        self.socket = socket
        self.messages: list[Obj] = []
        self.closed = asyncio.Event()
        self._taken = 0
        self._news = asyncio.Condition()

    async def listen(self) -> None:
        async for message in self.socket:
            if message.type is WSMsgType.TEXT:
                async with self._news:
                    self.messages.append(json.loads(message.data))
                    self._news.notify_all()
        async with self._news:
            self.closed.set()
            self._news.notify_all()

    async def expect(self, *keys: str) -> Obj:
        """The next message that has all of these keys, true or not empty; others are ignored."""
        async with asyncio.timeout(TIMEOUT_S), self._news:
            while True:
                while self._taken < len(self.messages):
                    message = self.messages[self._taken]
                    self._taken += 1
                    if all(str(message.get(key) or "").strip() for key in keys):
                        return message
                assert not self.closed.is_set(), f"closed before {keys}; it sent {self.messages}"
                await self._news.wait()

    async def speak(self, context_id: str, text: str, ms: int, *, per_ms: int = 48, aligned: bool = True) -> None:
        """Send `ms` of audio in which the characters of `text` are spoken at an even pace."""
        step = ms / max(len(text), 1)
        alignment = {
            "chars": list(text),
            "charStartTimesMs": [round(n * step) for n in range(len(text))],
            "charDurationsMs": [round(step) for _ in text],
        }
        audio = base64.b64encode(b"\x01\x00" * (ms * per_ms // 2)).decode()
        await self.send({"audio": audio, "contextId": context_id, "alignment": alignment if aligned else None})

    async def final(self, context_id: str) -> None:
        await self.send({"isFinal": True, "contextId": context_id})

    async def send(self, message: Obj) -> None:
        await self.socket.send_str(json.dumps(message))

    async def fail(self, error: str, message: str = "No.") -> None:
        """The error of a connection, and the close that follows it."""
        await self.send({"message": message, "error": error, "code": 1008})
        await self.socket.close(code=1008, message=message.encode())

    async def drop(self) -> None:
        """Abort the connection without a close frame."""
        assert self.request.transport is not None
        self.request.transport.abort()


class ScriptedElevenLabs:
    """Where it listens, and the connections that came; `refuse` answers dials with a status and a JSON body."""

    def __init__(self) -> None:
        self.url = ""
        self.refuse: tuple[int, Obj] | None = None
        self.hang = False
        self.dials = 0
        self.sessions: asyncio.Queue[ScriptedTtsConnection] = asyncio.Queue()
        self.requests: asyncio.Queue[Obj] = asyncio.Queue()
        self.reply: list[bytes] = []
        self.break_off = False
        self.stays = False
        """Whether a stream stays open without audio; `left` is set when its reader has left."""
        self.left = asyncio.Event()
        self._stop = asyncio.Event()

    async def accept(self) -> ScriptedTtsConnection:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.sessions.get()

    async def socket(self, request: web.Request) -> web.StreamResponse:
        self.dials += 1
        if self.hang:
            await self._stop.wait()
        if self.refuse is not None:
            return web.json_response(self.refuse[1], status=self.refuse[0])
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        session = ScriptedTtsConnection(request, socket)
        self.sessions.put_nowait(session)
        await session.listen()
        return socket

    async def stream(self, request: web.Request) -> web.StreamResponse:
        self.requests.put_nowait({"path": request.path_qs, "body": await request.json()})
        if self.refuse is not None:
            return web.json_response(self.refuse[1], status=self.refuse[0])
        if self.hang:
            await self._stop.wait()
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in self.reply:
            await response.write(chunk)
        if self.stays:
            while not (request.transport is None or request.transport.is_closing() or self._stop.is_set()):
                with suppress(ConnectionError):
                    await response.write(bytes(2))
                await asyncio.sleep(0.02)
            self.left.set()
            return response
        if self.break_off:
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write_eof()
        return response

    def stop(self) -> None:
        self._stop.set()


@asynccontextmanager
async def scripted_elevenlabs() -> AsyncIterator[ScriptedElevenLabs]:
    voice = ScriptedElevenLabs()
    app = web.Application()
    app.router.add_get("/v1/text-to-speech/{voice}/multi-stream-input", voice.socket)
    app.router.add_post("/v1/text-to-speech/{voice}/stream", voice.stream)
    async with serve_app(app) as port:
        voice.url = f"http://127.0.0.1:{port}"
        try:
            yield voice
        finally:
            voice.stop()


@asynccontextmanager
async def talking(
    path: str = "/?rate=24000", navai: Obj | None = None, **settings: Any
) -> AsyncIterator[tuple[DeviceClient, ScriptedSession, ScriptedElevenLabs, Obj]]:
    """A device in conversation with a scripted model and a scripted voice; also yields the first `session.update`."""
    async with ScriptedUpstream() as model, scripted_elevenlabs() as voice:
        voices = (navai or {}).pop("at", voice.url)
        async with (
            speaking_relay(model.url, voices, navai, **settings) as relay,
            await DeviceClient.connect(relay.ws(path)) as client,
        ):
            session = await model.accept()
            update = await session.configure()
            await client.expect("AIConnected")
            yield client, session, voice, update


async def write(session: ScriptedSession, *deltas: str, response: str = "resp_1", item: str = "item_1") -> None:
    """The model begins a response and writes; the response is not done."""
    created = {"id": item, "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
    await session.emit(
        {"type": "response.created", "response": {"id": response, "output": []}},
        {"type": "conversation.item.added", "previous_item_id": "item_u", "item": created},
    )
    await more(session, *deltas, response=response, item=item)


async def more(session: ScriptedSession, *deltas: str, response: str = "resp_1", item: str = "item_1") -> None:
    """The model writes more."""
    for delta in deltas:
        part = {"response_id": response, "item_id": item, "output_index": 0, "content_index": 0}
        await session.emit({"type": "response.output_text.delta", "delta": delta, **part})


async def end(
    session: ScriptedSession, status: str = "completed", response: str = "resp_1", item: str = "item_1"
) -> None:
    """The model ends the response."""
    output = [{"id": item, "type": "message", "role": "assistant", "status": status, "content": []}]
    await session.done(response, output, status=status)
