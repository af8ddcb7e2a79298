"""Keyword matching: the tool that typed text is most likely about, where no sentence of the grammar fits.

Recognized speech never needs it: the recognizer can only return sentences of the grammar.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from relay.local_engine.nlu.clauses import ParsedRequest, ToolInfo
from relay.local_engine.nlu.english import COMMON
from relay.local_engine.nlu.slots import Slot
from relay.local_engine.nlu.text_normalization import Word, name_to_words, spoken_words, stem, tokenize

_NAME_WEIGHT, _EXAMPLE_WEIGHT, _DESCRIPTION_WEIGHT = 2.0, 1.0, 0.5
_MIN_SCORE = 1.0


def match_keywords(text: str, tools: Sequence[ToolInfo]) -> ParsedRequest | None:
    """Return a request to the best-matching tool, with the values in the text; None if no tool or two tools match."""
    words = tokenize(text[:4000])[:200]
    vocabularies = [_vocabulary(tool) for tool in tools]
    shared = Counter(word for vocabulary in vocabularies for word in vocabulary)
    present = {stem(word.text) for word in words}
    scored = []
    for tool, vocabulary in zip(tools, vocabularies, strict=True):
        score = sum(weight / shared[word] for word, weight in vocabulary.items() if word in present)
        if score >= _MIN_SCORE:
            scored.append((score, tool))
    scored.sort(key=lambda entry: -entry[0])
    if not scored or (len(scored) > 1 and scored[0][0] == scored[1][0]):
        return None
    tool = scored[0][1]
    return ParsedRequest(tool.name, True, _extract_values(tool, words, text))


def _vocabulary(tool: ToolInfo) -> dict[str, float]:
    weights: dict[str, float] = {}
    sources = (
        (spoken_words(tool.description), _DESCRIPTION_WEIGHT),
        ([word for example in tool.examples for word in spoken_words(example)], _EXAMPLE_WEIGHT),
        (name_to_words(tool.name), _NAME_WEIGHT),
    )
    for words, weight in sources:
        weights.update({stem(word): weight for word in words if word not in COMMON and len(word) > 2})
    return weights


def _extract_values(tool: ToolInfo, words: list[Word], text: str) -> dict[str, Any]:
    """Assign the known values and numbers of the text to the tool's slots, from left to right."""
    open_slots = [slot for slot in tool.slots.values() if slot.kind != "unfillable"]
    values: dict[str, Any] = {}
    at = 0
    while at < len(words) and open_slots:
        slot, end, value = _first_match(open_slots, words, at, text)
        if slot is None:
            at += 1
            continue
        values[slot.name] = value
        open_slots.remove(slot)
        at = end
    return values


def _first_match(slots: list[Slot], words: list[Word], at: int, text: str) -> tuple[Slot | None, int, Any]:
    for slot in slots:
        for end, value, cost in slot.read(words, at, text):
            if cost == 0:
                return slot, end, value
    return None, at, None
