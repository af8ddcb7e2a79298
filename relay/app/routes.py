"""The route table: every route of a relay, its access and its handler."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from aiohttp import web

from relay.auth.access import Access
from relay.config.navai_options import NavaiPaths
from relay.config.upstream_settings import AZURE_PREFIX
from relay.endpoints import azure, login, openai_rest, pages, recordings
from relay.endpoints.navai import NAVAI_ROUTES, pattern_of, relay_handler
from relay.endpoints.sessions import device_socket, realtime_socket
from relay.protocols import registry
from relay.protocols.client_protocol import DeviceClientProtocol, RealtimeClientProtocol
from relay.session.common.policy import MINT, PROVIDER_SECRET, Principal

RouteHandler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the route table; `websocket` says how an upgrade of the same path is answered, and by whom.

    `scope` is what a client's policy must hold for either (`relay.session.common.policy.SCOPES`). `any_case` paths are
    matched without regard to case, with or without a slash at their end.
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


_OTHER_ROUTES: tuple[Route, ...] = (
    Route("GET", "/static/{name}", Access.OPEN, pages.static),
    Route("GET", "/healthz", Access.OPEN, pages.healthz),
    Route("GET", "/readyz", Access.OPEN, pages.readyz),
    *(
        Route(row.method, row.path(NavaiPaths()), Access.CLIENT, relay_handler(row), row.scope, any_case=True)
        for row in NAVAI_ROUTES
    ),
    Route(
        "POST", f"{AZURE_PREFIX}/realtime/session", Access.CLIENT, azure.azure_session, PROVIDER_SECRET, any_case=True
    ),
    Route("GET", f"{AZURE_PREFIX}/realtime/tools", Access.CLIENT, azure.azure_tools, "tools", any_case=True),
    Route("POST", f"{AZURE_PREFIX}/realtime/tools/exec", Access.CLIENT, azure.azure_tools_exec, "tools", any_case=True),
    Route("GET", f"{AZURE_PREFIX}/realtime/user", Access.CLIENT, azure.azure_user, any_case=True),
    Route("GET", f"{AZURE_PREFIX}/realtime/health", Access.CLIENT, azure.azure_health, any_case=True),
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
"""Every route but those of the protocols that clients speak."""


def all_routes() -> tuple[Route, ...]:
    """Every route of a relay. What is not here does not exist: the router is filled from this table alone."""
    sessions = []
    for protocol in registry.CLIENT_PROTOCOLS.values():
        handler: RouteHandler
        if isinstance(protocol, DeviceClientProtocol):
            handler = functools.partial(device_socket, protocol=protocol)
        else:
            assert isinstance(protocol, RealtimeClientProtocol), protocol.name
            handler = functools.partial(realtime_socket, protocol=protocol)
        for path in protocol.paths:  # at / a plain request gets the page
            access, plain = (Access.OPEN, pages.page) if path == "/" else (Access.CLIENT, handler)
            sessions.append(Route("GET", path, access, plain, "session", websocket=(Access.CLIENT, handler)))
    return (*sessions, *_OTHER_ROUTES)
