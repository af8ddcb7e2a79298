"""What the routes that cost money ask of a request and its fields."""

import math
import re
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from relay.errors import BadRequest
from relay.state import RELAY

NO_STORE = {"Cache-Control": "no-store"}

_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


def check_sender(request: web.Request) -> None:
    """A page elsewhere can make a browser send a form here unasked, but no JSON, and not under our own origin.

    Raises BadRequest for a request that is neither JSON nor from a page that may use us.
    """
    if request.content_type == "application/json":
        return
    origin = request.headers.get("Origin")
    if origin is not None and (RELAY in request.app or urlsplit(origin).netloc == request.headers.get("Host")):
        return  # in a relay, foreign origins do not come this far
    raise BadRequest("Send the body as JSON, with Content-Type: application/json.", "Content-Type")


def address_of(request: web.Request) -> str | None:
    """Where a request comes from; in a relay, through the proxies that its settings name."""
    return request.app[RELAY].auth.address(request) if RELAY in request.app else request.remote


def text_of(body: dict[str, Any], name: str) -> str | None:
    """A string field, trimmed; None where it is missing, null or blank. Raises BadRequest for another type."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string.", name)
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise BadRequest(f"{name} holds half a character (a lone surrogate).", name)
    return value.strip() or None


def key_of(body: dict[str, Any], name: str) -> str | None:
    """A field that is sent on in a header. Raises BadRequest for what no header can hold; never repeats it."""
    value = text_of(body, name)
    if value is not None and not _HEADER_SAFE.fullmatch(value):
        raise BadRequest(f"{name} holds characters that no key has.", name)
    return value


def number_of(body: dict[str, Any], name: str, where: str = "") -> float | None:
    """A number; None where it is missing or null. Raises BadRequest for anything else; `where` is its parent's name."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRequest(f"{where}{name} must be a number.", f"{where}{name}")
    return value
