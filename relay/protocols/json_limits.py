"""What is done with a message before anybody reads it: it is weighed, and cleaned of the relay's own secrets.

JSON of many members costs the reader far more than its bytes: parsing makes an object of each, and rules look at it.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from relay.protocols.openai.beta import BETA_EVENT_TYPES
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import PASSTHROUGH_EVENTS

MAX_NESTING_DEPTH = 200
"""What orjson certainly writes (its limit is 254)."""
MAX_CLIENT_MEMBERS = 10_000
"""In one event of a client: ten times what 128 tools usually have. The rules take up to 2.4 µs for each."""
MAX_UPSTREAM_MEMBERS = 50_000
"""In one event of the upstream, which repeats what clients and the relay configured; few of its members meet a rule."""
MAX_ESCAPES = 200_000
"""Backslashes in one event: JSON in a text of a megabyte has so many. To look behind each takes 20 ns."""

_STRUCTURE = b",[{"
_PIECE_BYTES = 64 * 1024
UNREDACTED_EVENT_TYPES = PASSTHROUGH_EVENTS | {
    BETA_EVENT_TYPES[kind] for kind in PASSTHROUGH_EVENTS if kind in BETA_EVENT_TYPES
}
"""Not searched: a secret that is split over two deltas cannot be found in either."""


def has_too_many_members(raw: bytes, max_members: int) -> bool:
    """Whether a JSON text has more than `max_members` members, or more than `MAX_ESCAPES` escapes."""
    return len(raw) > max_members and count_members(raw, max_members) is None


def count_members(raw: bytes, max_members: int) -> int | None:
    """How many members, lists and objects a JSON text has; None for more than `max_members`, or than `MAX_ESCAPES`
    escapes.

    Commas and brackets in its texts are none. What has too many is seen at its first ones; a long text of a few members
    is passed over by position.
    """
    n_members = n_quotes = n_escapes = start = 0
    in_text, held = False, b""
    slash_at = raw.find(b"\\")
    while start < len(raw):
        if in_text and not held:
            if 0 <= slash_at < start:
                slash_at = raw.find(b"\\", start)
            ends = [at for at in (raw.find(b'"', start), slash_at) if at >= 0]
            if not ends:
                break
            start = min(ends)
        piece, start = held + raw[start : start + _PIECE_BYTES], start + _PIECE_BYTES
        held = b""
        if b"\\" in piece:
            piece, held, n_found = _strip_escapes(piece)
            n_escapes += n_found
        texts_and_rest = piece.split(b'"')
        n_quotes += len(texts_and_rest) - 1
        rest = b"".join(texts_and_rest[in_text::2])
        n_members += len(rest) - len(rest.translate(None, _STRUCTURE))
        in_text ^= not len(texts_and_rest) % 2
        # A member is at most two texts, its name and its value, and each has two quotes.
        if n_members > max_members or n_quotes > 4 * max_members + 4 or n_escapes > MAX_ESCAPES:
            return None
    return n_members


def _strip_escapes(piece: bytes) -> tuple[bytes, bytes, int]:
    """A piece without its escaped quotes and backslashes, what belongs to the next one, and the number of escapes."""
    n_last = len(piece) - len(piece.rstrip(b"\\"))
    held = piece[-1:] if n_last % 2 else b""
    whole = piece[: len(piece) - len(held)]
    bare = whole.replace(b"\\\\", b"").replace(b'\\"', b"")
    return bare, held, (len(whole) - len(bare)) // 2 + bare.count(b"\\")


def can_reencode(raw: bytes, body: Mapping[str, Any]) -> bool:
    """Whether what was read can be written again, a few levels deeper: the limit on nesting is lower there."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_NESTING_DEPTH:
        return True
    try:
        orjson.dumps([[[[body]]]])
    except orjson.JSONEncodeError:
        return False
    return True


def redact_event(raw: bytes, body: dict[str, Any], secrets: KnownSecrets) -> tuple[bytes, dict[str, Any]]:
    """An event, as text and as object, without secrets. Raises JSONDecodeError where it is no JSON without them."""
    kind = body.get("type")
    if not secrets or (isinstance(kind, str) and kind in UNREDACTED_EVENT_TYPES):
        return raw, body
    cleaned = secrets.redact_json(raw)
    return (raw, body) if cleaned is raw else (cleaned, orjson.loads(cleaned))
