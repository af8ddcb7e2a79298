"""Foreign text is shown, and not interpreted, in a log, a file and a terminal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.escaping import escape_controls, escape_json, escape_lines

READABLE = [
    "Grüße, 日本　東京 \\n",
    "e\u0301 مرحبا بِكَ שָׁלוֹם हिन्दी ไทย",
    "می\u200cخواهم",
    "👩\u200d🚀 ❤\ufe0f 👍🏽 🇩🇪 1\ufe0f\u20e3",
    "10\u202f000\u00a0€",
    "\U0001faf9",
]


@pytest.mark.parametrize("text", READABLE)
def test_what_people_write_stays(text: str) -> None:
    assert escape_controls(text) == escape_lines(text) == escape_json(text) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("\r\n\t\x00\x1b\x7f\x9b", r"\r\n\t\x00\x1b\x7f\x9b"),
        ("\u2028\u2029\u202a\u202e\u2066\u2069\u200e\u061c", r"\u2028\u2029\u202a\u202e\u2066\u2069\u200e\u061c"),
        ("\u200b\u00ad\ufeff\U000e0041", r"\u200b\xad\ufeff\U000e0041"),
        ("\ud800\udcff\ue000", r"\ud800\udcff\ue000"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, escaped: str) -> None:
    assert escape_controls(text) == escaped


def test_lines_stay_lines_and_only_the_first_begins_at_the_margin() -> None:
    assert escape_lines("one\n\ttwo\r\n\x1b[2Jthree", 2) == "one\n  \ttwo\\r\n  \\x1b[2Jthree"


@given(st.dictionaries(st.text(max_size=5), st.lists(st.text()), max_size=3))
def test_json_means_the_same_and_holds_nothing_that_a_terminal_interprets(value: object) -> None:
    text = escape_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert escape_lines(text) == text
