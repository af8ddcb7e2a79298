"""Redacts the relay's own secrets from the bodies of HTTP answers."""

from aiohttp import web

from relay.core.known_secrets import KnownSecrets

_TEXTS = ("application/json", "text/plain")
"""Content types of errors, tools and providers; pages, audio and recordings are not searched."""


def redact_answer(secrets: KnownSecrets, response: web.StreamResponse) -> None:
    """Redact an answer that is not sent yet."""
    if isinstance(response, web.Response) and response.content_type in _TEXTS and isinstance(response.body, bytes):
        cleaned = secrets.redact_json(response.body)
        if cleaned is not response.body:
            response.body = cleaned
