"""The spoken grammar: clauses, slots and numbers as expressions that the recognizer can listen for."""

import math
from collections.abc import Iterable

from relay.local_engine.nlu.clauses import Clause, OptionalWords
from relay.local_engine.nlu.lexicon import english_lexicon
from relay.local_engine.nlu.slots import Slot
from relay.local_engine.nlu.text_normalization import TENS, UNITS, integer_to_words
from relay.local_engine.nlu.word_lattice import (
    EMPTY,
    Alt,
    Expression,
    Repeat,
    Seq,
    WordLattice,
    compile_lattice,
    count_words,
    optional,
)

_SPOKEN_RANGE = (-9999, 9999)
_SPOKEN_LEADS = (("please",), ("can", "you"), ("could", "you"), ("would", "you"), ("okay",))
_SPOKEN_TAILS = (("please",), ("thanks",), ("thank", "you"))
# Compiling takes about a second for these; the clauses after that can only be typed.
_MAX_LATTICE_WORDS = 12_000


def build_word_lattice(clauses: Iterable[Clause]) -> WordLattice:
    """Compile the clauses: small talk, or tool requests joined by "and" and surrounded by polite phrases.

    Clauses with an unpronounceable word, or with a slot without known values, are left out.
    """
    alternatives: list[Expression] = []
    tool_requests: list[Expression] = []
    room = _MAX_LATTICE_WORDS
    speakable = [clause for clause in clauses if clause.is_speakable]
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


def spoken_numbers(low: float, high: float, fractions: bool) -> Expression:
    """Return the spoken numbers from `low` to `high`, clamped to +-9999.

    Small ranges are listed number by number, so that the recognizer accepts no number outside.
    """
    low, high = max(low, _SPOKEN_RANGE[0]), min(high, _SPOKEN_RANGE[1])
    sign = optional(Alt(("minus", "negative"))) if low < 0 else EMPTY
    low, high = (0, max(high, -low)) if low < 0 else (low, high)
    if high <= 100:
        listed = [integer_to_words(value) for value in range(math.ceil(low), math.floor(high) + 1)]
        if high == 100:
            listed.append(["a", "hundred"])
        whole: Expression = Alt(tuple(Seq(tuple(words)) for words in listed))
    else:
        whole = _large_numbers(high)
    digit = Alt(tuple(UNITS[:10]))
    fraction = Alt((Seq(("point", digit, optional(digit))), Seq(("and", "a", "half"))))
    return Seq((sign, whole, optional(fraction) if fractions else EMPTY))


def _large_numbers(high: float) -> Expression:
    digit = Alt(tuple(UNITS[1:10]))
    below_hundred = Alt((*UNITS, Seq((Alt(tuple(TENS)), optional(digit)))))
    several = Alt(("a", digit))
    hundreds = Seq((several, "hundred", optional(Seq((optional("and"), below_hundred)))))
    below_thousand = Alt((below_hundred, hundreds))
    if high < 1000:
        return below_thousand
    thousands = Seq((several, "thousand", optional(Seq((optional("and"), below_thousand)))))
    return Alt((below_thousand, thousands))
