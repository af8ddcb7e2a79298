"""The grammar of a session: every sentence that can be understood, from the session's tools and the small talk.

A clause is a sequence of words and slots. From the clauses come the JSGF text that the recogniser listens by, and
the parser that reads recognised and typed text alike, so that neither can understand what the other cannot.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from relay.local_engine.clauses import PREPOSITIONS, Clause, Element, OneOf, Request
from relay.local_engine.descriptions import described
from relay.local_engine.english import SMALL_TALK
from relay.local_engine.lexicon import Lexicon
from relay.local_engine.network import Network, compile_network
from relay.local_engine.parser import Parser, by_first_word, expanded
from relay.local_engine.phrases import Word, name_to_words, words_of
from relay.local_engine.sayable import Sayable
from relay.local_engine.slots import Slot, slots_of

_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_FETCHING = frozenset(["get", "fetch", "show", "find", "read", "list", "lookup", "query"])
_MOST_CLAUSES = 600
_MOST_CHOICES, _MOST_CHOICES_OF_ONE = 6_000, 400
_MOST_WORDS = 60


@dataclass(frozen=True, slots=True)
class ToolInfo:
    """A function tool as the grammar sees it."""

    name: str
    description: str
    slots: dict[str, Slot]
    examples: tuple[str, ...]

    @classmethod
    def of(cls, tool: dict[str, Any], most_choices: int = 400) -> "ToolInfo":
        """From a function tool of the Realtime API; example sentences stand in `parameters["x-examples"]`."""
        parameters = tool.get("parameters")
        listed = parameters.get("x-examples") if isinstance(parameters, dict) else None
        examples = [e[:300] for e in listed if isinstance(e, str)][:40] if isinstance(listed, list) else []
        description = tool.get("description")
        return cls(
            str(tool.get("name", "")),
            description if isinstance(description, str) else "",
            slots_of(parameters, most_choices),
            tuple(examples),
        )

    @property
    def title(self) -> str:
        """The name as words: "roll dice"."""
        return " ".join(name_to_words(self.name)) or self.name

    def example(self) -> str:
        """A sentence that a user could say to this tool."""
        pattern = next((e for e in self.examples if not _unknown(e, self.slots)), None)
        if pattern is None:
            required = [slot for slot in self.slots.values() if slot.required]
            return " ".join([self.title, *(f"for {slot.sample()}" for slot in required)])
        return _PLACEHOLDER.sub(lambda found: self.slots[found[1].strip()].sample(), pattern)


def _unknown(example: str, slots: dict[str, Slot]) -> bool:
    return any(name.strip() not in slots for name in _PLACEHOLDER.findall(example))


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
        clauses = [clause for info in self.tools.values() for clause in _tool_clauses(info)]
        clauses += [
            Clause(topic, False, tuple(_plain(phrase))) for topic, phrases in SMALL_TALK.items() for phrase in phrases
        ]
        self.clauses = list(dict.fromkeys(clauses))[:_MOST_CLAUSES]
        self._by_first = by_first_word(self.clauses)
        self._follow_ups = {
            name: by_first_word(clause for clause in self.clauses if clause.follows and clause.name == name)
            for name in self.tools
        }

    def parse(self, text: str, *, strict: bool = False, after: str | None = None) -> list[Request] | None:
        """The requests in a text ("roll two dice and tell me the time": two); None if a part is not understood.

        Strict is for recognised speech: every word as the grammar has it, and only values known beforehand. `after` is
        the tool that was called last: what only repeats a request ("and in tokyo") is read as one to that tool.
        """
        words = expanded(words_of(text[:4000]))
        if not 0 < len(words) <= _MOST_WORDS:
            return None
        return self._follow_up(words, text, after) or Parser(self._by_first, words, text, strict).requests()

    def _follow_up(self, words: list[Word], text: str, after: str | None) -> list[Request] | None:
        clauses = self._follow_ups.get(after) if after is not None else None
        return Parser(clauses, words, text, True).requests() if clauses else None

    def network(self, lexicon: Lexicon) -> Network:
        """What the recogniser listens for.

        Clauses with a word that can't be pronounced, or with a slot whose values are not known, are left out.
        """
        aloud = [clause for clause in self.clauses if clause.aloud]
        return compile_network(Sayable(lexicon).sentences(aloud))


def _plain(text: str) -> list[str]:
    return [word.text for word in expanded(words_of(text))]


def _tool_clauses(info: ToolInfo) -> Iterator[Clause]:
    for example in info.examples:
        elements = _pattern(example, info.slots)
        if elements:
            yield Clause(info.name, True, elements)
    for opening in _openings(info):
        yield Clause(info.name, True, (*opening, *_asked(info.slots)), aloud=not info.examples)
    if not info.examples:
        for elements in described(info.description, info.slots):
            yield Clause(info.name, True, elements)
    yield from _follow_ups(info)


def _follow_ups(info: ToolInfo) -> Iterator[Clause]:
    """How a request is repeated with one other value: "and in tokyo", "what about tokyo"."""
    for slot in info.slots.values():
        if slot.kind != "choice":
            continue  # a number alone is heard into everything
        own = name_to_words(slot.name)[:1]
        link: tuple[Element, ...] = tuple(own) if own and own[0] in PREPOSITIONS else (OneOf(PREPOSITIONS),)
        for opening in (("and",), ("what", "about"), ("how", "about")):
            yield Clause(info.name, True, (*opening, *link, slot), follows=True)


def _pattern(example: str, slots: dict[str, Slot]) -> tuple[Element, ...]:
    """ "roll {count} dice" as elements; empty if a placeholder names no parameter."""
    elements: list[Element] = []
    for index, part in enumerate(_PLACEHOLDER.split(example)):
        if index % 2 == 0:
            elements.extend(_plain(part))
        elif part.strip() in slots:
            elements.append(slots[part.strip()])
        else:
            return ()
    return tuple(elements)


def _openings(info: ToolInfo) -> Iterator[tuple[Element, ...]]:
    """How a tool can be named without any example: "roll dice", "use roll dice", "what is the weather"."""
    words = name_to_words(info.name)
    if not words:
        return
    yield tuple(words)
    yield (OneOf(("use", "run", "call", "start")), *words)
    if words[0] in _FETCHING and len(words) > 1:
        words = words[1:]
        yield tuple(words)
    yield ("what", "is", OneOf(("the",)), *words)
    yield (OneOf(("tell", "show", "give", "get")), OneOf(("me",)), OneOf(("the",)), *words)


def _asked(slots: dict[str, Slot]) -> list[Element]:
    """The required slots, each behind a preposition or its own name."""
    asked: list[Element] = []
    for slot in slots.values():
        if slot.required:
            own = tuple(word for word in name_to_words(slot.name)[-1:] if word not in PREPOSITIONS)
            asked += [OneOf(PREPOSITIONS + own), slot]
    return asked
