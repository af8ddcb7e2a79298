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

_UNSURE = re.compile(r"[^\w -~]")
"""All but ASCII's printable characters, letters and digits: most of a text needs no closer look."""


def escape_controls(text: str) -> str:
    """`text` as one line: every character that would not be shown is written as its Python escape."""
    return _escaped(text, "", _as_python)


def escape_lines(text: str, indent: int = 0) -> str:
    """`text` with its line ends and tabs, all else escaped; every line after the first begins with `indent` spaces.

    With an indent no line of foreign text can look like the first line of something else.
    """
    return _escaped(text, "\n\t", _as_python).replace("\n", "\n" + " " * indent)


def escape_json(text: str) -> str:
    r"""A JSON text with the same value, in which such characters are written as `\uXXXX`; its own line ends stay."""
    return _escaped(text, "\n", _as_json)


def _escaped(text: str, kept: str, escape: Callable[[str], str]) -> str:
    def shown(found: re.Match[str]) -> str:
        char = found[0]
        return char if char in kept or _is_shown(char) else escape(char)

    return text if text.isprintable() else _UNSURE.sub(shown, text)


def _is_shown(char: str) -> bool:
    if char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs":
        return True
    return "\U0001f000" <= char <= "\U0001faff"  # emoji that are newer than Python's tables


def _as_python(char: str) -> str:
    return char.encode("unicode_escape").decode()


def _as_json(char: str) -> str:
    return json.dumps(char)[1:-1]
