"""Takes the relay's own secrets out of the bodies of HTTP answers, whoever wrote them into one."""

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.state import RELAY

_TEXTS = ("application/json", "text/plain")
"""What errors, tools and providers answer with; pages, sound and recordings are the relay's own."""


@web.middleware
async def redact_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the handler answer, and redact what it says."""
    response = await handler(request)
    if isinstance(response, web.Response) and response.content_type in _TEXTS and isinstance(response.body, bytes):
        cleaned = request.app[RELAY].known_secrets.redact_json(response.body)
        if cleaned is not response.body:
            response.body = cleaned
    return response
