"""CORS: the pages of allowed origins may read answers, but for those of the relay's own pages."""

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.errors import AccessDenied
from relay.state import RELAY

OWN_PAGES = ("/login", "/logout", "/recordings")
"""Where no other origin's page may read anything, allowed or not: the login, and what is below an admin route."""


@web.middleware
async def preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers the preflights of allowed origins; what their pages may read of an answer, `let_pages_read` says."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return await handler(request)
    if request.path.startswith(OWN_PAGES):
        raise AccessDenied("This is for pages of the relay itself.")
    if request.app[RELAY].auth.origin(request) != "allowed":
        raise AccessDenied("Pages of this origin may not use this relay. Add it to RELAY_ALLOWED_ORIGINS.")
    return web.Response(status=204, headers=_headers(request, preflight=True))


async def let_pages_read(request: web.Request, response: web.StreamResponse) -> None:
    """The CORS headers of an answer; set as it is sent, so that one that is streamed has them as well."""
    is_preflight = "Access-Control-Allow-Origin" in response.headers
    if response.status == 101 or is_preflight or request.path.startswith(OWN_PAGES):
        return
    if request.app[RELAY].auth.origin(request) == "allowed":
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
