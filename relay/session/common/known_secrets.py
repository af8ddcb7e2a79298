"""Redacts the secrets that a relay was configured with from text and JSON, by their exact values (D10, D12).

`relay.session.common.redact` finds what looks like a credential; this finds the credentials themselves, whatever they
look like. The settings' secrets are added at the start, and again when settings are read again; nothing that was
`add`ed is forgotten. Tokens that change at run time are learned, and the latest `MAX_ROTATING` are kept. Short or
ordinary values are no secrets here, for they would redact ordinary text.

Each secret is searched for as it is, as JSON spells it and as URLs do, the longest first. JSON that spells a character
in an unusual way is rewritten before the search. Long base64 is left out, as it is audio or an image. Every search is
one of plain bytes or text: the work grows with the length of a message and the number of secrets.
"""

import json
import re
from collections import deque
from collections.abc import Iterable
from urllib.parse import quote

import orjson

from relay.session.common.redact import MASK

MIN_CHARS = 8
"""A shorter value also occurs by chance."""
MAX_ROTATING = 8
"""How many of the secrets that are fetched at run time are remembered; the oldest is forgotten."""
BLOCK_BYTES = 32 * 1024
"""A block of this length without a quote and without a space is base64 of audio or an image: it is not searched."""

_MASK_BYTES = MASK.encode()
_WORD = re.compile(r"[a-z_.]{0,15}|[0-9]{0,15}")
"""A short word or number, such as the password "password": it is also an ordinary part of events and numbers."""
_ESCAPE = re.compile(rb"\\[u/]")
"""How JSON can spell a character that needs no escape."""


def is_secret(value: str) -> bool:
    """Whether a value can be told from ordinary text: 8 characters, 16 of lower-case letters or digits alone."""
    return len(value) >= MIN_CHARS and _WORD.fullmatch(value) is None


class KnownSecrets:
    """Values that nobody outside may read. Secrets can be added while sessions run; none is ever forgotten by `add`."""

    def __init__(self, values: Iterable[str | None] = ()) -> None:
        self._configured: set[str] = set()
        self._rotating: deque[str] = deque(maxlen=MAX_ROTATING)
        self._texts: tuple[str, ...] = ()
        self._needles: tuple[bytes, ...] = ()
        self._longest_bytes = 0
        self.add(values)

    def __bool__(self) -> bool:
        return bool(self._texts)

    def add(self, values: Iterable[str | None]) -> None:
        """Know these as well; what is no secret (`is_secret`) is left out."""
        self._configured |= {value for value in values if value is not None and is_secret(value)}
        self._prepare()

    def add_rotating(self, value: str) -> None:
        """Know a secret that changes while the relay runs, such as a bearer token; the latest are kept."""
        if is_secret(value) and value not in self._rotating:
            self._rotating.append(value)
            self._prepare()

    def redact(self, text: str) -> str:
        """`text` without any secret; the same object if it holds none."""
        for secret in self._texts:
            if secret in text:
                text = text.replace(secret, MASK)
        return text

    def redact_truncated(self, text: str) -> str:
        """The same, for a text in which others have cut long values: a secret's beginning goes as well.

        Its beginning is at least `MIN_CHARS` of it, with dots or nothing behind them.
        """
        text = self.redact(text)
        for secret in self._texts:
            text = _without_beginnings(text, secret)
        return text

    def redact_json(self, raw: bytes) -> bytes:
        """A JSON text without any secret, however its characters are escaped; the same object if it holds none.

        What is no JSON is searched as it stands. Long base64 is left out (`BLOCK_BYTES`).
        """
        if not self._needles:
            return raw
        plain = _without_odd_escapes(raw)
        spans = self._spans(plain)
        if all(plain.find(needle, start, end) < 0 for start, end in spans for needle in self._needles):
            return raw
        for needle in self._needles:
            plain = plain.replace(needle, _MASK_BYTES)
        return plain

    def _prepare(self) -> None:
        forms = {form for value in (*self._configured, *self._rotating) for form in _forms(value)}
        # The longest first: a secret within another one must not leave the rest of it.
        self._texts = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        self._needles = tuple(form.encode(errors="surrogatepass") for form in self._texts)
        self._longest_bytes = max(map(len, self._needles), default=0)

    def _spans(self, raw: bytes) -> list[tuple[int, int]]:
        """Where to search: everything but blocks of audio or images, with a margin for secrets that cross a border."""
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
"""For whoever knows none; never to be added to."""


def _without_beginnings(text: str, secret: str) -> str:
    beginning, parts, kept_to = secret[:MIN_CHARS], [], 0
    at = text.find(beginning)
    while at >= 0:
        end = at + _common_length(secret, text[at : at + len(secret)])
        look_from = at + 1
        if end == len(text) or text.startswith(("...", "…"), end):
            parts += [text[kept_to:at], MASK]
            kept_to = look_from = end
        at = text.find(beginning, look_from)
    return "".join((*parts, text[kept_to:])) if parts else text


def _common_length(one: str, other: str) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _forms(value: str) -> set[str]:
    """A secret as it stands in text, in JSON and in a URL."""
    in_json = (json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return {value, *in_json, quote(value, safe="", errors="replace")}


def _without_odd_escapes(raw: bytes) -> bytes:
    """A JSON text in which no character is escaped without need, so that each text has one spelling."""
    if b"\\" not in raw or _ESCAPE.search(raw) is None:  # the first looks for one byte, which takes next to no time
        return raw
    try:
        return orjson.dumps(orjson.loads(raw))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass
    try:  # orjson refuses half of a surrogate pair, which is legal JSON
        return json.dumps(json.loads(raw)).encode()
    except (ValueError, RecursionError):  # no JSON, or nested too deeply
        return raw
