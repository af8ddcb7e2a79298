"""Removes texts that a client must not read from errors and sessions of the upstream that quote them.

An upstream that refuses something may quote it. Every run of `PIECE_CHARS` characters that stands in a locked text is
removed: in any case, with lines joined by spaces, or as JSON escapes it. The cost grows with the length of what is
searched, which has a bound: texts and objects beyond `MAX_CHARS` characters and members are left out unread.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from relay.core.redact import MASK

PIECE_CHARS = 24
MIN_WHOLE_CHARS = 8
"""A locked text shorter than a piece is removed only as a whole; one shorter than this is not searched for."""
MAX_CHARS = 32_768


class LockedTexts:
    """The locked texts of one session."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(dict.fromkeys(text.strip() for text in texts if len(text.strip()) >= MIN_WHOLE_CHARS))

    def cut(self, value: Any) -> Any:
        """JSON without any part of the texts; the same object if there is none."""
        return _Cut(*_pieces(self._texts)).of(value) if self._texts else value


class _Cut:
    """One value's cut: `room` is what may still be looked at."""

    def __init__(self, pieces: frozenset[str], wholes: tuple[str, ...]) -> None:
        self._pieces = pieces
        self._wholes = wholes
        self._room = MAX_CHARS

    def of(self, value: Any) -> Any:
        self._room -= 1
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, Mapping | list):
            return value
        if self._room <= 0:
            return MASK
        members = value.items() if isinstance(value, Mapping) else enumerate(value)
        changed = {key: new for key, old in members if (new := self.of(old)) is not old}
        if not changed:
            return value
        if isinstance(value, Mapping):
            return {**value, **changed}
        return [changed.get(index, member) for index, member in enumerate(value)]

    def _text(self, text: str) -> str:
        seen = text[: max(self._room, 0)]
        self._room -= len(seen)
        kept = self._without_pieces(seen)
        for whole in self._wholes:
            kept = _without(kept, whole)
        if len(seen) < len(text):
            return kept + MASK
        return text if kept == text else kept

    def _without_pieces(self, text: str) -> str:
        folded, parts, kept_to, at = _folded(text), [], 0, 0
        while at + PIECE_CHARS <= len(text):
            end = at + PIECE_CHARS
            if folded[at:end] not in self._pieces:
                at += 1
                continue
            while end < len(text) and folded[end + 1 - PIECE_CHARS : end + 1] in self._pieces:
                end += 1
            found = text[at:end]
            before, after = len(found) - len(found.lstrip()), len(found) - len(found.rstrip())
            parts += [text[kept_to : at + before], MASK]
            kept_to, at = end - after, end
        return "".join((*parts, text[kept_to:]))


def _without(text: str, whole: str) -> str:
    folded, parts, kept_to = _folded(text), [], 0
    while (at := folded.find(whole, kept_to)) >= 0:
        parts += [text[kept_to:at], MASK]
        kept_to = at + len(whole)
    return "".join((*parts, text[kept_to:]))


def _folded(text: str) -> str:
    """The text in lower case, with every character in its place.

    U+0130 is the only character whose lower case is longer than itself: one of it must not move all that follows.
    """
    return text.replace("\u0130", "i").lower()


@lru_cache(maxsize=16)
def _pieces(texts: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """All pieces of the texts, and those that are too short to have one. Sessions of one policy share them."""
    ways = {
        _folded(way)
        for text in texts
        for way in (text, " ".join(text.split()), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    }
    pieces = frozenset(way[at : at + PIECE_CHARS] for way in ways for at in range(len(way) - PIECE_CHARS + 1))
    return pieces, tuple(sorted(way for way in ways if MIN_WHOLE_CHARS <= len(way) < PIECE_CHARS))
