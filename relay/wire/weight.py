"""How much a message asks of whoever reads it, seen before it is read.

JSON of many members costs the reader far more than its bytes: parsing makes an object of each, and rules look at it.
"""

from collections.abc import Mapping
from typing import Any

import orjson

MAX_DEPTH = 200
"""What orjson certainly writes (its limit is 254)."""
MAX_CLIENT_MEMBERS = 10_000
"""In one event of a client: ten times what 128 tools usually have. The rules take up to 2.4 µs for each."""
MAX_UPSTREAM_MEMBERS = 50_000
"""In one event of the upstream, which repeats what clients and the relay configured; few of its members meet a rule."""

_STRUCTURE = b",[{"


def has_too_many_members(raw: bytes, most: int) -> bool:
    """Whether a JSON text has more than `most` members, lists and objects; commas and brackets in its texts are none.

    The work is a few passes over the bytes, however many members there are.
    """
    if _count(raw) <= most:  # no text was taken out yet: this is at least as many
        return False
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A member is at most two texts, its name and its value, and each has two quotes.
    pieces = raw.split(b'"', 4 * most + 4)
    return len(pieces) > 4 * most + 4 or _count(b"".join(pieces[::2])) > most


def _count(raw: bytes) -> int:
    return len(raw) - len(raw.translate(None, _STRUCTURE))


def is_writable(raw: bytes, body: Mapping[str, Any]) -> bool:
    """Whether what was read can be written again, a few levels deeper: the limit on nesting is lower there."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return True
    try:
        orjson.dumps([[[[body]]]])
    except orjson.JSONEncodeError:
        return False
    return True
