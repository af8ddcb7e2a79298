"""The grammar of a session: every sentence that can be understood, from the session's tools and the small talk.

From its clauses come the word network that the recogniser listens by, and the parser that reads recognised and typed
text alike, so that neither can understand what the other cannot.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Any

import orjson

from relay.local_engine.nlu.clauses import (
    Clause,
    ClauseElement,
    OptionalWords,
    ParsedRequest,
    ToolInfo,
    expand_contractions,
    plain_words,
    tool_clauses,
)
from relay.local_engine.nlu.english import LEADS, OPTIONAL, SMALL_TALK, TAILS
from relay.local_engine.nlu.lexicon import english_lexicon
from relay.local_engine.nlu.slots import Slot, spoken_numbers
from relay.local_engine.nlu.text_normalization import Word, stem
from relay.local_engine.nlu.word_lattice import (
    Alt,
    Expression,
    Repeat,
    Seq,
    WordLattice,
    compile_lattice,
    count_words,
    optional,
)

_MAX_CLAUSES = 600
_MAX_CHOICES, _MAX_TOOL_CHOICES = 6_000, 400
_MAX_WORDS = 60
_LINKS = frozenset(["and", "then", "also", "plus"])
# Some 0.2 s: a text that needs more was made to be ambiguous.
_MAX_STEPS = 10_000
_MAX_REQUESTS = 4
_SPOKEN_LEADS = (("please",), ("can", "you"), ("could", "you"), ("would", "you"), ("okay",))
_SPOKEN_TAILS = (("please",), ("thanks",), ("thank", "you"))
# Compiling takes about a second for these; the clauses after that can only be typed.
_MAX_LATTICE_WORDS = 12_000

_ClausesByFirstWord = dict[str, list[Clause]]


class Grammar:
    """All clauses of a session; immutable, so it can be shared by sessions with the same tools."""

    def __init__(self, tools: Iterable[dict[str, Any]]) -> None:
        self.tools: dict[str, ToolInfo] = {}
        room = _MAX_CHOICES
        for tool in tools:
            info = ToolInfo.from_tool(tool, min(room, _MAX_TOOL_CHOICES))
            if info.name and tool.get("type", "function") == "function":
                self.tools[info.name] = info
                room = max(room - sum(len(slot.choices) for slot in info.slots.values()), 0)
        clauses = [clause for info in self.tools.values() for clause in tool_clauses(info)]
        clauses += [
            Clause(topic, False, tuple(plain_words(text))) for topic, texts in SMALL_TALK.items() for text in texts
        ]
        self._clauses = list(dict.fromkeys(clauses))[:_MAX_CLAUSES]
        self._by_first = _by_first_word(self._clauses)
        self._follow_ups = {
            name: _by_first_word(clause for clause in self._clauses if clause.is_follow_up and clause.name == name)
            for name in self.tools
        }

    def parse(self, text: str, *, strict: bool = False, last_tool: str | None = None) -> list[ParsedRequest] | None:
        """The requests in a text ("roll two dice and tell me the time": two); None if a part is not understood.

        Strict is for recognised speech: every word as the grammar has it, and only values known beforehand.
        `last_tool` is the tool that was called last: what only repeats a request ("and in tokyo") is read as one to
        that tool.
        """
        words = expand_contractions(text[:4000])
        if not 0 < len(words) <= _MAX_WORDS:
            return None
        clauses = self._follow_ups.get(last_tool) if last_tool is not None else None
        follow_up = _Parser(clauses, words, text, strict=True).requests() if clauses else None
        return follow_up or _Parser(self._by_first, words, text, strict=strict).requests()

    @cached_property
    def word_lattice(self) -> WordLattice:
        """What the recogniser listens for: small talk alone, requests for tools with politeness, strung with "and".

        Clauses with a word that can't be pronounced, or with a slot whose values are not known, are left out. Compiled
        once for all decoders of a grammar: it takes longer than the rest of a decoder.
        """
        alternatives: list[Expression] = []
        tool_requests: list[Expression] = []
        room = _MAX_LATTICE_WORDS
        speakable = [clause for clause in self._clauses if clause.is_speakable]
        for clause in sorted(speakable, key=lambda clause: (clause.is_tool, clause.is_follow_up)):
            expression = _clause_expression(clause)
            if expression is None:
                continue
            room -= count_words(expression)
            if room < 0:
                break
            (tool_requests if clause.is_tool and not clause.is_follow_up else alternatives).append(expression)
        if tool_requests:
            lead = optional(Alt(tuple(Seq(words) for words in _SPOKEN_LEADS)))
            tail = optional(Alt(tuple(Seq(words) for words in _SPOKEN_TAILS)))
            alternatives.append(Seq((lead, Repeat(Alt(tuple(tool_requests)), Seq(("and", optional("then")))), tail)))
        return compile_lattice(Alt(tuple(alternatives)))


@lru_cache(maxsize=64)
def grammar_for_tools(tools_json: bytes) -> Grammar:
    """The grammar of a list of tools; sessions with the same tools share it, and by it their recognisers."""
    return Grammar(orjson.loads(tools_json))


def _by_first_word(clauses: Iterable[Clause]) -> _ClausesByFirstWord:
    """Clauses by the word that they must begin with; under "" those that may begin in several ways."""
    table: _ClausesByFirstWord = {}
    for clause in clauses:
        first = clause.elements[0] if clause.elements else ""
        table.setdefault(stem(first) if isinstance(first, str) and first not in OPTIONAL else "", []).append(clause)
    return table


def _is_pronounceable(words: Iterable[str]) -> bool:
    return all(english_lexicon().pronunciations(word) for word in words)


def _clause_expression(clause: Clause) -> Expression | None:
    parts: list[Expression] = []
    for element in clause.elements:
        if isinstance(element, Slot):
            expression = _slot_expression(element)
        elif isinstance(element, OptionalWords):
            expression = optional(Alt(tuple(word for word in element.words if _is_pronounceable([word]))))
        else:
            expression = element if _is_pronounceable([element]) else None
        if expression is None:
            return None
        parts.append(expression)
    if len(parts) > 2 and parts[0] in ("what", "how") and parts[1] == "is":
        parts[:2] = [Alt((f"{parts[0]}'s", Seq((parts[0], "is"))))]
    return Seq(tuple(parts))


def _slot_expression(slot: Slot) -> Expression | None:
    if slot.kind in ("integer", "number"):
        return spoken_numbers(*slot.spoken_range, fractions=slot.kind == "number")
    forms = [Seq(form) for form in dict.fromkeys(choice.words for choice in slot.choices) if _is_pronounceable(form)]
    return Alt(tuple(forms)) if forms else None


class _Parser:
    """Reads requests from words: the cheapest sequence of clauses that covers all of them."""

    def __init__(self, by_first: _ClausesByFirstWord, words: list[Word], text: str, *, strict: bool) -> None:
        self._by_first, self._words, self._text, self._strict = by_first, words, text, strict
        self._best: dict[int, tuple[float, list[ParsedRequest]] | None] = {}
        self._steps = 0

    def requests(self) -> list[ParsedRequest] | None:
        """The requests, or None."""
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
                yield rest[0] + 0.2, rest[1]
        clauses = (*self._by_first.get(stem(self._words[start].text), ()), *self._by_first.get("", ()))
        for clause in clauses:
            for end, arguments, cost in self._match(clause.elements, 0, start):
                request = ParsedRequest(clause.name, clause.is_tool, arguments, clause.is_follow_up)
                if self._is_tail(end):
                    yield cost, [request]
                elif end > start:
                    after = self._skip_links(end)
                    rest = self._parse_from(after)
                    if rest:
                        yield cost + rest[0] + (0.5 if after > end else 1.5), [request, *rest[1]]

    def _match(
        self, elements: tuple[ClauseElement, ...], index: int, at: int
    ) -> Iterator[tuple[int, dict[str, Any], float]]:
        """Ways to match elements[index:] from word `at`: (end, arguments, cost)."""
        self._steps += 1
        if self._steps > _MAX_STEPS:
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

    def _match_loosely(
        self, elements: tuple[ClauseElement, ...], index: int, at: int
    ) -> Iterator[tuple[int, dict[str, Any], float]]:
        """Small words may be missing or too many."""
        if index > 0:
            yield from self._skip(elements, index, at)
        if elements[index] in OPTIONAL:
            for end, arguments, cost in self._match(elements, index + 1, at):
                yield end, arguments, cost + 0.4

    def _skip(
        self, elements: tuple[ClauseElement, ...], index: int, at: int
    ) -> Iterator[tuple[int, dict[str, Any], float]]:
        if at < len(self._words) and self._words[at].text in OPTIONAL:
            for end, arguments, cost in self._match(elements, index, at + 1):
                yield end, arguments, cost + 0.4

    def _matches_phrase(self, start: int, phrase: tuple[str, ...]) -> bool:
        return tuple(word.text for word in self._words[start : start + len(phrase)]) == phrase

    def _is_tail(self, start: int) -> bool:
        """Whether nothing but politeness follows."""
        return start >= len(self._words) or any(
            self._matches_phrase(start, tail) and self._is_tail(start + len(tail)) for tail in TAILS
        )

    def _skip_links(self, start: int) -> int:
        while start < len(self._words) and self._words[start].text in _LINKS:
            start += 1
        return start
