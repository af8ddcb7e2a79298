"""Redacts the relay's own secrets from the bodies of HTTP answers."""

from aiohttp import web
from aiohttp.typedefs import Handler

from relay.state import RELAY

_TEXTS = ("application/json", "text/plain")
"""Content types of errors, tools and providers; pages, audio and recordings are not searched."""


@web.middleware
async def redact_answers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Redact the handler's answer."""
    response = await handler(request)
    if isinstance(response, web.Response) and response.content_type in _TEXTS and isinstance(response.body, bytes):
        cleaned = request.app[RELAY].known_secrets.redact_json(response.body)
        if cleaned is not response.body:
            response.body = cleaned
    return response
