"""Redacts the secrets that a relay was configured with from text and JSON, by their exact values (D10, D12).

`relay.session.common.redact` finds text that looks like a credential; this module finds known credentials of any form.
The settings' secrets are added at the start and whenever settings are reloaded, and are never removed. Of tokens that
change at run time, the latest `MAX_ROTATING` are kept. Short or ordinary values are not treated as secrets, because
they would redact ordinary text.

Each secret is searched in its plain, JSON and URL spelling, the longest first. JSON with unusual escapes is rewritten
before the search. Long base64 is skipped, as it is audio or an image. Every search is a plain substring search: its
cost grows with the length of the message and the number of secrets.
"""

import json
import re
from collections import deque
from collections.abc import Iterable
from urllib.parse import quote

import orjson

from relay.session.common.redact import MASK

MIN_CHARS = 8
"""Shorter values occur by chance."""
MAX_ROTATING = 8
"""Secrets fetched at run time that are kept; then the oldest is forgotten."""
BLOCK_BYTES = 32 * 1024
"""A block of this length without a quote or space is base64 of audio or an image, and is not searched."""

_MASK_BYTES = MASK.encode()
_WORD = re.compile(r"[a-z_.]{0,15}|[0-9]{0,15}")
"""A short word or number, such as the password "password": it also occurs in ordinary events."""
_ESCAPE = re.compile(rb"\\[u/]")
"""An escape in JSON of a character that needs none."""


def is_secret(value: str) -> bool:
    """Return whether a value is unlike ordinary text: 8 characters, or 16 if all are lower-case letters or digits."""
    return len(value) >= MIN_CHARS and _WORD.fullmatch(value) is None


class KnownSecrets:
    """Values that must not leave the relay. Secrets can be added while sessions run."""

    def __init__(self, values: Iterable[str | None] = ()) -> None:
        self._configured_secrets: set[str] = set()
        self._rotating: deque[str] = deque(maxlen=MAX_ROTATING)
        self._texts: tuple[str, ...] = ()
        self._needles: tuple[bytes, ...] = ()
        self._longest_bytes = 0
        self.add(values)

    def __bool__(self) -> bool:
        return bool(self._texts)

    def add(self, values: Iterable[str | None]) -> None:
        """Add secrets for good; values that are not secret (`is_secret`) are skipped."""
        self._configured_secrets |= {value for value in values if value is not None and is_secret(value)}
        self._prepare()

    def add_rotating(self, value: str) -> None:
        """Add a secret that changes at run time, such as a bearer token; only the latest are kept."""
        if is_secret(value) and value not in self._rotating:
            self._rotating.append(value)
            self._prepare()

    def redact(self, text: str) -> str:
        """Return `text` without any secret; the same object if it contains none."""
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, MASK)
        return text

    def redact_truncated(self, text: str) -> str:
        """Redact a text in which long values may have been cut by others: the beginning of a secret is redacted too.

        Such a beginning has at least `MIN_CHARS` characters, followed by dots or by the end of the text.
        """
        text = self.redact(text)
        for secret in self._texts:
            text = _without_beginnings(text, secret)
        return text

    def redact_json(self, raw: bytes) -> bytes:
        """Return a JSON text without any secret, in any spelling; the same object if it contains none.

        Invalid JSON is searched as it is. Long base64 is skipped (`BLOCK_BYTES`).
        """
        if not self._needles:
            return raw
        plain = _normalize_escapes(raw)
        spans = self._searched_spans(plain)
        if all(plain.find(needle, start, end) < 0 for start, end in spans for needle in self._needles):
            return raw
        for needle in self._needles:
            plain = plain.replace(needle, _MASK_BYTES)
        return plain

    def _prepare(self) -> None:
        forms = {form for value in (*self._configured_secrets, *self._rotating) for form in _spellings(value)}
        # The longest first, so that a secret within a longer one does not leave the rest of the longer one.
        self._texts = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._needles = tuple(form.encode(errors="surrogatepass") for form in self._texts)
        self._longest_bytes = max(map(len, self._needles), default=0)

    def _searched_spans(self, raw: bytes) -> list[tuple[int, int]]:
        """Return where to search: all but blocks of audio or images, with a margin for secrets across a boundary."""
        if len(raw) <= 2 * BLOCK_BYTES:
            return [(0, len(raw))]
        spans: list[tuple[int, int]] = []
        margin = self._longest_bytes
        for start in range(0, len(raw), BLOCK_BYTES):
            end = start + BLOCK_BYTES
            if end <= len(raw) and raw.find(b'"', start, end) < 0 and raw.find(b" ", start, end) < 0:
                continue
            first, last = max(0, start - margin), min(len(raw), end + margin)
            if spans and spans[-1][1] >= first:
                spans[-1] = (spans[-1][0], last)
            else:
                spans.append((first, last))
        return spans


NO_SECRETS = KnownSecrets()
"""An empty shared instance: never add to it."""


def _without_beginnings(text: str, secret: str) -> str:
    beginning, parts, copied_to = secret[:MIN_CHARS], [], 0
    start = text.find(beginning)
    while start >= 0:
        end = start + _common_length(secret, text[start : start + len(secret)])
        search_from = start + 1
        if end == len(text) or text.startswith(("...", "…"), end):
            parts += [text[copied_to:start], MASK]
            copied_to = search_from = end
        start = text.find(beginning, search_from)
    return "".join((*parts, text[copied_to:])) if parts else text


def _common_length(left: str, right: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _spellings(value: str) -> set[str]:
    """Return the spellings of a secret in text, in JSON and in a URL."""
    in_json = (json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return {value, *in_json, quote(value, safe="", errors="replace")}


def _normalize_escapes(raw: bytes) -> bytes:
    """Return a JSON text without needless escapes, so that each text has one spelling."""
    if b"\\" not in raw or _ESCAPE.search(raw) is None:  # the search for one byte is almost free
        return raw
    try:
        return orjson.dumps(orjson.loads(raw))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    try:  # orjson refuses half of a surrogate pair, which is legal JSON
        return json.dumps(json.loads(raw)).encode()
    except (ValueError, RecursionError):  # not JSON, or nested too deeply
        return raw
