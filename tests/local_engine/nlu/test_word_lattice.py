from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from relay.local_engine.nlu.word_lattice import (
    EMPTY,
    Alt,
    Expression,
    Repeat,
    Seq,
    WordLattice,
    compile_lattice,
    optional,
)

WORDS = ["a", "b"]
expressions: st.SearchStrategy[Expression] = st.recursive(
    st.sampled_from(WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: Seq(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda options: Alt(tuple(options))),
        st.tuples(inner, inner).map(lambda pair: Repeat(*pair)),
    ),
    max_leaves=8,
)


def accepts(lattice: WordLattice, sentence: tuple[str, ...]) -> bool:
    states = {0}
    for word in sentence:
        states = {target for source, target, label in lattice.arcs if source in states and label == word}
    return lattice.final_state in states


def ends(expression: Expression, sentence: tuple[str, ...], starts: frozenset[int]) -> frozenset[int]:
    """Return where an expression can end if it starts at one of `starts`: a reference implementation."""
    match expression:
        case str():
            return frozenset(at + 1 for at in starts if at < len(sentence) and sentence[at] == expression)
        case Seq(parts):
            for part in parts:
                starts = ends(part, sentence, starts)
            return starts
        case Alt(options):
            return frozenset().union(*(ends(option, sentence, starts) for option in options))
        case Repeat(part, link):
            reached = fresh = ends(part, sentence, starts)
            while fresh:
                fresh = ends(part, sentence, ends(link, sentence, fresh)) - reached
                reached |= fresh
            return reached


@given(expressions)
def test_the_lattice_accepts_what_the_expression_means(expression: Expression):
    lattice = compile_lattice(expression)
    for length in range(1, 5):
        for sentence in product(WORDS, repeat=length):
            assert accepts(lattice, sentence) == (length in ends(expression, sentence, frozenset([0])))


def test_equal_ends_are_shared():
    cities = Alt(("rome", "oslo", "lima"))
    questions = [Seq((*words.split(), "in", cities)) for words in ("time", "weather", "what is the time")]
    lattice = compile_lattice(Alt(tuple(questions)))
    assert sum(word == "rome" for _, _, word in lattice.arcs) == 1


def test_what_is_optional():
    lattice = compile_lattice(Seq((optional(Seq(("could", "you"))), "go", EMPTY)))
    assert accepts(lattice, ("go",))
    assert accepts(lattice, ("could", "you", "go"))
    assert not accepts(lattice, ("could", "go"))
