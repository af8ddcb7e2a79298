"""Escape untrusted text, so that a terminal does not interpret it and it cannot forge a line.

Escaped are control characters (C0, DEL, C1), line and paragraph separators, bidirectional marks and overrides, other
invisible format characters, lone surrogates and private-use characters. Ordinary writing stays: letters and combining
marks of every script, spaces of every width, emoji with their joiners and variation selectors.
"""

import json
import re
import unicodedata
from collections.abc import Callable

_JOINERS = "\u200c\u200d"
"""Persian and Indic words and emoji sequences need them."""

_NOT_PLAIN_ASCII = re.compile(r"[^\w -~]")
"""Everything except printable ASCII, letters and digits, which never need an escape."""


def escape_controls(text: str) -> str:
    """Return `text` as one line; every character that is not printable becomes its Python escape."""
    return _escape_matches(text, "", _python_escape)


def escape_lines(text: str, indent: int = 0) -> str:
    """Escape `text` except for line ends and tabs; every line after the first begins with `indent` spaces.

    With an indent, no line of untrusted text can look like the first line of another entry.
    """
    return _escape_matches(text, "\n\t", _python_escape).replace("\n", "\n" + " " * indent)


def escape_json(text: str) -> str:
    r"""Return a JSON text with the same value and with such characters as `\uXXXX`; its own line ends stay."""
    return _escape_matches(text, "\n", _json_escape)


def _escape_matches(text: str, allowed: str, escape: Callable[[str], str]) -> str:
    def replacement(match: re.Match[str]) -> str:
        char = match[0]
        return char if char in allowed or _is_printable(char) else escape(char)

    return text if text.isprintable() else _NOT_PLAIN_ASCII.sub(replacement, text)


def _is_printable(char: str) -> bool:
    if char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs":
        return True
    return "\U0001f000" <= char <= "\U0001faff"  # emoji newer than Python's Unicode tables


def _python_escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1]
