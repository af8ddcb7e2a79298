"""Reads requests from words: the cheapest sequence of clauses that covers all of them."""

from collections.abc import Iterable, Iterator
from typing import Any

from relay.local_engine.clauses import Clause, Element, OneOf, Request
from relay.local_engine.english import CONTRACTIONS, LEADS, OPTIONAL, TAILS
from relay.local_engine.phrases import Word, stem
from relay.local_engine.slots import Slot

_LINKS = frozenset(["and", "then", "also", "plus"])
# Some 0.2 s: a text that needs more was made to be ambiguous.
_MOST_STEPS = 10_000
_MOST_REQUESTS = 4


ByFirst = dict[str, list[Clause]]


def by_first_word(clauses: Iterable[Clause]) -> ByFirst:
    """Clauses by the word that they must begin with; under "" those that may begin in several ways."""
    table: ByFirst = {}
    for clause in clauses:
        table.setdefault(_first_word(clause), []).append(clause)
    return table


def expanded(words: list[Word]) -> list[Word]:
    """Contractions in full: "what's" -> "what is"."""
    return [
        Word(part, word.start, word.end) for word in words for part in CONTRACTIONS.get(word.text, word.text).split()
    ]


class Parser:
    """Reads requests from words: the cheapest sequence of clauses that covers all of them."""

    def __init__(self, by_first: ByFirst, words: list[Word], text: str, strict: bool) -> None:
        self._by_first, self._words, self._text, self._strict = by_first, words, text, strict
        self._best: dict[int, tuple[float, list[Request]] | None] = {}
        self._steps = 0

    def requests(self) -> list[Request] | None:
        """The requests, or None."""
        best = self._from(0)
        return best[1] if best and len(best[1]) <= _MOST_REQUESTS else None

    def _from(self, start: int) -> tuple[float, list[Request]] | None:
        if start >= len(self._words):
            return None
        if start not in self._best:
            self._best[start] = min(self._options(start), key=lambda option: option[0], default=None)
        return self._best[start]

    def _options(self, start: int) -> Iterator[tuple[float, list[Request]]]:
        for lead in LEADS:
            rest = self._from(start + len(lead)) if self._at(start, lead) else None
            if rest:
                yield rest[0] + 0.2, rest[1]
        clauses = (*self._by_first.get(stem(self._words[start].text), ()), *self._by_first.get("", ()))
        for clause in clauses:
            for end, arguments, cost in self._match(clause.elements, 0, start):
                request = Request(clause.name, clause.tool, arguments, clause.follows)
                if self._is_tail(end):
                    yield cost, [request]
                elif end > start:
                    after = self._link(end)
                    rest = self._from(after)
                    if rest:
                        yield cost + rest[0] + (0.5 if after > end else 1.5), [request, *rest[1]]

    def _match(self, elements: tuple[Element, ...], index: int, at: int) -> Iterator[tuple[int, dict[str, Any], float]]:
        """Ways to match elements[index:] from word `at`: (end, arguments, cost)."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
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
        elif isinstance(element, OneOf):
            if at < len(self._words) and self._words[at].text in element.words:
                yield from self._match(elements, index + 1, at + 1)
            yield from self._match(elements, index + 1, at)
        elif at < len(self._words) and stem(self._words[at].text) == stem(element):
            yield from self._match(elements, index + 1, at + 1)
        elif not self._strict:
            yield from self._match_loosely(elements, index, at)

    def _match_loosely(
        self, elements: tuple[Element, ...], index: int, at: int
    ) -> Iterator[tuple[int, dict[str, Any], float]]:
        """Small words may be missing or too many."""
        if index > 0:
            yield from self._skip(elements, index, at)
        if elements[index] in OPTIONAL:
            for end, arguments, cost in self._match(elements, index + 1, at):
                yield end, arguments, cost + 0.4

    def _skip(self, elements: tuple[Element, ...], index: int, at: int) -> Iterator[tuple[int, dict[str, Any], float]]:
        if at < len(self._words) and self._words[at].text in OPTIONAL:
            for end, arguments, cost in self._match(elements, index, at + 1):
                yield end, arguments, cost + 0.4

    def _at(self, start: int, phrase: tuple[str, ...]) -> bool:
        return tuple(word.text for word in self._words[start : start + len(phrase)]) == phrase

    def _is_tail(self, start: int) -> bool:
        """Whether nothing but politeness follows."""
        return start >= len(self._words) or any(
            self._at(start, tail) and self._is_tail(start + len(tail)) for tail in TAILS
        )

    def _link(self, start: int) -> int:
        while start < len(self._words) and self._words[start].text in _LINKS:
            start += 1
        return start


def _first_word(clause: Clause) -> str:
    """The word that a clause must begin with; "" if there is no such word."""
    first = clause.elements[0] if clause.elements else ""
    return stem(first) if isinstance(first, str) and first not in OPTIONAL else ""
