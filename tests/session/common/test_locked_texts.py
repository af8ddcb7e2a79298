"""Locked texts are removed from texts that quote them."""

import json
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.session.common.locked_texts import MAX_SCANNED_CHARS, MIN_MATCH_CHARS, LockedTexts
from relay.session.common.redact import MASK

SECRET = 'You are the voice of the museum.\nNever speak of "the vault" behind the old staircase.'
LOCKED = LockedTexts([SECRET, "Be kind."])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SECRET, MASK),
        (f"a {SECRET} b {SECRET.upper()} c", f"a {MASK} b {MASK} c"),
        (json.dumps(SECRET), f'"{MASK}"'),
        (" ".join(SECRET.split()), MASK),
        ("we are the voice of the museum, you said", f"we {MASK}, you said"),
        ("the voice of the town", "the voice of the town"),
        ("be KIND. please", f"{MASK} please"),
        (f"\u0130 {SECRET.upper()}", f"\u0130 {MASK}"),
        ("", ""),
    ],
)
def test_only_locked_fragments_are_removed(text: str, shown: str) -> None:
    assert LOCKED.redact(text) == shown


def test_no_other_character_has_a_longer_lower_case() -> None:
    assert [char for char in map(chr, range(sys.maxunicode + 1)) if len(char.lower()) != 1] == ["\u0130"]


def test_json_without_a_match_stays_the_same_object() -> None:
    value = {"a": [1, None, {"b": "the voice of the town"}], "c": True}
    assert LOCKED.redact(value) is value
    assert LOCKED.redact({"a": [1, {"b": SECRET}], "c": 2.5}) == {"a": [1, {"b": MASK}], "c": 2.5}


def test_text_beyond_the_scan_limit_is_removed() -> None:
    assert LOCKED.redact("x" * MAX_SCANNED_CHARS + SECRET) == "x" * (MAX_SCANNED_CHARS - 1) + MASK
    cut = LOCKED.redact(["x" * MAX_SCANNED_CHARS, SECRET, {"a": SECRET}])
    assert cut[1:] == [MASK, MASK]


def test_without_locked_texts_everything_passes() -> None:
    value = "x" * 100_000
    assert LockedTexts(["", "  ", "short"]).redact(value) is value


@given(st.text("abc", min_size=MIN_MATCH_CHARS, max_size=80), st.data())
def test_no_fragment_of_a_locked_text_is_ever_visible(secret: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(secret) - MIN_MATCH_CHARS))
    end = data.draw(st.integers(start + MIN_MATCH_CHARS, len(secret)))
    around = data.draw(st.text("abcx", max_size=40))
    redacted = LockedTexts([secret]).redact(around + secret[start:end] + around)
    pieces = {secret[at : at + MIN_MATCH_CHARS] for at in range(len(secret) - MIN_MATCH_CHARS + 1)}
    assert not any(piece in redacted for piece in pieces)


@pytest.mark.parametrize("unit", ["a", "ab ", SECRET[:MIN_MATCH_CHARS], " "])
def test_redaction_takes_linear_time(unit: str) -> None:
    def seconds(chars: int) -> float:
        locked: Any = LockedTexts([unit * chars, unit * 3 + "!"])
        began = time.process_time()
        for _ in range(3):
            locked.redact(unit * chars)
        return time.process_time() - began

    assert seconds(40_000) < 4 * seconds(10_000) * 2 + 0.1
