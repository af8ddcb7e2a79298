"""A second try for typed text that no sentence of the grammar fits: which tool's words are in it, and which values.

Spoken text never comes here: the recogniser hears nothing but sentences of the grammar.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from relay.local_engine.clauses import Request
from relay.local_engine.english import COMMON
from relay.local_engine.grammar import ToolInfo
from relay.local_engine.phrases import Word, name_to_words, spoken, stem, words_of
from relay.local_engine.slots import Slot

_NAME_WEIGHT, _EXAMPLE_WEIGHT, _DESCRIPTION_WEIGHT = 2.0, 1.0, 0.5
_ENOUGH = 1.0


def guess(text: str, tools: Sequence[ToolInfo]) -> Request | None:
    """The one tool that the text is most likely about, with the values found in it; None if none or two fit."""
    words = words_of(text[:4000])[:200]
    vocabularies = [_vocabulary(tool) for tool in tools]
    shared = Counter(word for vocabulary in vocabularies for word in vocabulary)
    present = {stem(word.text) for word in words}
    scored = []
    for tool, vocabulary in zip(tools, vocabularies, strict=True):
        score = sum(weight / shared[word] for word, weight in vocabulary.items() if word in present)
        if score >= _ENOUGH:
            scored.append((score, tool))
    scored.sort(key=lambda entry: -entry[0])
    if not scored or (len(scored) > 1 and scored[0][0] == scored[1][0]):
        return None
    tool = scored[0][1]
    return Request(tool.name, True, _values(tool, words, text))


def _vocabulary(tool: ToolInfo) -> dict[str, float]:
    weights: dict[str, float] = {}
    sources = (
        (spoken(tool.description), _DESCRIPTION_WEIGHT),
        ([word for example in tool.examples for word in spoken(example)], _EXAMPLE_WEIGHT),
        (name_to_words(tool.name), _NAME_WEIGHT),
    )
    for words, weight in sources:
        weights.update({stem(word): weight for word in words if word not in COMMON and len(word) > 2})
    return weights


def _values(tool: ToolInfo, words: list[Word], text: str) -> dict[str, Any]:
    """Known values and numbers in the text, handed to the tool's slots from left to right."""
    open_slots = [slot for slot in tool.slots.values() if slot.kind != "unfillable"]
    found: dict[str, Any] = {}
    at = 0
    while at < len(words) and open_slots:
        slot, end, value = _first(open_slots, words, at, text)
        if slot is None:
            at += 1
            continue
        found[slot.name] = value
        open_slots.remove(slot)
        at = end
    return found


def _first(slots: list[Slot], words: list[Word], at: int, text: str) -> tuple[Slot | None, int, Any]:
    for slot in slots:
        for end, value, cost in slot.read(words, at, text):
            if cost == 0:
                return slot, end, value
    return None, at, None
