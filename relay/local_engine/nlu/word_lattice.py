"""Word lattices: expressions of words, compiled to a minimal finite-state grammar for the recognizer.

JSGF would do the same, but its compiler copies every rule at each reference. A lattice that shares prefixes and
suffixes is several times smaller, and the recognizer's work grows with its size.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seq:
    """A sequence of parts; without parts it matches the empty sentence."""

    parts: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Alt:
    """One of several options; without options it matches nothing."""

    options: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """`part`, once or several times, separated by `link`."""

    part: "Expression"
    link: "Expression"


Expression = str | Seq | Alt | Repeat
"""A word, or one of the above."""

EMPTY = Seq(())


def optional(part: Expression) -> Expression:
    """Return an expression that matches the part or nothing."""
    return Alt((part, EMPTY))


def count_words(expression: Expression) -> int:
    """Count the words in an expression."""
    match expression:
        case str():
            return 1
        case Seq(parts) | Alt(parts):
            return sum(count_words(part) for part in parts)
        case Repeat(part, link):
            return count_words(part) + count_words(link)


@dataclass(frozen=True, slots=True)
class WordLattice:
    """States 0 to n_states - 1 with start state 0 and one final state. `arcs` are (from, to, word)."""

    n_states: int
    final_state: int
    arcs: tuple[tuple[int, int, str], ...]


def compile_lattice(expression: Expression) -> WordLattice:
    """Compile to the minimal deterministic lattice that accepts the same sentences, except the empty one."""
    builder = _Nfa()
    start, end = builder.add_state(), builder.add_state()
    builder.add(expression, start, end)
    table, accepting = _determinize(builder, start, end)
    return _with_one_final_state(*_minimize(table, accepting))


class _Nfa:
    """A nondeterministic automaton with epsilon arcs (Thompson's construction)."""

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
    """Merge equivalent states by Moore's partition refinement."""
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
    """Add a final state: arcs into accepting states also lead to it. State 0 stays the start state."""
    final = len(table)
    arcs: list[tuple[int, int, str]] = []
    for state, targets in enumerate(table):
        for word, target in targets.items():
            if target in accepting:
                arcs.append((state, final, word))
            if table[target]:
                arcs.append((state, target, word))
    return WordLattice(final + 1, final, tuple(arcs))
