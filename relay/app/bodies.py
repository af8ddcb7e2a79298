"""Bodies of requests: none may be compressed, and what a route does not read is not kept."""

from aiohttp import HttpVersion11, web
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
    if _is_compressed(request):
        raise web.HTTPUnsupportedMediaType(
            text="The relay takes no compressed bodies; send it without Content-Encoding.",
            headers={"Accept-Encoding": "identity"},
        )
    return await handler(request)


async def ask_for_body(request: web.Request) -> None:
    """Answer `Expect: 100-continue` with 100, but not for a body that is refused (RFC 9110, 10.1.1)."""
    is_expected = request.headers.get("Expect", "").lower() == "100-continue"
    if is_expected and request.version >= HttpVersion11 and not _is_compressed(request):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp counts from here what was sent of the answer


def _is_compressed(request: web.Request) -> bool:
    codings = ",".join(request.headers.getall("Content-Encoding", ())).split(",")
    return any(coding.strip().lower() not in ("", "identity") for coding in codings)
