"""How much a message asks of whoever reads it, seen before it is read."""

from collections.abc import Mapping
from typing import Any

import orjson

MAX_DEPTH = 200
"""What orjson certainly writes (its limit is 254)."""
MAX_PARTS = 200_000
"""Objects and lists in one message: to read more of them would hold up all other sessions for tenths of a second."""


def count_parts(raw: bytes) -> int:
    """At least as many as there are objects and lists in a message; brackets in its strings count as well."""
    return raw.count(b"[") + raw.count(b"{")


def is_writable(raw: bytes, body: Mapping[str, Any]) -> bool:
    """Whether what was read can be written again, a few levels deeper: the limit on nesting is lower there."""
    if count_parts(raw) <= MAX_DEPTH:
        return True
    try:
        orjson.dumps([[[[body]]]])
    except orjson.JSONEncodeError:
        return False
    return True
