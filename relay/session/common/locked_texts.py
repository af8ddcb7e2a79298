"""Removes texts that a client must not read from upstream JSON that quotes them."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from relay.session.common.redact import MASK

MIN_MATCH_CHARS = 24
MIN_LOCKED_TEXT_CHARS = 8
"""A text shorter than `MIN_MATCH_CHARS` is removed only as a whole; one shorter than this is not searched for."""
MAX_SCANNED_CHARS = 32_768


class LockedTexts:
    """Redacts locked texts in upstream errors and sessions.

    Every run of at least `MIN_MATCH_CHARS` characters of a locked text is removed: in any case, with lines joined by
    spaces, or escaped as JSON. The cost grows with the length of the input, which is bounded: what lies beyond
    `MAX_SCANNED_CHARS` characters and members is removed unread.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(dict.fromkeys(text.strip() for text in texts if len(text.strip()) >= MIN_LOCKED_TEXT_CHARS))

    def redact(self, value: Any) -> Any:
        """Return JSON without any part of the texts; the same object if nothing matches."""
        return _LockedTextRedaction(*_index_texts(self._texts)).apply(value) if self._texts else value


class _LockedTextRedaction:
    """The redaction of one value, with the number of characters and members that may still be scanned."""

    def __init__(self, fragments: frozenset[str], short_texts: tuple[str, ...]) -> None:
        self._fragments = fragments
        self._short_texts = short_texts
        self._remaining_chars = MAX_SCANNED_CHARS

    def apply(self, value: Any) -> Any:
        self._remaining_chars -= 1
        if isinstance(value, str):
            return self._redact_text(value)
        if not isinstance(value, Mapping | list):
            return value
        if self._remaining_chars <= 0:
            return MASK
        members = value.items() if isinstance(value, Mapping) else enumerate(value)
        changed = {key: new for key, old in members if (new := self.apply(old)) is not old}
        if not changed:
            return value
        if isinstance(value, Mapping):
            return {**value, **changed}
        return [changed.get(index, member) for index, member in enumerate(value)]

    def _redact_text(self, text: str) -> str:
        scanned_text = text[: max(self._remaining_chars, 0)]
        self._remaining_chars -= len(scanned_text)
        redacted = self._redact_fragments(scanned_text)
        for locked_text in self._short_texts:
            redacted = _redact_whole(redacted, locked_text)
        if len(scanned_text) < len(text):
            return redacted + MASK
        return text if redacted == text else redacted

    def _redact_fragments(self, text: str) -> str:
        folded, parts, copied_to, start = _fold_case(text), [], 0, 0
        while start + MIN_MATCH_CHARS <= len(text):
            end = start + MIN_MATCH_CHARS
            if folded[start:end] not in self._fragments:
                start += 1
                continue
            while end < len(text) and folded[end + 1 - MIN_MATCH_CHARS : end + 1] in self._fragments:
                end += 1
            match = text[start:end]
            leading, trailing = len(match) - len(match.lstrip()), len(match) - len(match.rstrip())
            parts += [text[copied_to : start + leading], MASK]
            copied_to, start = end - trailing, end
        return "".join((*parts, text[copied_to:]))


def _redact_whole(text: str, locked_text: str) -> str:
    folded, parts, copied_to = _fold_case(text), [], 0
    while (start := folded.find(locked_text, copied_to)) >= 0:
        parts += [text[copied_to:start], MASK]
        copied_to = start + len(locked_text)
    return "".join((*parts, text[copied_to:]))


def _fold_case(text: str) -> str:
    """Return the text in lower case, with every character at its original index.

    U+0130 is the only character whose lower case is longer than itself; it must not shift the rest.
    """
    return text.replace("\u0130", "i").lower()


@lru_cache(maxsize=16)
def _index_texts(texts: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return all fragments of the texts, and the texts too short to have one. Sessions of one policy share them."""
    variants = {_fold_case(variant) for text in texts for variant in _variants(text)}
    fragments = frozenset(
        variant[start : start + MIN_MATCH_CHARS]
        for variant in variants
        for start in range(len(variant) - MIN_MATCH_CHARS + 1)
    )
    short_texts = (variant for variant in variants if MIN_LOCKED_TEXT_CHARS <= len(variant) < MIN_MATCH_CHARS)
    return fragments, tuple(sorted(short_texts))


def _variants(text: str) -> tuple[str, ...]:
    escaped = (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    return (text, " ".join(text.split()), *escaped)
