"""Foreign text, escaped so that a terminal shows it and does not interpret it, and so that it forges no line.

Escaped are control characters (C0, DEL, C1), line and paragraph separators, and marks and overrides of the writing
direction. So are other invisible format characters, lone surrogates and private characters. What people write stays:
letters and combining marks of every script, spaces of every width, emoji with their joiners and variation selectors.
"""

import json
import re
import unicodedata
from collections.abc import Callable

_JOINERS = "\u200c\u200d"
"""Persian and Indic words need them, and so do emoji of several people."""

_NOT_PLAIN_ASCII = re.compile(r"[^\w -~]")
"""All but ASCII's printable characters, letters and digits: most of a text needs no closer look."""


def escape_controls(text: str) -> str:
    """`text` as one line: every character that would not be shown is written as its Python escape."""
    return _escaped(text, "", _python_escape)


def escape_lines(text: str, indent: int = 0) -> str:
    """`text` with its line ends and tabs, all else escaped; every line after the first begins with `indent` spaces.

    With an indent no line of foreign text can look like the first line of something else.
    """
    return _escaped(text, "\n\t", _python_escape).replace("\n", "\n" + " " * indent)


def escape_json(text: str) -> str:
    r"""A JSON text with the same value, in which such characters are written as `\uXXXX`; its own line ends stay."""
    return _escaped(text, "\n", _json_escape)


def _escaped(text: str, allowed: str, escape: Callable[[str], str]) -> str:
    def replacement(match: re.Match[str]) -> str:
        char = match[0]
        return char if char in allowed or _is_printable(char) else escape(char)

    return text if text.isprintable() else _NOT_PLAIN_ASCII.sub(replacement, text)


def _is_printable(char: str) -> bool:
    if char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs":
        return True
    return "\U0001f000" <= char <= "\U0001faff"  # emoji that are newer than Python's tables


def _python_escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1]
