"""Clauses: the sentences that the engine understands, each a sequence of words and slots.

A tool's clauses come from its example sentences, its name and its description. "Turn a lamp on or off." with a
parameter `lamp` gives "turn {lamp} on" and "turn {lamp} off". A parameter that the sentence does not name follows a
preposition, as in "tell the weather in {city}".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from relay.local_engine.nlu.english import CONTRACTIONS
from relay.local_engine.nlu.slots import Slot, slots_from_schema
from relay.local_engine.nlu.text_normalization import Word, name_to_words, spoken_words, tokenize

PREPOSITIONS = ("in", "for", "of", "to", "with", "at", "on", "from", "by")
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_FETCH_VERBS = frozenset(["get", "fetch", "show", "find", "read", "list", "lookup", "query"])
_ARTICLES = frozenset(("a", "an", "the", "one", "some", "given", "specific", "particular", "certain", "your"))
_VERB_ENDINGS = (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("s", ""))
_MAX_DESCRIPTION_WORDS = 12


@dataclass(frozen=True, slots=True)
class OptionalWords:
    """An optional position in a clause that matches one of some words."""

    words: tuple[str, ...]


ClauseElement = str | Slot | OptionalWords


@dataclass(frozen=True, slots=True)
class Clause:
    """One way to ask for a tool, by its name, or (`is_tool` false) for a topic of small talk.

    `is_speakable` is false if the clause is understood only when typed: every additional sentence makes recognition
    worse. `is_follow_up`: it repeats an earlier request with another value.
    """

    name: str
    is_tool: bool
    elements: tuple[ClauseElement, ...]
    is_speakable: bool = True
    is_follow_up: bool = False


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """The user's request: a tool with the arguments in the text, or a topic of small talk.

    `is_follow_up`: the other arguments are those of the previous call.
    """

    name: str
    is_tool: bool
    arguments: dict[str, Any] = field(default_factory=dict)
    is_follow_up: bool = False


@dataclass(frozen=True, slots=True)
class ToolInfo:
    """A function tool as the grammar sees it."""

    name: str
    description: str
    slots: dict[str, Slot]
    examples: tuple[str, ...]

    @classmethod
    def from_tool(cls, tool: dict[str, Any], max_choices: int = 400) -> "ToolInfo":
        """Read a function tool of the Realtime API; its example sentences are in `parameters["x-examples"]`."""
        parameters = tool.get("parameters")
        example_list = parameters.get("x-examples") if isinstance(parameters, dict) else None
        examples = [e[:300] for e in example_list if isinstance(e, str)][:40] if isinstance(example_list, list) else []
        description = tool.get("description")
        return cls(
            str(tool.get("name", "")),
            description if isinstance(description, str) else "",
            slots_from_schema(parameters, max_choices),
            tuple(examples),
        )

    @property
    def title(self) -> str:
        """The name as words: "roll dice"."""
        return " ".join(name_to_words(self.name)) or self.name

    def example_sentence(self) -> str:
        """Return a sentence that asks for this tool."""
        for pattern in self.examples:
            if all(name.strip() in self.slots for name in _PLACEHOLDER.findall(pattern)):
                return _PLACEHOLDER.sub(lambda match: self.slots[match[1].strip()].sample_text(), pattern)
        return " ".join([self.title, *(f"for {slot.sample_text()}" for slot in self.slots.values() if slot.required)])


def expand_contractions(text: str) -> list[Word]:
    """Return the words of a text with contractions expanded: "what's" -> "what is"."""
    return [
        Word(part, word.start, word.end)
        for word in tokenize(text)
        for part in CONTRACTIONS.get(word.text, word.text).split()
    ]


def plain_words(text: str) -> list[str]:
    """Return the words of a text without slots, as elements."""
    return [word.text for word in expand_contractions(text)]


def tool_clauses(info: ToolInfo) -> Iterator[Clause]:
    """Yield all ways to ask for a tool."""
    for example in info.examples:
        elements = _parse_example(example, info.slots)
        if elements:
            yield Clause(info.name, True, elements)
    for opening in _name_phrases(info):
        yield Clause(info.name, True, (*opening, *_required_slots(info.slots)), is_speakable=not info.examples)
    if not info.examples:
        for elements in _description_clauses(info.description, info.slots):
            yield Clause(info.name, True, elements)
    yield from _follow_ups(info)


def _follow_ups(info: ToolInfo) -> Iterator[Clause]:
    """Yield the ways to repeat a request with another value: "and in tokyo", "what about tokyo"."""
    for slot in info.slots.values():
        if slot.kind != "choice":
            continue  # a lone number would be recognized in any noise
        own_words = name_to_words(slot.name)[:1]
        link: tuple[ClauseElement, ...] = (
            tuple(own_words) if own_words and own_words[0] in PREPOSITIONS else (OptionalWords(PREPOSITIONS),)
        )
        for opening in (("and",), ("what", "about"), ("how", "about")):
            yield Clause(info.name, True, (*opening, *link, slot), is_follow_up=True)


def _parse_example(example: str, slots: dict[str, Slot]) -> tuple[ClauseElement, ...]:
    """Parse "roll {count} dice" into elements; empty if a placeholder names no parameter."""
    elements: list[ClauseElement] = []
    for index, part in enumerate(_PLACEHOLDER.split(example)):
        if index % 2 == 0:
            elements.extend(plain_words(part))
        elif part.strip() in slots:
            elements.append(slots[part.strip()])
        else:
            return ()
    return tuple(elements)


def _name_phrases(info: ToolInfo) -> Iterator[tuple[ClauseElement, ...]]:
    """Yield phrases made of a tool's name: "roll dice", "use roll dice", "what is the weather"."""
    words = name_to_words(info.name)
    if not words:
        return
    yield tuple(words)
    yield (OptionalWords(("use", "run", "call", "start")), *words)
    if words[0] in _FETCH_VERBS and len(words) > 1:
        words = words[1:]
        yield tuple(words)
    yield ("what", "is", OptionalWords(("the",)), *words)
    yield (OptionalWords(("tell", "show", "give", "get")), OptionalWords(("me",)), OptionalWords(("the",)), *words)


def _required_slots(slots: dict[str, Slot]) -> list[ClauseElement]:
    """Return the required slots, each after a preposition or its own name."""
    elements: list[ClauseElement] = []
    for slot in slots.values():
        if slot.required:
            own_words = tuple(word for word in name_to_words(slot.name)[-1:] if word not in PREPOSITIONS)
            elements += [OptionalWords(PREPOSITIONS + own_words), slot]
    return elements


def _description_clauses(description: str, slots: dict[str, Slot]) -> Iterator[tuple[ClauseElement, ...]]:
    """Yield clauses made of a description's first sentence; none if it is too long."""
    words = spoken_words(description.split(".")[0].split(",")[0].split(";")[0])
    if not 1 < len(words) <= _MAX_DESCRIPTION_WORDS:
        return
    words[0] = _imperative(words[0])
    alternatives = [words]
    if words.count("or") == 1 and 0 < (at := words.index("or")) < len(words) - 1:  # "turn it on or off": two sentences
        alternatives = [[*words[:at], *words[at + 2 :]], [*words[: at - 1], *words[at + 1 :]]]
    for alternative in alternatives:
        elements = _insert_slots(alternative, slots)
        named = {element.name for element in elements if isinstance(element, Slot)}
        for slot in slots.values():
            if slot.required and slot.name not in named:
                elements += [OptionalWords(PREPOSITIONS), slot]
        if isinstance(elements[0], str):
            yield tuple(elements)


def _imperative(verb: str) -> str:
    """Return the imperative of a verb: "returns" -> "return", "switches" -> "switch"."""
    for ending, instead in _VERB_ENDINGS:
        if verb.endswith(ending) and len(verb) > len(ending) + 2 and not verb.endswith("ss"):
            return verb.removesuffix(ending) + instead
    return verb


def _insert_slots(words: list[str], slots: dict[str, Slot]) -> list[ClauseElement]:
    """Replace parameter names in the words with their slots, and drop the articles before them."""
    names = {tuple(name_to_words(slot.name)): slot for slot in slots.values()}
    elements: list[ClauseElement] = []
    at = 0
    while at < len(words):
        name = next((name for name in names if name and tuple(words[at : at + len(name)]) == name), None)
        if name is None:
            elements.append(words[at])
            at += 1
            continue
        while elements and elements[-1] in _ARTICLES:
            elements.pop()
        elements.append(names.pop(name))
        at += len(name)
    return elements
