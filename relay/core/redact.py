"""Takes credentials out of text that comes from outside and may go to a log, an error or a client."""

import re

_SECRET = re.compile(
    r"(?i:(?:xi[-_])?api[-_]?key)[\"']?\s*:\s*[\"']?[^\s,\"']+"
    r"|\b(?:sk|ek|rk|pk|xi)[-_][A-Za-z0-9*_\-]{4,}"
    r"|(?i:bearer)\s+[A-Za-z0-9._~+/=\-]{4,}"
    r"|\beyJ[A-Za-z0-9_\-]{8,}(?:\.[A-Za-z0-9_\-]*)*"  # a JSON Web Token
    r"|(?i:(?:api[-_]?key|key|token|ticket)=)[^\s&\"']+"
    r"|://[^/\s:@]+:[^/\s@]+@"
)
MAX_CHARS = 500


def redact(text: str, max_chars: int = MAX_CHARS) -> str:
    """`text` without anything that looks like a key, token or password, cut to `max_chars`."""
    text = text[: 8 * max_chars]  # what is cut off below need not be searched, however long it is
    return _SECRET.sub(lambda found: "://[…]@" if found[0].startswith("://") else "[…]", text)[:max_chars]


def close_reason(text: str) -> str:
    """`text` as the reason of a close frame: at most 123 bytes of UTF-8, cut between characters (RFC 6455, 5.5)."""
    return redact(text).encode()[:123].decode(errors="ignore")
