"""Texts of items, from deltas."""

import pytest

from relay.recording.derive.item_texts import MAX_TEXT_CHARS, ItemTexts
from tests.support.linear_time import assert_linear


def test_pieces_make_a_text_up_to_its_bound() -> None:
    texts = ItemTexts()
    assert texts.get("a") == ""
    for piece in ("It is ", "", "noon"):
        texts.add("a", piece)
    assert texts.get("a") == "It is noon"
    texts.replace("a", "It was noon")
    texts.add("a", "x" * MAX_TEXT_CHARS)
    assert texts.get("a") == ("It was noon" + "x" * MAX_TEXT_CHARS)[:MAX_TEXT_CHARS]


@pytest.mark.parametrize("piece", ["a", "word "])
def test_many_pieces_take_time_by_their_number(piece: str) -> None:
    def add(n: int) -> None:
        texts = ItemTexts()
        for _ in range(n):
            texts.add("a", piece)
        texts.get("a")

    assert_linear(add, 60_000, max_ms=2000)
