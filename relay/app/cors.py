"""CORS: pages of allowed origins may read every answer except those of login and admin routes."""

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.app.context import AUTHENTICATOR
from relay.errors import AccessDenied

NO_CORS_PATHS = ("/login", "/logout", "/recordings")
"""Paths whose answers no page of another origin may read, not even an allowed one."""


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer the preflight requests of allowed origins and refuse all others."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return await handler(request)
    if request.path.startswith(NO_CORS_PATHS):
        raise AccessDenied("This is for pages of the relay itself.")
    if request.app[AUTHENTICATOR].origin(request) != "allowed":
        raise AccessDenied("Pages of this origin may not use this relay. Add it to RELAY_ALLOWED_ORIGINS.")
    return web.Response(status=204, headers=_headers(request, preflight=True))


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the CORS headers just before an answer is sent, so that streamed answers get them too."""
    is_preflight = "Access-Control-Allow-Origin" in response.headers
    if response.status == 101 or is_preflight or request.path.startswith(NO_CORS_PATHS):
        return
    if request.app[AUTHENTICATOR].origin(request) == "allowed":
        response.headers.update(_headers(request, preflight=False))


def _headers(request: web.Request, *, preflight: bool) -> dict[str, str]:
    headers = {"Access-Control-Allow-Origin": request.headers["Origin"], "Vary": "Origin"}
    if preflight:
        wanted = request.headers.get("Access-Control-Request-Headers", "Content-Type, Authorization")
        headers |= {
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Allow-Headers": wanted,
            "Access-Control-Max-Age": "600",
        }
    return headers
