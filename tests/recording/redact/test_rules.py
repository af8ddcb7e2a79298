"""Redaction of texts, complete and in deltas, and its running time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.recording.redact.rules import PLACEHOLDER, parse_redaction
from tests.support.linear_time import assert_linear

PLAIN_E_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
PLAIN_NUMBER = re.compile(r"\+?\d(?:[ ./()-]?\d){6,}")


def redacted_text(text: str) -> str:
    redacted: str = parse_redaction((), (), ()).redact(text, is_content=True)
    return redacted


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("write to ann.b+c@example.co.uk, soon", f"write to {PLACEHOLDER}, soon"),
        ("a@b.c+d@e.f", PLACEHOLDER * 2),
        ("x@y and +49 30 123-4567.", f"x@y and {PLACEHOLDER}."),
        ("@example.com a@ a@b", "@example.com a@ a@b"),
    ],
)
def test_e_mail_addresses_and_long_numbers_go(text: str, left: str) -> None:
    assert redacted_text(text) == left


WORDS = st.lists(st.sampled_from(["a", "@", ".", "-", "+", " ", "1", "é", "b.c", "a@b.c", "123 45", "/"]), max_size=14)


@given(WORDS)
def test_it_finds_what_the_plain_expressions_find(words: list[str]) -> None:
    text = "".join(words)
    assert redacted_text(text) == PLAIN_NUMBER.sub(PLACEHOLDER, PLAIN_E_MAIL.sub(PLACEHOLDER, text))


@given(st.lists(WORDS.map("".join), max_size=6))
def test_pieces_lose_what_the_whole_loses(pieces: list[str]) -> None:
    redaction = parse_redaction((), ["[0-9]+ "], ())
    remaining = redaction.redact_split_text(pieces)
    assert len(remaining) == len(pieces)
    cuts = sorted(span for matcher in redaction.patterns.values() for span in matcher.find_spans("".join(pieces)))
    removed = {place for start, end in cuts for place in range(start, end)}
    assert "".join(remaining).replace(PLACEHOLDER, "") == "".join(
        char for place, char in enumerate("".join(pieces)) if place not in removed
    )


@pytest.mark.parametrize("unit", ["a", ".", "a@", "a@b.", "1", "1-", "a@b.c+", "a@b.c 1234567 "])
def test_a_long_text_takes_time_by_its_length(unit: str) -> None:
    assert_linear(lambda n_chars: redacted_text((unit * n_chars)[:n_chars]), 8_000)


@pytest.mark.parametrize("unit", ["a@b.c ", "a", "1234567 "])
def test_so_do_many_pieces(unit: str) -> None:
    def take(n_chars: int) -> None:
        parse_redaction((), (), ()).redact_split_text(list((unit * n_chars)[:n_chars]))

    assert_linear(take, 8_000)
