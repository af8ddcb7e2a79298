"""`GET /navai/functions`: the tools over HTTP, for NAVAI's frontends."""

from aiohttp import web

from relay.core.policy import Principal
from relay.endpoints.navai_backend import NavaiBackend


async def list_functions(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """The tools that are exposed to HTTP, and what went wrong when they were loaded."""
    items = [
        {"name": one.name, "description": one.description, "source": one.source, "parameters": one.parameters}
        for one in backend.registry.exposed_to("http")
    ]
    return web.json_response({"items": items, "warnings": backend.registry.warnings})
