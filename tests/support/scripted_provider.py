"""A provider on a real socket: answers as OpenAI, Azure or ElevenLabs document it, or fails as a test wants.

It speaks HTTP for secrets, models, voices and speech, and the WebSocket side of a Realtime session as far as its
configuration. Everything it is sent is kept in `seen`.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

Obj = dict[str, Any]

EXPIRES_AT = 1730000000
MP3 = b"ID3\x04\x00\x00"

SESSION: Obj = {
    "id": "sess_abc",
    "object": "realtime.session",
    "type": "realtime",
    "model": "gpt-realtime-2.1",
    "expires_at": EXPIRES_AT,
}
SECRET: Obj = {"value": "ek_test_123", "expires_at": EXPIRES_AT, "session": SESSION}
PREVIEW_SESSION: Obj = {"id": "sess_abc", "client_secret": {"value": "eph_1", "expires_at": 1730000060}}


@dataclass(frozen=True)
class ReceivedRequest:
    """One request as it came: the path is not decoded."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class ScriptedResponse:
    """What the next requests get; the fields that are set win over the documented answer, from top to bottom."""

    hang_up: bool = False  # the connection is cut before a word
    hang: bool = False  # nothing comes, until the provider stops
    cut_after: int | None = None  # the body breaks off after so many bytes
    status: int = 200
    body: bytes | None = None
    json: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    chunks: "asyncio.Queue[bytes | None] | None" = None  # a body that is sent as it is put, None for its end

    @classmethod
    def from_pair(cls, reply: Obj) -> "ScriptedResponse":
        """The script of a recorded pair's `upstream_reply`."""
        body = reply["text"].encode() if "text" in reply else None
        if "base64" in reply:
            body = base64.b64decode(reply["base64"])
        return cls(
            hang_up=reply.get("destroy", False),
            status=reply.get("status", 200),
            body=body,
            json=reply.get("json"),
            headers=reply.get("headers", {}),
        )


class ScriptedProvider:
    """Where it listens, what it was sent, and what it does next."""

    def __init__(self) -> None:
        self.script = ScriptedResponse()
        self.seen: list[ReceivedRequest] = []
        self.url = ""
        self.keys: set[str] = set()  # if set, others get 401
        self.models: dict[str, str | None] = {"gpt-realtime-2.1": None, "gpt-realtime": "2027-01-20"}
        self.voices = {"marin", "alloy"}
        self.elevenlabs_voices = {"voice-1"}
        self.elevenlabs_models = [
            {"model_id": "eleven_flash_v2_5", "can_do_text_to_speech": True},
            {"model_id": "eleven_english_sts_v2", "can_do_text_to_speech": False},
        ]
        self.missing = "\0"  # paths that hold this are not there
        self.asked = asyncio.Event()
        self.left = asyncio.Event()  # a client went away in the middle of an answer
        self._stopping = asyncio.Event()

    @property
    def last(self) -> ReceivedRequest:
        return self.seen[-1]

    async def respond(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.seen.append(
            ReceivedRequest(
                request.method,
                request.raw_path,
                {name.lower(): value for name, value in request.headers.items()},
                json.loads(raw) if raw else None,
            )
        )
        self.asked.set()
        script = self.script
        if script.hang_up:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if script.hang:
            await self._stopping.wait()
            return web.Response(status=503)
        key = request.headers.get("xi-api-key") or request.headers.get("api-key")
        key = key or request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.keys and key not in self.keys:
            return web.json_response(_refused(request.path), status=401)
        if self.missing in request.path:
            return web.json_response({"error": {"code": "404", "message": "Resource not found"}}, status=404)
        return await self._documented(request, script)

    async def _documented(self, request: web.Request, script: ScriptedResponse) -> web.StreamResponse:
        if "websocket" in request.headers.get("Upgrade", "").lower() and script.status == 200:
            return await self._realtime(request)
        status, content_type, body = script.status, "application/json", script.body
        if script.json is not None:
            body = json.dumps(script.json).encode()
        if body is None and script.chunks is None:
            status, content_type, body = self._usual(request)
        headers = {"Content-Type": content_type} | {k.title(): v for k, v in script.headers.items()}
        if script.chunks is not None:
            return await self._trickle(request, script, headers)
        if script.cut_after is not None:
            return await _cut(request, body or b"", script.cut_after, headers)
        return web.Response(status=status, body=body, headers=headers)

    def _usual(self, request: web.Request) -> tuple[int, str, bytes]:
        path = request.path
        if path.endswith("/client_secrets"):
            return 200, "application/json", json.dumps(SECRET).encode()
        if path.endswith("/realtimeapi/sessions"):
            return 200, "application/json", json.dumps(PREVIEW_SESSION).encode()
        if "/text-to-speech/" in path:
            return 200, "audio/mpeg", MP3
        if "/voices/" in path:
            if path.rpartition("/")[2] in self.elevenlabs_voices:
                return 200, "application/json", b'{"voice_id": "voice-1", "name": "Ana"}'
            return 400, "application/json", b'{"detail": {"status": "voice_not_found", "message": "no such voice"}}'
        model = path.rpartition("/")[2]
        if path == "/v1/models":
            return 200, "application/json", json.dumps(self.elevenlabs_models).encode()
        if "/models/" in path and model in self.models:
            found = {"id": model, "object": "model", "created": 1, "owned_by": "x", "shutdown_date": self.models[model]}
            return 200, "application/json", json.dumps(found).encode()
        missing = {"error": {"message": "no such thing", "type": "invalid_request_error", "code": "model_not_found"}}
        return 404, "application/json", json.dumps(missing).encode()

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "session.created", "event_id": "event_1", "session": SESSION})
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            event = message.json()
            if event["type"] != "session.update":
                continue
            self.seen.append(ReceivedRequest("WS", request.raw_path, {}, event))
            voice = event["session"].get("audio", {}).get("output", {}).get("voice", "marin")
            if voice in self.voices:
                await socket.send_json({"type": "session.updated", "event_id": "event_2", "session": SESSION})
            else:
                error = {
                    "type": "invalid_request_error",
                    "code": "invalid_value",
                    "message": f"Invalid value: '{voice}'.",
                    "param": "session.audio.output.voice",
                    "event_id": event.get("event_id"),
                }
                await socket.send_json({"type": "error", "event_id": "event_2", "error": error})
        return socket

    async def _trickle(
        self, request: web.Request, script: ScriptedResponse, headers: dict[str, str]
    ) -> web.StreamResponse:
        assert script.chunks is not None
        response = web.StreamResponse(status=script.status, headers=headers)
        await response.prepare(request)
        try:
            while (chunk := await script.chunks.get()) is not None:
                await response.write(chunk)
                if script.cut_after == 0:
                    assert request.transport is not None
                    request.transport.abort()
                    return response
            await response.write_eof()
        except (ConnectionResetError, asyncio.CancelledError):
            self.left.set()
            raise
        return response

    async def stop(self) -> None:
        self._stopping.set()


async def _cut(request: web.Request, body: bytes, after: int, headers: dict[str, str]) -> web.StreamResponse:
    """A body that is announced as longer than what comes of it."""
    response = web.StreamResponse(headers=headers | {"Content-Length": str(len(body) + 1000)})
    await response.prepare(request)
    await response.write(body[:after])
    assert request.transport is not None
    request.transport.close()
    return response


def _refused(path: str) -> Obj:
    if "/text-to-speech/" in path or "/voices/" in path:
        return {"detail": {"status": "invalid_api_key", "message": "Invalid API key"}}
    return {"error": {"message": "Incorrect API key provided: sk-…", "type": "x", "code": "invalid_api_key"}}


@asynccontextmanager
async def scripted_provider() -> AsyncIterator[ScriptedProvider]:
    """A provider on a free port of this machine."""
    provider = ScriptedProvider()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", provider.respond)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield provider
    finally:
        await provider.stop()
        await runner.cleanup()
