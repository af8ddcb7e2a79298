"""Word networks: a description of what may be said, compiled to the smallest network of words for the recogniser.

JSGF text would do the same job, but its compiler copies every rule at each reference; a network that shares equal
beginnings and equal ends is several times smaller, and the recogniser's work grows with its size.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seq:
    """One part after the other; empty = nothing needs to be said."""

    parts: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Alt:
    """One of several; empty = impossible."""

    options: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """`part`, once or several times with `link` between."""

    part: "Expression"
    link: "Expression"


Expression = str | Seq | Alt | Repeat
"""A word, or one of the above."""

EMPTY = Seq(())


def optional(part: Expression) -> Expression:
    """The part or nothing."""
    return Alt((part, EMPTY))


def count_words(expression: Expression) -> int:
    """How many words are written in an expression."""
    match expression:
        case str():
            return 1
        case Seq(parts) | Alt(parts):
            return sum(count_words(part) for part in parts)
        case Repeat(part, link):
            return count_words(part) + count_words(link)


@dataclass(frozen=True, slots=True)
class WordLattice:
    """States 0..n_states-1, start 0; one end state. `arcs` are (from, to, word)."""

    n_states: int
    final_state: int
    arcs: tuple[tuple[int, int, str], ...]


def compile_lattice(expression: Expression) -> WordLattice:
    """The smallest deterministic network that accepts the same sentences (not the empty one)."""
    builder = _Nfa()
    start, end = builder.add_state(), builder.add_state()
    builder.add(expression, start, end)
    table, accepting = _determinize(builder, start, end)
    return _with_one_final_state(*_minimize(table, accepting))


class _Nfa:
    """A network with empty arcs (Thompson's construction)."""

    def __init__(self) -> None:
        self.epsilon_arcs: list[list[int]] = []
        self.arcs: list[list[tuple[str, int]]] = []

    def add_state(self) -> int:
        self.epsilon_arcs.append([])
        self.arcs.append([])
        return len(self.arcs) - 1

    def add(self, expression: Expression, start: int, end: int) -> None:
        match expression:
            case str():
                self.arcs[start].append((expression, end))
            case Seq(parts):
                at = start
                for part in parts:
                    after = self.add_state()
                    self.add(part, at, after)
                    at = after
                self.epsilon_arcs[at].append(end)
            case Alt(options):
                for option in options:
                    self.add(option, start, end)
            case Repeat(part, link):
                first, last = self.add_state(), self.add_state()
                self.epsilon_arcs[start].append(first)
                self.add(part, first, last)
                self.add(link, last, first)
                self.epsilon_arcs[last].append(end)

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        closure, waiting = set(states), list(states)
        while waiting:
            for state in self.epsilon_arcs[waiting.pop()]:
                if state not in closure:
                    closure.add(state)
                    waiting.append(state)
        return frozenset(closure)


_TransitionTable = list[dict[str, int]]


def _determinize(nfa: _Nfa, start: int, end: int) -> tuple[_TransitionTable, set[int]]:
    first = nfa.closure([start])
    numbers, waiting = {first: 0}, [first]
    table: _TransitionTable = [{}]
    accepting: set[int] = {0} if end in first else set()
    while waiting:
        states = waiting.pop()
        targets: dict[str, set[int]] = {}
        for state in states:
            for word, target in nfa.arcs[state]:
                targets.setdefault(word, set()).add(target)
        for word, reached in targets.items():
            closed = nfa.closure(reached)
            if closed not in numbers:
                numbers[closed] = len(table)
                table.append({})
                waiting.append(closed)
                if end in closed:
                    accepting.add(numbers[closed])
            table[numbers[states]][word] = numbers[closed]
    return table, accepting


def _minimize(table: _TransitionTable, accepting: set[int]) -> tuple[_TransitionTable, set[int]]:
    """Moore's refinement: states that agree on all that may follow become one."""
    block = [1 if state in accepting else 0 for state in range(len(table))]
    count = len(set(block))
    while True:
        numbers: dict[tuple[int, frozenset[tuple[str, int]]], int] = {}
        refined = []
        for state, arcs in enumerate(table):
            key = (block[state], frozenset((word, block[target]) for word, target in arcs.items()))
            refined.append(numbers.setdefault(key, len(numbers)))
        block = refined
        if len(numbers) == count:
            break
        count = len(numbers)
    merged: _TransitionTable = [{} for _ in range(count)]
    for state, arcs in enumerate(table):
        merged[block[state]] = {word: block[target] for word, target in arcs.items()}
    return merged, {block[state] for state in accepting}


def _with_one_final_state(table: _TransitionTable, accepting: set[int]) -> WordLattice:
    """State 0 stays the start (it is numbered first); arcs into accepting states also lead to the one end."""
    final = len(table)
    arcs: list[tuple[int, int, str]] = []
    for state, targets in enumerate(table):
        for word, target in targets.items():
            if target in accepting:
                arcs.append((state, final, word))
            if table[target]:
                arcs.append((state, target, word))
    return WordLattice(final + 1, final, tuple(arcs))
