"""The WebSocket route `/v1/realtime?model=`: the handshake, and one `EngineConnection` for each client."""

import asyncio
import logging
from functools import partial
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from relay.errors import ConfigError
from relay.local_engine.realtime.connection import EngineConnection
from relay.local_engine.realtime.context import ConnectParams, EngineContext
from relay.loopback import is_loopback_host
from relay.testing.faults import handshake_fault, parse_faults

MAX_MESSAGE_BYTES = 22 * 1024 * 1024
"""Enough for 15 MiB of audio in base64. A larger message closes the connection with 1009."""
MAX_SESSIONS = 64
DEFAULT_MODEL = "relay-local"
CONTEXT = web.AppKey("context", EngineContext)
_PATHS = ("/v1/realtime", "/openai/v1/realtime", "/realtime")

_log = logging.getLogger(__name__)


def add_routes(app: web.Application, context: EngineContext) -> None:
    """Serve the Realtime protocol at OpenAI's and Azure's paths."""
    app[CONTEXT] = context
    for path in _PATHS:
        app.router.add_get(path, _accept)


async def _accept(request: web.Request) -> web.StreamResponse:
    context = request.app[CONTEXT]
    if not _is_allowed_origin(request):
        return _error_response(
            403, "invalid_request_error", "This origin is not allowed: only pages of this machine may connect."
        )
    if len(context.sockets) >= MAX_SESSIONS:
        return _error_response(503, "server_error", f"{MAX_SESSIONS} sessions are active: try again later.")
    try:
        params = _connect_params(request)
    except ConfigError as error:
        return _error_response(400, "invalid_request_error", str(error))
    context.n_connections += 1
    fault = handshake_fault(params.faults, context.n_connections)
    await asyncio.sleep(fault.delay_s)
    if fault.status is not None:
        if fault.status:
            return web.json_response(fault.body, status=fault.status, headers=dict(fault.headers))
        _abort(request)
        return web.Response()  # never sent: the connection is gone
    return await _run_connection(request, context, params)


async def _run_connection(request: web.Request, context: EngineContext, params: ConnectParams) -> web.WebSocketResponse:
    # Browsers offer "realtime" beside a subprotocol that carries their key: only the former may be echoed.
    # No heartbeat: a long append keeps the reader from seeing the pong. TCP keep-alive detects dead peers.
    socket = web.WebSocketResponse(
        protocols=("realtime",), max_msg_size=MAX_MESSAGE_BYTES, heartbeat=None, compress=False
    )
    await socket.prepare(request)
    context.sockets.add(socket)
    try:
        await EngineConnection(socket, context, params, abort=partial(_abort, request)).run()
    except (ConnectionError, aiohttp.ClientError) as error:
        _log.info("connection lost error=%s", type(error).__name__)
    finally:
        context.sockets.discard(socket)
    return socket


def _connect_params(request: web.Request) -> ConnectParams:
    """Read the query string and the headers. Raises ConfigError."""
    intent = request.query.get("intent", "conversation")
    if intent not in ("conversation", "transcription"):
        raise ConfigError(f"Unknown intent '{intent[:80]}': leave it out, or use intent=transcription.")
    return ConnectParams(
        model=(request.query.get("model") or DEFAULT_MODEL)[:200],
        session_type="transcription" if intent == "transcription" else "realtime",
        is_beta="realtime=v1" in request.headers.get("OpenAI-Beta", ""),
        faults=(*request.app[CONTEXT].faults, *parse_faults(request.query.get("fault", ""))),
    )


def _error_response(status: int, kind: str, message: str) -> web.Response:
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _is_allowed_origin(request: web.Request) -> bool:
    """Whether the client is a program or a page of this machine; pages of other origins are refused."""
    origin = request.headers.get("Origin")
    return origin is None or is_loopback_host(urlsplit(origin).hostname or "")
