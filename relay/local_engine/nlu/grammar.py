"""The grammar of a session: every sentence that can be understood, from the session's tools and the small talk.

From its clauses come the word network that the recogniser listens by, and the parser that reads recognised and typed
text alike, so that neither can understand what the other cannot.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Any

import orjson

from relay.local_engine.nlu.clauses import Clause, Element, OneOf, Request, ToolInfo, expanded, plain, tool_clauses
from relay.local_engine.nlu.english import LEADS, OPTIONAL, SMALL_TALK, TAILS
from relay.local_engine.nlu.lexicon import english
from relay.local_engine.nlu.slots import Slot, spoken_numbers
from relay.local_engine.nlu.text_normalization import Word, stem
from relay.local_engine.nlu.word_lattice import Again, Alt, Expression, Network, Seq, compile_network, optional, size_of

_MOST_CLAUSES = 600
_MOST_CHOICES, _MOST_CHOICES_OF_ONE = 6_000, 400
_MOST_WORDS = 60
_LINKS = frozenset(["and", "then", "also", "plus"])
# Some 0.2 s: a text that needs more was made to be ambiguous.
_MOST_STEPS = 10_000
_MOST_REQUESTS = 4
_SPOKEN_LEADS = (("please",), ("can", "you"), ("could", "you"), ("would", "you"), ("okay",))
_SPOKEN_TAILS = (("please",), ("thanks",), ("thank", "you"))
# Compiling takes about a second for these; the clauses after that can only be typed.
_MOST_SPOKEN_WORDS = 12_000

_ByFirst = dict[str, list[Clause]]


class Grammar:
    """All clauses of a session; immutable, so it can be shared by sessions with the same tools."""

    def __init__(self, tools: Iterable[dict[str, Any]]) -> None:
        self.tools: dict[str, ToolInfo] = {}
        room = _MOST_CHOICES
        for tool in tools:
            info = ToolInfo.of(tool, min(room, _MOST_CHOICES_OF_ONE))
            if info.name and tool.get("type", "function") == "function":
                self.tools[info.name] = info
                room = max(room - sum(len(slot.choices) for slot in info.slots.values()), 0)
        clauses = [clause for info in self.tools.values() for clause in tool_clauses(info)]
        clauses += [Clause(topic, False, tuple(plain(text))) for topic, texts in SMALL_TALK.items() for text in texts]
        self._clauses = list(dict.fromkeys(clauses))[:_MOST_CLAUSES]
        self._by_first = _by_first_word(self._clauses)
        self._follow_ups = {
            name: _by_first_word(clause for clause in self._clauses if clause.follows and clause.name == name)
            for name in self.tools
        }

    def parse(self, text: str, *, strict: bool = False, after: str | None = None) -> list[Request] | None:
        """The requests in a text ("roll two dice and tell me the time": two); None if a part is not understood.

        Strict is for recognised speech: every word as the grammar has it, and only values known beforehand. `after` is
        the tool that was called last: what only repeats a request ("and in tokyo") is read as one to that tool.
        """
        words = expanded(text[:4000])
        if not 0 < len(words) <= _MOST_WORDS:
            return None
        clauses = self._follow_ups.get(after) if after is not None else None
        follow_up = _Parser(clauses, words, text, strict=True).requests() if clauses else None
        return follow_up or _Parser(self._by_first, words, text, strict=strict).requests()

    @cached_property
    def network(self) -> Network:
        """What the recogniser listens for: small talk alone, requests for tools with politeness, strung with "and".

        Clauses with a word that can't be pronounced, or with a slot whose values are not known, are left out. Compiled
        once for all decoders of a grammar: it takes longer than the rest of a decoder.
        """
        talk: list[Expression] = []
        asked: list[Expression] = []
        room = _MOST_SPOKEN_WORDS
        aloud = [clause for clause in self._clauses if clause.aloud]
        for clause in sorted(aloud, key=lambda clause: (clause.tool, clause.follows)):
            said = _clause_aloud(clause)
            if said is None:
                continue
            room -= size_of(said)
            if room < 0:
                break
            (asked if clause.tool and not clause.follows else talk).append(said)
        if asked:
            lead = optional(Alt(tuple(Seq(words) for words in _SPOKEN_LEADS)))
            tail = optional(Alt(tuple(Seq(words) for words in _SPOKEN_TAILS)))
            talk.append(Seq((lead, Again(Alt(tuple(asked)), Seq(("and", optional("then")))), tail)))
        return compile_network(Alt(tuple(talk)))


@lru_cache(maxsize=64)
def grammar_of(tools_json: bytes) -> Grammar:
    """The grammar of a list of tools; sessions with the same tools share it, and by it their recognisers."""
    return Grammar(orjson.loads(tools_json))


def _by_first_word(clauses: Iterable[Clause]) -> _ByFirst:
    """Clauses by the word that they must begin with; under "" those that may begin in several ways."""
    table: _ByFirst = {}
    for clause in clauses:
        first = clause.elements[0] if clause.elements else ""
        table.setdefault(stem(first) if isinstance(first, str) and first not in OPTIONAL else "", []).append(clause)
    return table


def _can_be_said(words: Iterable[str]) -> bool:
    return all(english().readings(word) for word in words)


def _clause_aloud(clause: Clause) -> Expression | None:
    parts: list[Expression] = []
    for element in clause.elements:
        if isinstance(element, Slot):
            said = _slot_aloud(element)
        elif isinstance(element, OneOf):
            said = optional(Alt(tuple(word for word in element.words if _can_be_said([word]))))
        else:
            said = element if _can_be_said([element]) else None
        if said is None:
            return None
        parts.append(said)
    if len(parts) > 2 and parts[0] in ("what", "how") and parts[1] == "is":
        parts[:2] = [Alt((f"{parts[0]}'s", Seq((parts[0], "is"))))]
    return Seq(tuple(parts))


def _slot_aloud(slot: Slot) -> Expression | None:
    if slot.kind in ("integer", "number"):
        return spoken_numbers(*slot.spoken_range, fractions=slot.kind == "number")
    forms = [Seq(form) for form in dict.fromkeys(choice.words for choice in slot.choices) if _can_be_said(form)]
    return Alt(tuple(forms)) if forms else None


class _Parser:
    """Reads requests from words: the cheapest sequence of clauses that covers all of them."""

    def __init__(self, by_first: _ByFirst, words: list[Word], text: str, *, strict: bool) -> None:
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
