"""What of a grammar can be said aloud: clauses whose words have a pronunciation and whose slots have known values."""

from collections.abc import Iterable, Sequence

from relay.local_engine.clauses import Clause, OneOf
from relay.local_engine.lexicon import Lexicon
from relay.local_engine.network import Again, Alt, Expression, Seq, optional, phrase, size_of
from relay.local_engine.slots import Slot, spoken_numbers

_SPOKEN_LEADS = (("please",), ("can", "you"), ("could", "you"), ("would", "you"), ("okay",))
_SPOKEN_TAILS = (("please",), ("thanks",), ("thank", "you"))
# Compiling takes about a second for these; the clauses after that can only be typed.
_MOST_SPOKEN_WORDS = 12_000


class Sayable:
    """Turns clauses into what can be said aloud: words with a known pronunciation, slots with known values."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def sentences(self, clauses: Sequence[Clause]) -> Expression:
        """Small talk stands alone; requests for tools take politeness and can be strung together with "and"."""
        talk: list[Expression] = []
        asked: list[Expression] = []
        room = _MOST_SPOKEN_WORDS
        for clause in sorted(clauses, key=lambda clause: (clause.tool, clause.follows)):
            said = self._clause(clause)
            if said is None:
                continue
            room -= size_of(said)
            if room < 0:
                break
            (asked if clause.tool and not clause.follows else talk).append(said)
        if not asked:
            return Alt(tuple(talk))
        asks = Again(Alt(tuple(asked)), Seq(("and", optional("then"))))
        lead = optional(Alt(tuple(phrase(words) for words in _SPOKEN_LEADS)))
        tail = optional(Alt(tuple(phrase(words) for words in _SPOKEN_TAILS)))
        return Alt((*talk, Seq((lead, asks, tail))))

    def _known(self, words: Iterable[str]) -> bool:
        return all(self._lexicon.readings(word) for word in words)

    def _clause(self, clause: Clause) -> Expression | None:
        parts: list[Expression] = []
        for element in clause.elements:
            if isinstance(element, Slot):
                said = self._slot(element)
            elif isinstance(element, OneOf):
                said = optional(Alt(tuple(word for word in element.words if self._known([word]))))
            else:
                said = element if self._known([element]) else None
            if said is None:
                return None
            parts.append(said)
        if len(parts) > 2 and parts[0] in ("what", "how") and parts[1] == "is":
            parts[:2] = [Alt((f"{parts[0]}'s", phrase((str(parts[0]), "is"))))]
        return Seq(tuple(parts))

    def _slot(self, slot: Slot) -> Expression | None:
        if slot.kind in ("integer", "number"):
            return spoken_numbers(*slot.spoken_range, fractions=slot.kind == "number")
        forms = [phrase(form) for form in slot.spoken_forms() if self._known(form)]
        return Alt(tuple(forms)) if forms else None
