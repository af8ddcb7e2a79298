"""The application: routes and their access, and the graceful end."""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.app.answers import answers
from relay.app.bodies import HANDLER_ARGS, ask_for_body, refuse_compressed
from relay.app.cors import add_cors_headers, answer_preflights
from relay.app.errors import MAX_BODY_BYTES
from relay.app.refusals import REASON, log_connection_refusal
from relay.app.serving import RelayRunner, RelaySite
from relay.app.unadmitted import UNADMITTED, UnadmittedConnections, Waiting
from relay.auth.access import Access
from relay.config import AZURE_PREFIX, Settings, process_environment
from relay.core.policy import MINT, Principal
from relay.descriptors import raise_soft_limit
from relay.endpoints.azure import AZURE_ROUTES
from relay.endpoints.device import device_socket
from relay.endpoints.login import (
    LOGIN_ATTEMPTS,
    login_attempts,
    login_page,
    sign_in,
    sign_out,
    signed_out_page,
    wants_page,
)
from relay.endpoints.navai import NAVAI, NAVAI_ROUTES, pattern_of, relay_handler
from relay.endpoints.navai_backend import NavaiBackend
from relay.endpoints.navai_options import NavaiOptions, NavaiPaths
from relay.endpoints.openai_rest import calls, client_secrets, models, translations
from relay.endpoints.pages import healthz, is_upgrade, page, readyz, static
from relay.endpoints.realtime import realtime_socket
from relay.endpoints.recordings import recording_file, recordings_list, recordings_page
from relay.endpoints.voices import VOICES, Voices
from relay.errors import AccessDenied, ConfigError
from relay.logs import use_secrets
from relay.protocols.client_protocol import DeviceClientProtocol
from relay.protocols.registry import CLIENT_PROTOCOLS
from relay.state import RELAY, RelayState
from relay.toolkit.registry import ToolRegistry

_log = logging.getLogger("relay")

RouteHandler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the route table; `websocket` says how an upgrade of the same path is answered, and by whom.

    `scope` is what a client's policy must hold for either (`relay.core.policy.SCOPES`). `any_case` paths are matched
    without regard to case, with or without a slash at their end.
    """

    method: str
    path: str
    access: Access
    handler: RouteHandler
    scope: str | None = None
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


_DEVICE = (Access.CLIENT, device_socket)
_REALTIME = (Access.CLIENT, realtime_socket)

ROUTES: tuple[Route, ...] = (
    Route("GET", "/", Access.OPEN, page, "session", websocket=_DEVICE),
    Route("GET", "/ws", Access.CLIENT, device_socket, "session", websocket=_DEVICE),
    Route("GET", "/static/{name}", Access.OPEN, static),
    Route("GET", "/healthz", Access.OPEN, healthz),
    Route("GET", "/readyz", Access.OPEN, readyz),
    *(
        Route(row.method, row.path(NavaiPaths()), Access.CLIENT, relay_handler(row), row.scope, any_case=True)
        for row in NAVAI_ROUTES
    ),
    *(
        Route(method, AZURE_PREFIX + path, Access.CLIENT, handler, scope, any_case=True)
        for method, path, handler, scope in AZURE_ROUTES
    ),
    Route("GET", "/v1/realtime", Access.CLIENT, realtime_socket, "session", websocket=_REALTIME),
    Route("GET", "/openai/v1/realtime", Access.CLIENT, realtime_socket, "session", websocket=_REALTIME),
    Route("GET", "/openai/realtime", Access.CLIENT, realtime_socket, "session", websocket=_REALTIME),
    Route("GET", "/v1/models", Access.CLIENT, models, "session"),
    Route("POST", "/v1/realtime/client_secrets", Access.CLIENT, client_secrets, MINT),
    Route("POST", "/v1/realtime/calls", Access.CLIENT, calls, "session"),
    Route("GET", "/v1/realtime/translations", Access.CLIENT, translations, "session"),
    Route("POST", "/v1/realtime/translations/client_secrets", Access.CLIENT, translations, MINT),
    Route("GET", "/login", Access.OPEN, login_page),
    Route("POST", "/login", Access.OPEN, sign_in),
    Route("POST", "/logout", Access.OPEN, sign_out),
    Route("GET", "/recordings", Access.ADMIN, recordings_page),
    Route("GET", "/recordings/list", Access.ADMIN, recordings_list),
    Route("GET", "/recordings/{name}/{file}", Access.ADMIN, recording_file),
)
"""Every route of the relay. What is not here does not exist: the router is filled from this table alone."""


def load_all(**overrides: Any) -> tuple[Settings, NavaiOptions]:
    """The settings and the options of the NAVAI routes. Raises ConfigError with the mistakes of both in one report."""
    problems = []
    try:
        settings = Settings.load(**overrides)
    except ConfigError as error:
        problems.append(str(error))
        environment = process_environment()
    else:
        environment = settings.environment()
    try:
        navai = NavaiOptions.from_env(environment)
    except ConfigError as error:
        problems += ([] if problems else ["the settings are wrong:"]) + [
            f"  {line}" for line in str(error).splitlines()
        ]
    if problems:
        raise ConfigError("\n".join(problems))
    return settings, navai


def create_app(
    settings: Settings | None = None, registry: ToolRegistry | None = None, navai: NavaiOptions | None = None
) -> web.Application:
    """An aiohttp application that is a relay; settings come from the environment, tools from their folder.

    `navai` are the options of the NAVAI routes, whose paths are fixed here; the default is those of the environment.
    Raises ConfigError or ToolError before anything is started.
    """
    settings = settings or Settings.load()
    state = RelayState(settings, registry)
    app = web.Application(middlewares=_MIDDLEWARES, client_max_size=MAX_BODY_BYTES, handler_args=HANDLER_ARGS)
    app[RELAY] = state
    app[LOGIN_ATTEMPTS] = login_attempts()
    app[NAVAI] = NavaiBackend(
        navai or NavaiOptions.from_env(settings.environment()),
        state.registry,
        state.runner,
        state.library,
        spending=state.spending,
        provider=state.provider,
    )
    options = app[NAVAI].options
    state.known_secrets.add((options.openai_api_key, options.elevenlabs_api_key))
    app[VOICES] = Voices.of(
        app[NAVAI].options, settings.voice_mode, settings.fallback_voice, state.auth.policies.external_voices()
    )
    state.has_external_voice = app[VOICES].rules is not None
    app[UNADMITTED] = UnadmittedConnections(
        state.fit().idle_connections,
        state.auth.stands_for_many,
        functools.partial(log_connection_refusal, state, None),
    )
    for route in (row.below(settings.azure_prefix) for row in (*ROUTES, *_added_protocols())):
        resource = app.router.add_resource(route.pattern)
        resource.add_route(route.method, _guarded(route), expect_handler=ask_for_body)
        if route.any_case and route.method == "GET":  # NAVAI's list answers HEAD
            resource.add_route("HEAD", _guarded(route))
    app.cleanup_ctx.append(_lifetime)
    app.cleanup_ctx.append(app[NAVAI].lifetime)
    app.on_response_prepare.append(add_cors_headers)
    app.on_shutdown.append(_drain)
    return app


def _added_protocols() -> Iterator[Route]:
    """The routes of protocols that were added to the registry."""
    paths = {route.path for route in ROUTES}
    for protocol in CLIENT_PROTOCOLS.values():
        handler: Any = device_socket if isinstance(protocol, DeviceClientProtocol) else realtime_socket
        handler = functools.partial(handler, protocol=protocol)
        for path in protocol.paths:
            if path not in paths:
                yield Route("GET", path, Access.CLIENT, handler, "session", websocket=(Access.CLIENT, handler))


def _guarded(route: Route) -> Handler:
    """The handler of a route behind its access rule."""

    async def handle(request: web.Request) -> web.StreamResponse:
        relay = request.app[RELAY]
        access, handler = route.access, route.handler
        if route.websocket is not None and is_upgrade(request):
            access, handler = route.websocket
            relay.admission.knock(relay.auth.address(request))
        try:
            principal = await relay.auth.admit(request, access, route.scope)
        except AccessDenied as denied:
            if access is Access.ADMIN and request.method == "GET" and wants_page(request):
                request[REASON] = str(denied)
                return signed_out_page(denied.status)
            raise
        if access is Access.OPEN:
            return await handler(request, principal)
        request.app[UNADMITTED].leave(cast(Waiting, request.protocol))
        if is_upgrade(request):
            return await handler(request, principal)
        with relay.admission.request(relay.auth.owner(request, principal)):
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
async def _promptly(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer requests one after the other; an upgrade to WebSocket becomes a session and waits for its own turn."""
    if not is_upgrade(request):
        await request.app[RELAY].admission.request_turn()
    return await handler(request)


_MIDDLEWARES = (answers, refuse_compressed, _promptly, answer_preflights)
"""The outermost first."""


async def serve(settings: Settings, *, registry: ToolRegistry | None = None, navai: NavaiOptions | None = None) -> None:
    """Run a relay until SIGTERM or SIGINT, then end it in peace. Raises OSError if the address cannot be had."""
    raise_soft_limit()
    app = create_app(settings, registry, navai)
    use_secrets(app[RELAY].known_secrets)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # not on every platform
            loop.add_signal_handler(number, stop.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        reloads.add(task := loop.create_task(_reload(app[RELAY])))
        task.add_done_callback(reloads.discard)

    with contextlib.suppress(NotImplementedError, AttributeError):  # Windows knows no SIGHUP
        loop.add_signal_handler(signal.SIGHUP, reload)
    tls = settings.tls_context()
    runner = RelayRunner(app)
    await runner.setup()
    try:
        await RelaySite(runner, settings.host, settings.port, tls).start()
        host, port = runner.addresses[0][:2]
        for line in (*app[RELAY].describe(), *app[VOICES].lines):
            _log.info("%s", line)
        for warning in (*settings.warnings(), *app[RELAY].warnings(), *app[NAVAI].options.warnings):
            _log.warning("%s", warning)
        # What the start has made stays for good: collections of garbage need not look at it again and again.
        gc.collect()
        gc.freeze()
        scheme = "https" if tls else "http"
        _log.info("ready: open %s://%s:%d and talk", scheme, f"[{host}]" if ":" in host else host, port)
        await stop.wait()
        _log.info("shutting down: %d sessions are told goodbye", len(app[RELAY].sessions))
    finally:
        await runner.cleanup()


async def _reload(relay: RelayState) -> None:
    relay.reload_access()
    await relay.load_tools()
    _log.info("SIGHUP: tools %s", ", ".join(relay.registry.names()) or "none")
