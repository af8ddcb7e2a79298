"""Bodies of requests: none may be compressed, and what a route does not read is not kept."""

from aiohttp import web
from aiohttp.typedefs import Handler

UNREAD_S = 1.0
"""How long the rest of a body that no route read is thrown away, so that its sender can read the answer."""
UNREAD_BYTES = 1024 * 1024
"""How much of it."""
HANDLER_ARGS = {"auto_decompress": False, "lingering_time": UNREAD_S, "read_bufsize": 64 * 1024}
"""What aiohttp is told: it would inflate a body while it parses it, before any route is asked."""


@web.middleware
async def refuse_compressed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a request whose `Content-Encoding` is another than identity with 415 (RFC 9110, 8.4 and 15.5.16)."""
    codings = ",".join(request.headers.getall("Content-Encoding", ())).split(",")
    if any(coding.strip().lower() not in ("", "identity") for coding in codings):
        raise web.HTTPUnsupportedMediaType(
            text="The relay takes no compressed bodies; send it without Content-Encoding.",
            headers={"Accept-Encoding": "identity"},
        )
    return await handler(request)
