"""Clauses: the sentences that can be understood, each a sequence of words and slots.

A tool's clauses come from its example sentences, its name and its description. "Turn a lamp on or off." with a
parameter `lamp` is understood as "turn {lamp} on" and "turn {lamp} off"; a parameter that the sentence does not name
stands behind a preposition, as in "tell the weather in {city}".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from relay.local_engine.nlu.english import CONTRACTIONS
from relay.local_engine.nlu.slots import Slot, slots_of
from relay.local_engine.nlu.text_normalization import Word, name_to_words, spoken, words_of

PREPOSITIONS = ("in", "for", "of", "to", "with", "at", "on", "from", "by")
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_FETCHING = frozenset(["get", "fetch", "show", "find", "read", "list", "lookup", "query"])
_ARTICLES = frozenset(("a", "an", "the", "one", "some", "given", "specific", "particular", "certain", "your"))
_VERB_ENDINGS = (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("s", ""))
_MOST_DESCRIPTION_WORDS = 12


@dataclass(frozen=True, slots=True)
class OneOf:
    """A place in a clause for at most one of some words."""

    words: tuple[str, ...]


Element = str | Slot | OneOf


@dataclass(frozen=True, slots=True)
class Clause:
    """One way to ask for something: a tool by its name, or (`tool` false) a topic of small talk.

    `aloud` is false for what is only understood when typed: every sentence more makes recognition worse. `follows` is
    for what repeats an earlier request with another value.
    """

    name: str
    tool: bool
    elements: tuple[Element, ...]
    aloud: bool = True
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: a tool with the arguments that were said, or a topic of small talk.

    `follows`: the other arguments are those of the call before.
    """

    name: str
    tool: bool
    arguments: dict[str, Any] = field(default_factory=dict)
    follows: bool = False


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
        for pattern in self.examples:
            if all(name.strip() in self.slots for name in _PLACEHOLDER.findall(pattern)):
                return _PLACEHOLDER.sub(lambda found: self.slots[found[1].strip()].sample(), pattern)
        return " ".join([self.title, *(f"for {slot.sample()}" for slot in self.slots.values() if slot.required)])


def expanded(text: str) -> list[Word]:
    """The words of a text, contractions in full: "what's" -> "what is"."""
    return [
        Word(part, word.start, word.end)
        for word in words_of(text)
        for part in CONTRACTIONS.get(word.text, word.text).split()
    ]


def plain(text: str) -> list[str]:
    """The words of a text that has no slots, as elements."""
    return [word.text for word in expanded(text)]


def tool_clauses(info: ToolInfo) -> Iterator[Clause]:
    """All ways to ask for a tool."""
    for example in info.examples:
        elements = _pattern(example, info.slots)
        if elements:
            yield Clause(info.name, True, elements)
    for opening in _openings(info):
        yield Clause(info.name, True, (*opening, *_asked(info.slots)), aloud=not info.examples)
    if not info.examples:
        for elements in _described(info.description, info.slots):
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
            elements.extend(plain(part))
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


def _described(description: str, slots: dict[str, Slot]) -> Iterator[tuple[Element, ...]]:
    """What the first sentence of a description says, as clauses; none if it is long or names what can't be said."""
    words = spoken(description.split(".")[0].split(",")[0].split(";")[0])
    if not 1 < len(words) <= _MOST_DESCRIPTION_WORDS:
        return
    words[0] = _imperative(words[0])
    alternatives = [words]
    if words.count("or") == 1 and 0 < (at := words.index("or")) < len(words) - 1:  # "turn it on or off": two sentences
        alternatives = [[*words[:at], *words[at + 2 :]], [*words[: at - 1], *words[at + 1 :]]]
    for alternative in alternatives:
        elements = _with_slots(alternative, slots)
        named = {element.name for element in elements if isinstance(element, Slot)}
        for slot in slots.values():
            if slot.required and slot.name not in named:
                elements += [OneOf(PREPOSITIONS), slot]
        if isinstance(elements[0], str):
            yield tuple(elements)


def _imperative(verb: str) -> str:
    """ "Returns" and "switches" as one would ask for it."""
    for ending, instead in _VERB_ENDINGS:
        if verb.endswith(ending) and len(verb) > len(ending) + 2 and not verb.endswith("ss"):
            return verb.removesuffix(ending) + instead
    return verb


def _with_slots(words: list[str], slots: dict[str, Slot]) -> list[Element]:
    """The words with parameters in the places where they are named, without the articles before them."""
    names = {tuple(name_to_words(slot.name)): slot for slot in slots.values()}
    elements: list[Element] = []
    at = 0
    while at < len(words):
        found = next((name for name in names if name and tuple(words[at : at + len(name)]) == name), None)
        if found is None:
            elements.append(words[at])
            at += 1
            continue
        while elements and elements[-1] in _ARTICLES:
            elements.pop()
        elements.append(names.pop(found))
        at += len(found)
    return elements
