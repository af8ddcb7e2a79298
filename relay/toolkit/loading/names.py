"""Names of tools from names in code, and the order of files: both as NAVAI has them."""

import re
import unicodedata

MAX_NAME_CHARS = 64
FALLBACK_NAME = "fn"

_CAMEL_CASE_BOUNDARY = re.compile(r"([a-z0-9])([A-Z])")
_NOT_ALPHANUMERIC = re.compile(r"[^A-Za-z0-9]+")
# Punctuation comes before digits, digits before letters (Unicode Collation Algorithm, root order).
_PUNCTUATION = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$"


def to_tool_name(name: str) -> str:
    """A name in lower snake case with nothing but ASCII letters, digits and "_"; "fn" where nothing is left."""
    words = _NOT_ALPHANUMERIC.sub("_", _CAMEL_CASE_BOUNDARY.sub(r"\1_\2", name)).strip("_").lower()
    return words[:MAX_NAME_CHARS].rstrip("_") or FALLBACK_NAME


def collation_key(text: str) -> tuple[list[tuple[int, int | str]], str]:
    """Sorts as a reader would: without regard to case and accents, which only decide between equals."""
    return [_char_key(char) for char in unicodedata.normalize("NFKD", text.casefold())], text.swapcase()


def _char_key(char: str) -> tuple[int, int | str]:
    if unicodedata.combining(char):
        return (0, 0)
    if char in _PUNCTUATION:
        return (1, _PUNCTUATION.index(char))
    return (2, char) if char.isdigit() else (3, char)
