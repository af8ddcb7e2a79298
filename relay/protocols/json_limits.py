"""Checks on a message before anything reads it: the size of its JSON, and secrets of the relay in it.

JSON with many members costs far more than its bytes: parsing creates an object for each, and rules look at it.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from relay.protocols.openai.beta import BETA_EVENT_TYPES
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import PASSTHROUGH_EVENTS

MAX_NESTING_DEPTH = 200
"""Depth that orjson certainly serializes (its limit is 254)."""
MAX_CLIENT_MEMBERS = 10_000
"""Per client event: ten times what 128 tools usually have. The rules take up to 2.4 µs for each."""
MAX_UPSTREAM_MEMBERS = 50_000
"""Per upstream event, which echoes what clients and the relay configured; few of its members reach a rule."""
MAX_ESCAPES = 200_000
"""Backslashes per event: a string of a megabyte that holds JSON has so many. Each takes 20 ns to check."""

_STRUCTURE = b",[{"
_CHUNK_BYTES = 64 * 1024
UNREDACTED_EVENT_TYPES = PASSTHROUGH_EVENTS | {
    BETA_EVENT_TYPES[name] for name in PASSTHROUGH_EVENTS if name in BETA_EVENT_TYPES
}
"""Deltas are not redacted: a secret that is split over two of them cannot be found in either."""


def has_too_many_members(raw: bytes, max_members: int) -> bool:
    """Return whether a JSON text has more than `max_members` members, or more than `MAX_ESCAPES` escapes."""
    return len(raw) > max_members and count_members(raw, max_members) is None


def count_members(raw: bytes, max_members: int) -> int | None:
    """Count the members, lists and objects of a JSON text; None if there are too many of them, or of escapes.

    Commas and brackets inside strings do not count. Counting stops at the limit. A long string is skipped by position.
    """
    n_members = n_quotes = n_escapes = start = 0
    in_string, carry = False, b""
    backslash = raw.find(b"\\")
    while start < len(raw):
        if in_string and not carry:
            if 0 <= backslash < start:
                backslash = raw.find(b"\\", start)
            ends = [end for end in (raw.find(b'"', start), backslash) if end >= 0]
            if not ends:
                break
            start = min(ends)
        chunk, start = carry + raw[start : start + _CHUNK_BYTES], start + _CHUNK_BYTES
        carry = b""
        if b"\\" in chunk:
            chunk, carry, n_chunk_escapes = _strip_escapes(chunk)
            n_escapes += n_chunk_escapes
        segments = chunk.split(b'"')
        n_quotes += len(segments) - 1
        structure = b"".join(segments[in_string::2])
        n_members += len(structure) - len(structure.translate(None, _STRUCTURE))
        in_string ^= not len(segments) % 2
        # A member has at most two strings, its name and its value, with two quotes each.
        if n_members > max_members or n_quotes > 4 * max_members + 4 or n_escapes > MAX_ESCAPES:
            return None
    return n_members


def _strip_escapes(chunk: bytes) -> tuple[bytes, bytes, int]:
    """Return a chunk without escaped quotes and backslashes, the carry for the next one, and its escapes."""
    n_trailing = len(chunk) - len(chunk.rstrip(b"\\"))
    carry = chunk[-1:] if n_trailing % 2 else b""
    body = chunk[: len(chunk) - len(carry)]
    stripped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return stripped, carry, (len(body) - len(stripped)) // 2 + stripped.count(b"\\")


def can_reencode(raw: bytes, body: Mapping[str, Any]) -> bool:
    """Return whether a parsed message can be serialized a few levels deeper: orjson parses deeper nesting."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_NESTING_DEPTH:
        return True
    try:
        orjson.dumps([[[[body]]]])
    except orjson.JSONEncodeError:
        return False
    return True


def redact_event(raw: bytes, body: dict[str, Any], secrets: KnownSecrets) -> tuple[bytes, dict[str, Any]]:
    """Return an event, as text and as object, without secrets. Raises JSONDecodeError if that is not JSON."""
    event_type = body.get("type")
    if not secrets or (isinstance(event_type, str) and event_type in UNREDACTED_EVENT_TYPES):
        return raw, body
    redacted = secrets.redact_json(raw)
    return (raw, body) if redacted is raw else (redacted, orjson.loads(redacted))
