"""The engine's server: one port with the WebSocket `/v1/realtime?model=` and `GET /healthz`."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from relay.errors import ConfigError
from relay.local_engine.asr import check as check_recogniser
from relay.local_engine.session import Session, Shared
from relay.local_engine.vad import check as check_vad

LARGEST_MESSAGE_BYTES = 22 * 1024 * 1024
"""Room for 15 MiB of audio as base64, and a little; a larger message closes the connection with 1009."""
MOST_SESSIONS = 64
DEFAULT_MODEL = "relay-local"
_PATHS = ("/v1/realtime", "/openai/v1/realtime", "/realtime")
_STOP_S = 1.0
_SHARED = web.AppKey("shared", Shared)

log = logging.getLogger(__name__)


def create_engine_app(*, pace: float | None = 4.0) -> web.Application:
    """The engine as an aiohttp application, for a server of your own or a test.

    `pace` is how many times faster than real time it speaks (None: as fast as it can). Raises ConfigError if a part
    of the engine is not installed.
    """
    check_recogniser()
    check_vad()
    app = web.Application()
    app[_SHARED] = Shared(pace)
    app.router.add_get("/healthz", _healthz)
    for path in _PATHS:
        app.router.add_get(path, _realtime)
    app.on_shutdown.append(_close_sockets)
    app.cleanup_ctx.append(_shared_until_the_end)
    return app


async def serve(host: str, port: int, *, on_ready: Callable[[int], None] | None = None) -> None:
    """Serve until cancelled; `on_ready` gets the port once it listens (of use with port 0)."""
    runner = web.AppRunner(create_engine_app(), access_log=None, shutdown_timeout=_STOP_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            raise ConfigError(f"The local engine cannot listen on {host}:{port}: {error}") from error
        if on_ready is not None:
            on_ready(int(runner.addresses[0][1]))
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _healthz(request: web.Request) -> web.Response:
    sockets = request.app[_SHARED].sockets
    return web.json_response({"status": "ok", "engine": "relay-local", "sessions": len(sockets)})


async def _realtime(request: web.Request) -> web.StreamResponse:
    sockets = request.app[_SHARED].sockets
    if not _may_connect(request):
        return web.json_response(
            {"error": {"type": "invalid_request_error", "message": "This origin may not use the local engine."}},
            status=403,
        )
    if len(sockets) >= MOST_SESSIONS:
        return web.json_response(
            {"error": {"type": "server_error", "message": f"{MOST_SESSIONS} sessions are running already."}},
            status=503,
        )
    model = request.query.get("model") or DEFAULT_MODEL
    # "realtime" is offered by browsers beside a protocol that carries their key: only the former may be echoed.
    # No heartbeat: a long append keeps the reader from seeing the pong, and TCP's keep-alive finds the dead.
    socket = web.WebSocketResponse(
        protocols=("realtime",), max_msg_size=LARGEST_MESSAGE_BYTES, heartbeat=None, compress=False
    )
    await socket.prepare(request)
    sockets.add(socket)
    try:
        await Session(socket, request.app[_SHARED], model[:200], abort=partial(_abort, request)).run()
    except (ConnectionError, aiohttp.ClientError):
        log.info("a client went away")
    finally:
        sockets.discard(socket)
    return socket


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _may_connect(request: web.Request) -> bool:
    """Programs may, and pages of this machine; a foreign page in the user's browser may not."""
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    host = urlsplit(origin).hostname
    return host in ("localhost", "127.0.0.1", "::1")


async def _close_sockets(app: web.Application) -> None:
    closing = [socket.close(code=1001, message=b"the engine stops") for socket in set(app[_SHARED].sockets)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            await asyncio.gather(*closing, return_exceptions=True)


async def _shared_until_the_end(app: web.Application) -> AsyncIterator[None]:
    yield
    app[_SHARED].close()
