"""Request bodies: CSRF check, JSON parsing with limits, and typed fields."""

import json
import math
import re
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from relay.app.context import AUTHENTICATOR
from relay.errors import BadRequest, OpenAIError, PayloadTooLarge
from relay.protocols.json_limits import MAX_ESCAPES, has_too_many_members

NO_STORE = {"Cache-Control": "no-store"}

MAX_BODY_BYTES = 100 * 1024
"""The size limit of bodies, except on OpenAI-shaped routes."""
MAX_MEMBERS = 10_000
"""The limit of members and list elements in a body; each costs time on the event loop."""

_NOT_AN_OBJECT_TEXT = "The body must be a JSON object."
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")


def check_csrf(request: web.Request) -> None:
    """Refuse forms of other sites: a browser sends them without a preflight, unlike JSON.

    Raises BadRequest for a request that is neither JSON nor from an allowed origin.
    """
    if request.content_type == "application/json":
        return
    origin = request.headers.get("Origin")
    if origin is not None and (AUTHENTICATOR in request.app or urlsplit(origin).netloc == request.headers.get("Host")):
        return  # a relay has refused other origins already
    raise BadRequest("Send the body as JSON, with Content-Type: application/json.", "Content-Type")


async def read_json_object(request: web.Request) -> dict[str, Any]:
    """Read the JSON object of a request; empty without a body or with another content type than application/json.

    Raises BadRequest unless the body is a JSON object in UTF-8, PayloadTooLarge beyond `MAX_BODY_BYTES`.
    """
    if request.content_type != "application/json" or not request.can_read_body:
        return {}
    raw = bytearray()
    async for chunk in request.content.iter_chunked(16 * 1024):
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"The body may have at most {MAX_BODY_BYTES} bytes.")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise BadRequest("The body must be UTF-8.")
    body = parse_json_body(bytes(raw))
    if not isinstance(body, dict):
        raise BadRequest(_NOT_AN_OBJECT_TEXT)
    return body


async def read_openai_object(request: web.Request) -> dict[str, Any]:
    """Read the JSON object of a request on an OpenAI-shaped route. Raises OpenAIError for anything else."""
    raw = await request.read()
    try:
        body = parse_json_body(raw)
    except BadRequest as error:
        raise OpenAIError(str(error), 400, "invalid_json") from error
    if not isinstance(body, dict):
        raise OpenAIError(_NOT_AN_OBJECT_TEXT, 400, "invalid_type")
    return body


def parse_json_body(raw: bytes) -> Any:
    """Parse a JSON body; a blank one is an empty object.

    Raises BadRequest for invalid JSON and for too many members. Also refuses what parsers interpret differently (RFC
    8259, 4 and 8.2): duplicate members, lone surrogates, NaN.
    """
    if not raw.strip():
        return {}
    if has_too_many_members(raw, MAX_MEMBERS):
        raise BadRequest(
            f"The body may have at most {MAX_MEMBERS} members and list elements, and {MAX_ESCAPES} escapes in its "
            "strings; send less at a time."
        )
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        orjson.loads(raw)  # it is stricter, but does not detect duplicate members
        return json.loads(raw, object_pairs_hook=_unique_members)
    except (ValueError, RecursionError) as error:
        reason = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise BadRequest(f"The body is not valid JSON{reason}.") from None


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        [(duplicate, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise BadRequest(f"The body has the member {duplicate[:80]!r} twice.")
    return members


def client_address(request: web.Request) -> str | None:
    """Return the client's address; in a relay, behind the proxies of RELAY_PROXIES."""
    return request.app[AUTHENTICATOR].client_address(request) if AUTHENTICATOR in request.app else request.remote


def string_field(body: dict[str, Any], name: str) -> str | None:
    """Return a string field, trimmed; None if missing, null or blank. Raises BadRequest for another type."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string.", name)
    return value.strip() or None


def key_field(body: dict[str, Any], name: str) -> str | None:
    """Return a field that is sent in a header. Raises BadRequest, without the value, for invalid characters."""
    value = string_field(body, name)
    if value is not None and not _HEADER_SAFE.fullmatch(value):
        raise BadRequest(f"{name} contains characters that a key cannot have.", name)
    return value


def number_field(body: dict[str, Any], name: str, parent: str = "") -> float | None:
    """Return a number; None if missing or null. Raises BadRequest for anything else. `parent` prefixes its name."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRequest(f"{parent}{name} must be a number.", f"{parent}{name}")
    return value
