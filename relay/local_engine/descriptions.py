"""Sentences that a user could say to a tool, made from its description alone.

"Turn a lamp on or off." with a parameter `lamp` is understood as "turn {lamp} on" and "turn {lamp} off"; a parameter
that the sentence does not name stands behind a preposition, as in "tell the weather in {city}".
"""

from collections.abc import Iterator

from relay.local_engine.clauses import PREPOSITIONS, Element, OneOf
from relay.local_engine.phrases import name_to_words, spoken
from relay.local_engine.slots import Slot

_ARTICLES = frozenset(("a", "an", "the", "one", "some", "given", "specific", "particular", "certain", "your"))
_VERB_ENDINGS = (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("sses", "ss"), ("s", ""))
_MOST_WORDS = 12


def described(description: str, slots: dict[str, Slot]) -> Iterator[tuple[Element, ...]]:
    """What the first sentence of a description says, as clauses; none if it is long or names what can't be said."""
    words = spoken(description.split(".")[0].split(",")[0].split(";")[0])
    if not 1 < len(words) <= _MOST_WORDS:
        return
    words[0] = _imperative(words[0])
    for alternative in _alternatives(words):
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


def _alternatives(words: list[str]) -> list[list[str]]:
    """ "turn it on or off" is two sentences."""
    if words.count("or") != 1 or not 0 < words.index("or") < len(words) - 1:
        return [words]
    at = words.index("or")
    return [[*words[:at], *words[at + 2 :]], [*words[: at - 1], *words[at + 1 :]]]


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
