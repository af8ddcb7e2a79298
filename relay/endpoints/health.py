"""Health checks: whether the relay is running, and whether it is ready for sessions."""

from aiohttp import web

from relay import __version__
from relay.app.context import SESSIONS, UPSTREAM
from relay.session.common.policy import Principal


async def healthz(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /healthz`: the process is running."""
    return web.json_response({"status": "ok", "version": __version__})


async def readyz(request: web.Request, principal: Principal) -> web.StreamResponse:
    """`GET /readyz`: 200 if a session can start now, else 503 with the reason."""
    upstream = request.app[UPSTREAM]
    reason = "the relay is shutting down" if request.app[SESSIONS].is_draining else upstream.unavailable_reason
    if reason is not None:
        return web.json_response({"status": "not ready", "reason": reason}, status=503)
    return web.json_response({"status": "ready", "upstream": upstream.endpoint.kind})
