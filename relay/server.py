"""The application: routes and their access, errors as JSON, CORS, and the graceful end."""

import asyncio
import contextlib
import logging
import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.access import Access
from relay.config import AZURE_PREFIX, Settings
from relay.core.policy import Principal
from relay.endpoints.azure import AZURE_ROUTES
from relay.endpoints.device import device_socket
from relay.endpoints.navai import NAVAI, NAVAI_ROUTES, pattern_of, relay_handler
from relay.endpoints.navai_backend import NavaiBackend
from relay.endpoints.navai_options import NavaiOptions, NavaiPaths
from relay.endpoints.pages import healthz, is_upgrade, page, readyz, static
from relay.endpoints.voices import Voices
from relay.errors import AccessDenied, RelayError
from relay.state import RELAY, RelayState
from relay.toolkit.registry import ToolRegistry

KEEPALIVE_TIMEOUT_S = 15.0
"""Also what cuts a client that dribbles its request's head: aiohttp has no other timeout for it."""
SHUTDOWN_TIMEOUT_S = 2.0
MAX_BODY_BYTES = 1024 * 1024

_log = logging.getLogger("relay")

RouteHandler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the route table; `websocket` says how an upgrade of the same path is answered, and by whom.

    `any_case` paths are matched without regard to case, with or without a slash at their end.
    """

    method: str
    path: str
    access: Access
    handler: RouteHandler
    websocket: tuple[Access, RouteHandler] | None = None
    any_case: bool = False

    @property
    def pattern(self) -> str:
        """The path as the router takes it."""
        return pattern_of(self.path) if self.any_case else self.path

    def below(self, azure_prefix: str) -> "Route":
        """The route where the settings want it: those of Azure's pages can be moved."""
        if not self.path.startswith(f"{AZURE_PREFIX}/"):
            return self
        return replace(self, path=azure_prefix + self.path.removeprefix(AZURE_PREFIX))


_DEVICE = (Access.BROWSER, device_socket)

ROUTES: tuple[Route, ...] = (
    Route("GET", "/", Access.OPEN, page, websocket=_DEVICE),
    Route("GET", "/ws", Access.BROWSER, device_socket, websocket=_DEVICE),
    Route("GET", "/static/{name}", Access.OPEN, static),
    Route("GET", "/healthz", Access.OPEN, healthz),
    Route("GET", "/readyz", Access.OPEN, readyz),
    *(
        Route(row.method, row.path(NavaiPaths()), Access.BROWSER, relay_handler(row), any_case=True)
        for row in NAVAI_ROUTES
    ),
    *(
        Route(method, AZURE_PREFIX + path, Access.BROWSER, handler, any_case=True)
        for method, path, handler in AZURE_ROUTES
    ),
)
"""Every route of the relay. What is not here does not exist: the router is filled from this table alone."""


def create_app(
    settings: Settings | None = None, registry: ToolRegistry | None = None, navai: NavaiOptions | None = None
) -> web.Application:
    """An aiohttp application that is a relay; settings come from the environment, tools from their folder.

    `navai` are the options of the NAVAI routes, whose paths are fixed here; the default is those of the environment.
    Raises ConfigError or ToolError before anything is started.
    """
    settings = settings or Settings.load()
    state = RelayState.build(settings, registry)
    app = web.Application(middlewares=[_cors, _errors], client_max_size=MAX_BODY_BYTES)
    app[RELAY] = state
    app[NAVAI] = NavaiBackend(
        navai or NavaiOptions.from_env(settings.environment()),
        state.registry,
        state.runner,
        state.library,
        spending=state.spending,
        provider=state.provider,
    )
    _voices(app)  # what is out of range stops the start
    for route in (row.below(settings.azure_prefix) for row in ROUTES):
        app.router.add_route(route.method, route.pattern, _guarded(route), name=None)
    app.cleanup_ctx.append(_lifetime)
    app.cleanup_ctx.append(app[NAVAI].lifetime)
    app.on_shutdown.append(_drain)
    return app


def _voices(app: web.Application) -> Voices:
    settings = app[RELAY].settings
    return Voices.of(app[NAVAI].options, settings.voice_mode, settings.fallback_voice)


def _guarded(route: Route) -> Handler:
    """The handler of a route behind its access rule."""

    async def handle(request: web.Request) -> web.StreamResponse:
        access, handler = route.access, route.handler
        if route.websocket is not None and is_upgrade(request):
            access, handler = route.websocket
            relay = request.app[RELAY]
            relay.admission.knock(relay.gate.address(request))
        principal = request.app[RELAY].gate.admit(request, access)
        return await handler(request, principal)

    return handle


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    await app[RELAY].start()
    try:
        yield
    finally:
        await app[RELAY].stop()


async def _drain(app: web.Application) -> None:
    await app[RELAY].drain()


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as JSON: `{"error": sentence, "field"?: name}`; our own faults without a detail."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.status, error.text or error.reason, headers=_allow(error))
    except RelayError as error:
        status = error.status if isinstance(error, AccessDenied) else error.http_status
        wait_s = getattr(error, "retry_after_s", None)
        headers = {} if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}
        return _error(status, str(error), getattr(error, "field", None), headers)
    except Exception:
        _log.exception("%s %r failed", request.method, request.path)
        return _error(500, "The relay failed while answering; its log says more.")


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def _error(status: int, message: str, field: str | None = None, headers: dict[str, str] | None = None) -> web.Response:
    body = {"error": message} | ({"field": field} if field else {})
    headers = headers or {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response(body, status=status, headers=headers)


@web.middleware
async def _cors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the pages of allowed origins read the answers; preflights are answered here."""
    gate = request.app[RELAY].gate
    origin = gate.origin(request)
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        try:
            gate.check_host(request)
        except AccessDenied as error:
            return _error(error.status, str(error))
        if origin != "allowed":
            return _error(403, "Pages of this origin may not use this relay. Add it to RELAY_ALLOWED_ORIGINS.")
        return web.Response(status=204, headers=_cors_headers(request, preflight=True))
    response = await handler(request)
    if origin == "allowed" and not response.prepared and response.status != 101:
        response.headers.update(_cors_headers(request, preflight=False))
    return response


def _cors_headers(request: web.Request, *, preflight: bool) -> dict[str, str]:
    headers = {"Access-Control-Allow-Origin": request.headers["Origin"], "Vary": "Origin"}
    if preflight:
        wanted = request.headers.get("Access-Control-Request-Headers", "Content-Type, Authorization")
        headers |= {
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Allow-Headers": wanted,
            "Access-Control-Max-Age": "600",
        }
    return headers


async def serve(settings: Settings, *, registry: ToolRegistry | None = None) -> None:
    """Run a relay until SIGTERM or SIGINT, then end it in peace. Raises OSError if the address cannot be had."""
    app = create_app(settings, registry)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # not on every platform
            loop.add_signal_handler(number, stop.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        _log.info("SIGHUP: loading the tools anew")
        reloads.add(task := loop.create_task(app[RELAY].load_tools()))
        task.add_done_callback(reloads.discard)

    with contextlib.suppress(NotImplementedError, AttributeError):  # Windows knows no SIGHUP
        loop.add_signal_handler(signal.SIGHUP, reload)
    runner = web.AppRunner(
        app, keepalive_timeout=KEEPALIVE_TIMEOUT_S, shutdown_timeout=SHUTDOWN_TIMEOUT_S, access_log=None
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        host, port = runner.addresses[0][:2]
        for line in (*app[RELAY].describe(), *_voices(app).lines):
            _log.info("%s", line)
        for warning in (*settings.warnings(), *app[NAVAI].options.warnings):
            _log.warning("%s", warning)
        _log.info("ready: open http://%s:%d and talk", f"[{host}]" if ":" in host else host, port)
        await stop.wait()
        _log.info("shutting down: %d sessions are told goodbye", len(app[RELAY].sessions))
    finally:
        await runner.cleanup()
