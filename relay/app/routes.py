"""The route table: every route of a relay, its access and its handler."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from aiohttp import web

from relay.auth.access import Access
from relay.config.navai_options import NavaiPaths
from relay.config.upstream_settings import AZURE_PREFIX
from relay.endpoints import azure, console, health, login, openai_rest, recordings
from relay.endpoints.device import serve_device
from relay.endpoints.navai.routes import NAVAI_ROUTES, case_insensitive_pattern, relay_handler
from relay.endpoints.realtime import serve_realtime
from relay.protocols import registry
from relay.protocols.client_protocol import DeviceClientProtocol, RealtimeClientProtocol
from relay.session.common.policy import MINT, PROVIDER_SECRET, Principal

RouteHandler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the route table; `websocket` has access and handler of a WebSocket upgrade on the same path.

    `scope` is the scope that both require of the client's policy (`relay.session.common.policy.SCOPES`). A path with
    `ignores_case` also matches with a trailing slash.
    """

    method: str
    path: str
    access: Access
    handler: RouteHandler
    scope: str | None = None
    websocket: tuple[Access, RouteHandler] | None = None
    ignores_case: bool = False

    @property
    def pattern(self) -> str:
        """The path in the router's syntax."""
        return case_insensitive_pattern(self.path) if self.ignores_case else self.path

    def with_azure_prefix(self, azure_prefix: str) -> "Route":
        """Return the route with the configured prefix, if it is one of the Azure routes."""
        if not self.path.startswith(f"{AZURE_PREFIX}/"):
            return self
        return replace(self, path=azure_prefix + self.path.removeprefix(AZURE_PREFIX))


_OTHER_ROUTES: tuple[Route, ...] = (
    Route("GET", "/static/{name}", Access.OPEN, console.static_file),
    Route("GET", "/healthz", Access.OPEN, health.healthz),
    Route("GET", "/readyz", Access.OPEN, health.readyz),
    *(
        Route(row.method, row.path(NavaiPaths()), Access.CLIENT, relay_handler(row), row.scope, ignores_case=True)
        for row in NAVAI_ROUTES
    ),
    Route(
        "POST",
        f"{AZURE_PREFIX}/realtime/session",
        Access.CLIENT,
        azure.azure_session,
        PROVIDER_SECRET,
        ignores_case=True,
    ),
    Route("GET", f"{AZURE_PREFIX}/realtime/tools", Access.CLIENT, azure.azure_tools, "tools", ignores_case=True),
    Route(
        "POST", f"{AZURE_PREFIX}/realtime/tools/exec", Access.CLIENT, azure.azure_tools_exec, "tools", ignores_case=True
    ),
    Route("GET", f"{AZURE_PREFIX}/realtime/user", Access.CLIENT, azure.azure_user, ignores_case=True),
    Route("GET", f"{AZURE_PREFIX}/realtime/health", Access.CLIENT, azure.azure_health, ignores_case=True),
    Route("GET", "/v1/models", Access.CLIENT, openai_rest.models, "session"),
    Route("POST", "/v1/realtime/client_secrets", Access.CLIENT, openai_rest.client_secrets, MINT),
    Route("POST", "/v1/realtime/calls", Access.CLIENT, openai_rest.calls, "session"),
    Route("GET", "/v1/realtime/translations", Access.CLIENT, openai_rest.translations, "session"),
    Route("POST", "/v1/realtime/translations/client_secrets", Access.CLIENT, openai_rest.translations, MINT),
    Route("GET", "/login", Access.OPEN, login.login_page),
    Route("POST", "/login", Access.OPEN, login.sign_in),
    Route("POST", "/logout", Access.OPEN, login.sign_out),
    Route("GET", "/recordings", Access.ADMIN, recordings.recordings_page),
    Route("GET", "/recordings/list", Access.ADMIN, recordings.recordings_list),
    Route("GET", "/recordings/{name}/{file}", Access.ADMIN, recordings.recording_file),
)
"""Every route except those of the client protocols."""


def all_routes() -> tuple[Route, ...]:
    """Return every route of a relay. The router is built only from this table."""
    sessions = []
    for protocol in registry.CLIENT_PROTOCOLS.values():
        handler: RouteHandler
        if isinstance(protocol, DeviceClientProtocol):
            handler = functools.partial(serve_device, protocol=protocol)
        else:
            assert isinstance(protocol, RealtimeClientProtocol), protocol.name
            handler = functools.partial(serve_realtime, protocol=protocol)
        for path in protocol.paths:  # a plain request to / gets the page
            access, plain = (Access.OPEN, console.index_page) if path == "/" else (Access.CLIENT, handler)
            sessions.append(Route("GET", path, access, plain, "session", websocket=(Access.CLIENT, handler)))
    return (*sessions, *_OTHER_ROUTES)
