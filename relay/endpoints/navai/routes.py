"""The NAVAI routes: their table, and `add_routes` for any aiohttp application.

    add_routes(app)                              # everything from the environment and `.env`
    add_routes(app, NavaiOptions(openai_api_key=…), load_tools("my_tools"))

The relay mounts the same routes behind its access rules, through its own route table; `app[NAVAI]` is its backend.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.app.middleware import ErrorResponse
from relay.auth.quotas import PaidRouteQuota
from relay.config.navai_options import NavaiOptions, NavaiPaths
from relay.endpoints.navai.backend import NavaiBackend
from relay.endpoints.navai.client_secret import client_secret
from relay.endpoints.navai.functions import WARNING_PREFIX, execute_function, list_functions
from relay.endpoints.navai.speech import speech_synthesize
from relay.errors import RelayError
from relay.session.common.policy import PROVIDER_SECRET, Principal
from relay.toolkit.loading.loader import ToolLoader
from relay.toolkit.loading.search_paths import SourceFile, ToolSources
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.running.runner import ToolRunner
from relay.transport.http_client import ProviderHttpClient

NAVAI = web.AppKey("navai", NavaiBackend)
_log = logging.getLogger("relay.navai")

NavaiHandler = Callable[[web.Request, NavaiBackend, Principal], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class NavaiRoute:
    """One route: `path` returns its path from the options; `scope` is what a relay requires of the caller's policy.

    Routes with `is_function` can be left out by an option.
    """

    method: str
    path: Callable[[NavaiPaths], str]
    handler: NavaiHandler
    scope: str
    is_function: bool = False


NAVAI_ROUTES: tuple[NavaiRoute, ...] = (
    NavaiRoute("POST", lambda paths: paths.client_secret, client_secret, PROVIDER_SECRET),
    NavaiRoute("POST", lambda paths: paths.speech_synthesize, speech_synthesize, "speech"),
    NavaiRoute("GET", lambda paths: paths.functions_list, list_functions, "tools", is_function=True),
    NavaiRoute("POST", lambda paths: paths.functions_execute, execute_function, "tools", is_function=True),
)
"""Every route of a NAVAI backend; a handler gets the request, the backend and the principal."""


def case_insensitive_pattern(path: str) -> str:
    """Return the aiohttp pattern for a case-insensitive path with an optional trailing slash."""
    bare = path.strip("/")
    name = re.sub(r"\W", "_", f"path_{bare}", flags=re.ASCII)
    return "/{" + name + ":(?i:" + re.escape(bare) + ")/?}"


def relay_handler(row: NavaiRoute) -> Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]:
    """Return a route's handler for the relay's route table, which handles access and errors."""

    async def handle(request: web.Request, principal: Principal) -> web.StreamResponse:
        return await row.handler(request, request.app[NAVAI], principal)

    return handle


@dataclass(frozen=True, slots=True)
class NavaiRuntimeConfig:
    """The modules that the options select, and warnings about them."""

    modules: tuple[SourceFile, ...]
    warnings: tuple[str, ...]


def tool_sources(options: NavaiOptions) -> ToolSources:
    """Return the folders of the options' functions, by NAVAI's rules only."""
    return ToolSources(
        navai_folders=options.functions_folders,
        agents=options.agents_folders,
        base_dir=options.functions_base_dir,
        navai_only=True,
    )


def resolve_runtime_config(options: NavaiOptions) -> NavaiRuntimeConfig:
    """Find the modules that would be loaded, without running them. Raises ToolError for an invalid base folder."""
    warnings: list[str] = []
    modules = tool_sources(options).find_files(warnings)
    return NavaiRuntimeConfig(tuple(modules), tuple(f"{WARNING_PREFIX} {warning}" for warning in warnings))


def add_routes(
    app: web.Application,
    options: NavaiOptions | None = None,
    registry: ToolRegistry | None = None,
    *,
    runner: ToolRunner | None = None,
) -> NavaiBackend:
    """Mount a NAVAI backend in `app`, which has its own access rules and CORS. Returns the backend.

    Options come from the environment and `.env` by default. Without a registry, the functions are loaded from the
    options' folders on the first call. Pass a `runner` to share it between applications; the default one is closed with
    `app`. Raises ConfigError for invalid options.
    """
    options = options or NavaiOptions.from_env()
    library = None
    if registry is None:
        registry = ToolRegistry()
        library = ToolLoader(tool_sources(options), registry)
    backend = NavaiBackend(options, registry, runner, library)
    for warning in options.warnings:
        _log.warning("%s", warning)
    for row in NAVAI_ROUTES:
        if row.is_function and not options.include_functions:
            continue
        resource = app.router.add_resource(case_insensitive_pattern(row.path(options.paths)))
        resource.add_route(row.method, _standalone(row, backend))
        if row.method == "GET":
            resource.add_route("HEAD", _standalone(row, backend))
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - {row.method}:  # OPTIONS belongs to the CORS of `app`
            resource.add_route(method, _wrong_method(row.method))
    app.cleanup_ctx.append(backend.lifetime)
    return backend


def client_secret_handler(options: NavaiOptions) -> Handler:
    """Return a handler for `POST …/client-secret` only, to be mounted anywhere.

    Prefer `add_routes` in an application: it reuses connections, and closes them with the application.
    """
    row = NavaiRoute("POST", lambda paths: paths.client_secret, client_secret, PROVIDER_SECRET)
    spending = PaidRouteQuota()

    async def handle(request: web.Request) -> web.StreamResponse:
        async with ProviderHttpClient() as provider:
            backend = NavaiBackend(options, ToolRegistry(), quota=spending, provider=provider)
            return await _standalone(row, backend)(request)

    return handle


def _standalone(row: NavaiRoute, backend: NavaiBackend) -> Handler:
    """Return a route's handler for any application: it turns errors into JSON itself."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await row.handler(request, backend, Principal("anonymous"))
        except RelayError as error:
            return ErrorResponse.from_error(error).to_response()
        except web.HTTPException:
            raise
        except Exception:
            _log.exception("request failed: %s %r", request.method, request.path)
            return ErrorResponse(500, "Internal error; see the server's log.").to_response()

    return handle


def _wrong_method(allowed: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        text = f"{request.method} is not allowed here; use {allowed}."
        return ErrorResponse(405, text, headers={"Allow": allowed}).to_response()

    return handle
