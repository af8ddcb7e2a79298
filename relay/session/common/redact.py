"""Redacts credentials from external text that may go to a log, an error or a client."""

import re
from collections.abc import Mapping
from typing import Any

_SECRET = re.compile(
    r"(?i:(?:xi[-_])?api[-_]?key)[\"']?\s*:\s*[\"']?[^\s,\"']+"
    r"|\bek_relay_[A-Za-z0-9_.\-]+"
    r"|\b(?:sk|ek|rk|pk|xi)[-_][A-Za-z0-9*_\-]{4,}"
    r"|(?i:bearer)\s+[A-Za-z0-9._~+/=\-]{4,}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)*"  # a JSON Web Token
    r"|(?i:(?:api[-_]?key|key|token|ticket)=)[^\s&\"']+"
    r"|://[^/\s:@]+:[^/\s@]+@"
)
_SIGNS = (
    "key", "bearer", "ken=", "ket=", "://", "eyj",
    "sk-", "sk_", "ek-", "ek_", "rk-", "rk_", "pk-", "pk_", "xi-", "xi_",
)  # fmt: skip
"""Each match of `_SECRET` contains one of these in lower case, and they are found many times as fast. Where case does
not count, none contains an i or an s: case-insensitive expressions match other letters for these as well."""
MASK = "[…]"
"""The replacement for redacted text."""
MAX_CHARS = 500
_NO_TEXT = frozenset({int, float, bool, type(None)})
_SECRET_KEY = re.compile(r"(?i)^(authorization|(x[-_])?api[-_]?key|.*(password|passwd|secret)|(.*[-_])?token|ticket)$")


def redact(text: str, max_chars: int = MAX_CHARS) -> str:
    """Return `text` without anything that looks like a key, token or password, cut to `max_chars`."""
    text = text[: 8 * max_chars]  # the rest is cut off below, and need not be searched
    lower_text = text.lower()
    for sign in _SIGNS:
        if sign in lower_text:
            break
    else:
        return text[:max_chars]
    return _SECRET.sub(lambda match: f"://{MASK}@" if match[0].startswith("://") else MASK, text)[:max_chars]


def close_reason(text: str) -> str:
    """Return `text` as the reason of a close frame: at most 123 bytes of UTF-8, redacted (RFC 6455, section 5.5)."""
    return redact(text).encode()[:123].decode(errors="ignore")


def redact_value(value: Any) -> Any:
    """Return a JSON value without credentials, recognized by the look of a text or by the name of its key."""
    if type(value) in _NO_TEXT:
        return value
    if isinstance(value, str):
        return redact(value, len(value)) if len(value) > 6 else value
    if isinstance(value, Mapping):
        return {
            key: MASK if isinstance(member, str) and member and _SECRET_KEY.match(key) else redact_value(member)
            for key, member in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_value(member) for member in value]
    return value
