"""Foreign text stays one harmless line of the log."""

import pytest

from relay.escaping import escape_controls


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("Grüße, 日本 \\n", "Grüße, 日本 \\n"),
        ("\r\n\x00\x1b\x9b", r"\r\n\x00\x1b\x9b"),
        ("\u2028\u202e\u2066", r"\u2028\u202e\u2066"),
        ("\ud800\udcff", r"\ud800\udcff"),
    ],
)
def test_what_cannot_be_printed_is_escaped_and_everything_else_stays(text: str, escaped: str) -> None:
    assert escape_controls(text) == escaped
