"""The parser: reads recognized or typed words as a sequence of requests."""

from collections.abc import Iterable, Iterator
from typing import Any

from relay.local_engine.nlu.clauses import Clause, ClauseElement, OptionalWords, ParsedRequest
from relay.local_engine.nlu.english import LEADS, OPTIONAL, TAILS
from relay.local_engine.nlu.slots import Slot
from relay.local_engine.nlu.text_normalization import Word, stem

_LINKS = frozenset(["and", "then", "also", "plus"])
_MAX_STEPS = 10_000  # some 0.2 s: only a text made to be ambiguous needs more
_MAX_REQUESTS = 4
_LEAD_COST, _OPTIONAL_WORD_COST = 0.2, 0.4
_LINK_COST, _NO_LINK_COST = 0.5, 1.5

ClausesByFirstWord = dict[str, list[Clause]]
_Match = tuple[int, dict[str, Any], float]
"""The index after the matched words, the arguments and the cost."""


def clauses_by_first_word(clauses: Iterable[Clause]) -> ClausesByFirstWord:
    """Index clauses by their first word; under "" are those that can begin with several words."""
    table: ClausesByFirstWord = {}
    for clause in clauses:
        first = clause.elements[0] if clause.elements else ""
        table.setdefault(stem(first) if isinstance(first, str) and first not in OPTIONAL else "", []).append(clause)
    return table


class RequestParser:
    """Parses words into requests: finds the cheapest sequence of clauses that covers all words."""

    def __init__(self, by_first: ClausesByFirstWord, words: list[Word], text: str, *, strict: bool) -> None:
        self._by_first, self._words, self._text, self._strict = by_first, words, text, strict
        self._best: dict[int, tuple[float, list[ParsedRequest]] | None] = {}
        self._n_steps = 0

    def requests(self) -> list[ParsedRequest] | None:
        """Return the requests, or None if the words do not match."""
        best = self._parse_from(0)
        return best[1] if best and len(best[1]) <= _MAX_REQUESTS else None

    def _parse_from(self, start: int) -> tuple[float, list[ParsedRequest]] | None:
        if start >= len(self._words):
            return None
        if start not in self._best:
            self._best[start] = min(self._options(start), key=lambda option: option[0], default=None)
        return self._best[start]

    def _options(self, start: int) -> Iterator[tuple[float, list[ParsedRequest]]]:
        for lead in LEADS:
            rest = self._parse_from(start + len(lead)) if self._matches_phrase(start, lead) else None
            if rest:
                yield rest[0] + _LEAD_COST, rest[1]
        clauses = (*self._by_first.get(stem(self._words[start].text), ()), *self._by_first.get("", ()))
        for clause in clauses:
            for end, arguments, cost in self._match(clause.elements, 0, start):
                request = ParsedRequest(clause.name, clause.is_tool, arguments, clause.is_follow_up)
                if self._is_polite_ending(end):
                    yield cost, [request]
                elif end > start:
                    after = self._skip_links(end)
                    rest = self._parse_from(after)
                    if rest:
                        yield cost + rest[0] + (_LINK_COST if after > end else _NO_LINK_COST), [request, *rest[1]]

    def _match(self, elements: tuple[ClauseElement, ...], index: int, at: int) -> Iterator[_Match]:
        """Yield the ways to match elements[index:] from word `at`: (end, arguments, cost)."""
        self._n_steps += 1
        if self._n_steps > _MAX_STEPS:
            return
        if index == len(elements):
            yield at, {}, 0.0
            return
        element = elements[index]
        if isinstance(element, Slot):
            if index > 0 and not self._strict:
                yield from self._skip(elements, index, at)
            for end, value, cost in element.read(self._words, at, self._text):
                if self._strict and cost:
                    continue
                for last, arguments, more in self._match(elements, index + 1, end):
                    yield last, {element.name: value, **arguments}, cost + more
        elif isinstance(element, OptionalWords):
            if at < len(self._words) and self._words[at].text in element.words:
                yield from self._match(elements, index + 1, at + 1)
            yield from self._match(elements, index + 1, at)
        elif at < len(self._words) and stem(self._words[at].text) == stem(element):
            yield from self._match(elements, index + 1, at + 1)
        elif not self._strict:
            yield from self._match_loosely(elements, index, at)

    def _match_loosely(self, elements: tuple[ClauseElement, ...], index: int, at: int) -> Iterator[_Match]:
        """Match although optional words are missing or added."""
        if index > 0:
            yield from self._skip(elements, index, at)
        if elements[index] in OPTIONAL:
            for end, arguments, cost in self._match(elements, index + 1, at):
                yield end, arguments, cost + _OPTIONAL_WORD_COST

    def _skip(self, elements: tuple[ClauseElement, ...], index: int, at: int) -> Iterator[_Match]:
        if at < len(self._words) and self._words[at].text in OPTIONAL:
            for end, arguments, cost in self._match(elements, index, at + 1):
                yield end, arguments, cost + _OPTIONAL_WORD_COST

    def _matches_phrase(self, start: int, phrase: tuple[str, ...]) -> bool:
        return tuple(word.text for word in self._words[start : start + len(phrase)]) == phrase

    def _is_polite_ending(self, start: int) -> bool:
        """Whether only polite phrases follow."""
        return start >= len(self._words) or any(
            self._matches_phrase(start, tail) and self._is_polite_ending(start + len(tail)) for tail in TAILS
        )

    def _skip_links(self, start: int) -> int:
        while start < len(self._words) and self._words[start].text in _LINKS:
            start += 1
        return start
