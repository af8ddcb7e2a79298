"""The NAVAI backend for its frontends: `add_routes` mounts it in any aiohttp application.

    add_routes(app)                              # everything from the environment and `.env`
    add_routes(app, NavaiOptions(openai_api_key=…), load_tools("my_tools"))

The relay mounts the same rows behind its access rules, through its own route table; `app[NAVAI]` is its backend.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.app.middleware import ErrorResponse
from relay.app.session_limiter import PaidRouteQuota
from relay.config.navai_options import NavaiOptions, NavaiPaths
from relay.endpoints.navai_handlers import (
    WARNING_PREFIX,
    NavaiBackend,
    client_secret,
    execute_function,
    list_functions,
    speech_synthesize,
)
from relay.errors import RelayError
from relay.session.common.policy import PROVIDER_SECRET, Principal
from relay.toolkit.loading.library import ToolLoader
from relay.toolkit.loading.search_paths import SourceFile, ToolSources
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.running.runner import ToolRunner
from relay.transport.http_client import ProviderHttpClient
from relay.upstreams.clients.browser_secrets import create_client_secret
from relay.upstreams.clients.elevenlabs import synthesize_speech

__all__ = [
    "NAVAI",
    "NavaiOptions",
    "NavaiPaths",
    "add_routes",
    "client_secret_handler",
    "create_client_secret",
    "resolve_runtime_config",
    "synthesize_speech",
]

NAVAI = web.AppKey("navai", NavaiBackend)
_log = logging.getLogger("relay.navai")

NavaiHandler = Callable[[web.Request, NavaiBackend, Principal], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class NavaiRoute:
    """One row: `path` reads the route's path from the options; `scope` is what a relay asks of the caller's policy.

    `is_function` rows are left out on demand.
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
"""Every route of a NAVAI backend; a handler gets the request, the backend and who asks."""


def case_insensitive_pattern(path: str) -> str:
    """An aiohttp route for a path that is matched without regard to case, with or without a slash at its end."""
    bare = path.strip("/")
    name = re.sub(r"\W", "_", f"path_{bare}", flags=re.ASCII)
    return "/{" + name + ":(?i:" + re.escape(bare) + ")/?}"


def relay_handler(row: NavaiRoute) -> Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]:
    """A row's handler as the relay's route table takes it: access and errors are the relay's business."""

    async def handle(request: web.Request, principal: Principal) -> web.StreamResponse:
        return await row.handler(request, request.app[NAVAI], principal)

    return handle


@dataclass(frozen=True, slots=True)
class NavaiRuntimeConfig:
    """Which modules the options mean, and what is to be said about that."""

    modules: tuple[SourceFile, ...]
    warnings: tuple[str, ...]


def tool_sources(options: NavaiOptions) -> ToolSources:
    """Where the options' functions are looked for: by NAVAI's rules alone."""
    return ToolSources(
        navai_folders=options.functions_folders,
        agents=options.agents_folders,
        base_dir=options.functions_base_dir,
        navai_only=True,
    )


def resolve_runtime_config(options: NavaiOptions) -> NavaiRuntimeConfig:
    """The modules that would be loaded, none of which is run. Raises ToolError where the base folder is bad."""
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
    """Mount a NAVAI backend in `app`, which brings its own access rules and CORS. Returns the backend.

    Without options they come from the environment and `.env`. Without a registry the functions are loaded from the
    options' folders on the first call. `runner` is for sharing one between applications; the default ends with `app`.
    Raises ConfigError for options that make no sense.
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
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - {row.method}:  # OPTIONS is for the CORS of `app`
            resource.add_route(method, _wrong_method(row.method))
    app.cleanup_ctx.append(backend.lifetime)
    return backend


def client_secret_handler(options: NavaiOptions) -> Handler:
    """A handler for `POST …/client-secret` alone, to be mounted where one likes.

    `add_routes` is better where there is an application: it keeps connections, and closes them with the application.
    """
    row = NavaiRoute("POST", lambda paths: paths.client_secret, client_secret, PROVIDER_SECRET)
    spending = PaidRouteQuota()

    async def handle(request: web.Request) -> web.StreamResponse:
        async with ProviderHttpClient() as provider:
            backend = NavaiBackend(options, ToolRegistry(), quota=spending, provider=provider)
            return await _standalone(row, backend)(request)

    return handle


def _standalone(row: NavaiRoute, backend: NavaiBackend) -> Handler:
    """A row's handler for an application that knows nothing of ours: errors become JSON here."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await row.handler(request, backend, Principal("anonymous"))
        except RelayError as error:
            return ErrorResponse.from_error(error).to_response()
        except web.HTTPException:
            raise
        except Exception:
            _log.exception("%s %r failed", request.method, request.path)
            return ErrorResponse(500, "The server failed while answering; its log says more.").to_response()

    return handle


def _wrong_method(allowed: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        text = f"{request.method} is not possible here; use {allowed}."
        return ErrorResponse(405, text, headers={"Allow": allowed}).to_response()

    return handle
