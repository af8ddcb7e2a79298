"""The aiohttp application of a relay, and the process that serves it until a signal."""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
from typing import cast

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.app import context, middleware
from relay.app.connection_limiter import CONNECTION_LIMITER, ConnectionLimiter, EvictableConnection
from relay.app.context import (
    AUTHENTICATOR,
    KNOWN_SECRETS,
    PAID_ROUTE_QUOTA,
    PROVIDER,
    REFUSAL_LOG,
    SESSION_LIMITER,
    SESSIONS,
    TOOLS,
)
from relay.app.file_descriptors import raise_soft_limit
from relay.app.log_setup import redact_from_logs
from relay.app.routes import Route, all_routes
from relay.app.serving import RelayRunner, RelaySite
from relay.auth.access import Access
from relay.config.navai_options import NavaiOptions
from relay.config.settings import Settings
from relay.endpoints import login
from relay.endpoints.navai.backend import NavaiBackend
from relay.endpoints.navai.routes import NAVAI
from relay.errors import AccessDenied
from relay.session.common.rate_limit import KeyedRateLimiter, RateLimit
from relay.toolkit.registry import ToolRegistry
from relay.transport.upgrade import is_websocket_upgrade

_log = logging.getLogger("relay")


def create_app(
    settings: Settings | None = None, registry: ToolRegistry | None = None, navai: NavaiOptions | None = None
) -> web.Application:
    """Create the aiohttp application of a relay.

    By default the settings come from the environment and `.env`, the tools from the settings' folders, and `navai`, the
    options of the NAVAI routes, from the settings. The paths of these routes are always those of the settings. Raises
    ConfigError or ToolError before anything starts.
    """
    settings = settings or Settings.load()
    navai = navai or settings.navai_options()
    app = web.Application(
        middlewares=_MIDDLEWARES, client_max_size=middleware.MAX_BODY_BYTES, handler_args=middleware.HANDLER_ARGS
    )
    context.install(app, settings, registry, navai)
    app[login.LOGIN_ATTEMPTS] = KeyedRateLimiter(RateLimit(login.ATTEMPTS_PER_MINUTE, login.ATTEMPTS_PER_MINUTE))
    tools = app[TOOLS]
    backend = app[NAVAI] = NavaiBackend(
        navai, tools.registry, tools.runner, tools.library, quota=app[PAID_ROUTE_QUOTA], provider=app[PROVIDER]
    )
    app.cleanup_ctx.append(backend.lifetime)
    app[CONNECTION_LIMITER] = ConnectionLimiter(
        context.limit_sessions_to_descriptors(app).max_idle_connections,
        app[AUTHENTICATOR].is_shared_address,
        functools.partial(middleware.log_connection_refusal, app[REFUSAL_LOG], None),
    )
    for route in (row.with_azure_prefix(settings.azure.routes_prefix) for row in all_routes()):
        resource = app.router.add_resource(route.pattern)
        resource.add_route(route.method, _authorized(route), expect_handler=middleware.send_100_continue)
        if route.ignores_case and route.method == "GET":  # for NAVAI's list
            resource.add_route("HEAD", _authorized(route))
    app.on_response_prepare.append(middleware.add_cors_headers)
    return app


def _authorized(route: Route) -> Handler:
    """Return the handler of a route that authorizes the request first."""

    async def handle(request: web.Request) -> web.StreamResponse:
        limiter, authenticator = request.app[SESSION_LIMITER], request.app[AUTHENTICATOR]
        access, handler = route.access, route.handler
        if route.websocket is not None and is_websocket_upgrade(request):
            access, handler = route.websocket
            limiter.check_rate(authenticator.client_address(request))
        try:
            principal = await authenticator.authenticate(request, access, route.scope)
        except AccessDenied as error:
            if access is Access.ADMIN and request.method == "GET" and login.accepts_html(request):
                request[middleware.REFUSAL_REASON] = str(error)
                return login.login_form(error.http_status)
            raise
        if access is Access.OPEN:
            return await handler(request, principal)
        request.app[CONNECTION_LIMITER].remove(cast(EvictableConnection, request.protocol))
        if is_websocket_upgrade(request):
            return await handler(request, principal)
        with limiter.acquire_request(authenticator.quota_key(request, principal)):
            return await handler(request, principal)

    return handle


@web.middleware
async def _wait_request_turn(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Start at most one request per event-loop iteration; a WebSocket upgrade waits as a session instead."""
    if not is_websocket_upgrade(request):
        await request.app[SESSION_LIMITER].wait_request_turn()
    return await handler(request)


_MIDDLEWARES = (
    middleware.response_middleware,
    middleware.refuse_compressed_bodies,
    _wait_request_turn,
    middleware.answer_preflights,
)
"""The outermost first."""


async def serve(settings: Settings, *, registry: ToolRegistry | None = None, navai: NavaiOptions | None = None) -> None:
    """Run a relay until SIGTERM or SIGINT, then shut it down gracefully. Raises OSError if it cannot listen."""
    raise_soft_limit()
    app = create_app(settings, registry, navai)
    redact_from_logs(app[KNOWN_SECRETS])
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # not available on every platform
            loop.add_signal_handler(number, stop.set)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        reloads.add(task := loop.create_task(context.reload(app)))
        task.add_done_callback(reloads.discard)

    with contextlib.suppress(NotImplementedError, AttributeError):  # Windows has no SIGHUP
        loop.add_signal_handler(signal.SIGHUP, reload)
    tls = settings.server.tls_context(settings.name_of)
    runner = RelayRunner(app)
    await runner.setup()
    try:
        await RelaySite(runner, settings.server.host, settings.server.port, tls).start()
        host, port = runner.addresses[0][:2]
        for line in context.startup_lines(app):
            _log.info("%s", line)
        for warning in (*settings.warnings(), *context.warnings(app), *app[NAVAI].options.warnings):
            _log.warning("%s", warning)
        # Objects from the start live as long as the process: exclude them from garbage collection.
        gc.collect()
        gc.freeze()
        scheme = "https" if tls else "http"
        _log.info("listening on %s://%s:%d", scheme, f"[{host}]" if ":" in host else host, port)
        await stop.wait()
        _log.info("shutting down: active_sessions=%d", len(app[SESSIONS].active))
    finally:
        await runner.cleanup()
