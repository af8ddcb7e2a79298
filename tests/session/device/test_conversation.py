"""The items of a conversation: their order, their words, and how much of those was heard."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.session.device.conversation import MAX_ITEMS, MAX_KEPT_CHARS, MAX_TEXT_CHARS, ItemLog, heard_part


def test_an_item_has_the_place_of_its_first_mention() -> None:
    items = ItemLog()
    assert [items.entry(item_id).order for item_id in ("a", "b", "a", "c")] == [0, 1, 0, 2]
    assert items.added("b", "user").order == 1


def test_an_item_is_in_the_conversation_from_added_to_deleted() -> None:
    items = ItemLog()
    assert not items.entry("a").in_conversation
    assert items.added("a", "assistant").in_conversation
    items.deleted("a")
    assert not items.entry("a").in_conversation
    items.deleted("never seen")
    assert "never seen" not in items


def test_a_role_once_known_is_kept() -> None:
    items = ItemLog()
    items.added("a", "assistant")
    assert items.added("a", None).role == "assistant"


def test_the_oldest_items_are_forgotten_and_places_are_never_given_twice() -> None:
    items = ItemLog()
    for number in range(MAX_ITEMS + 10):
        items.entry(f"item_{number}")
    assert "item_9" not in items
    assert "item_10" in items
    assert items.entry("item_0").order == MAX_ITEMS + 10


def test_an_upstream_whose_items_stand_in_a_circle_holds_nothing_up() -> None:
    items = ItemLog()
    items.added("first", "user")
    for item_id, previous in (("a", "b"), ("b", "c"), ("c", "b"), ("d", "e"), ("e", "d"), ("f", "f")):
        items.added(item_id, "assistant", previous)
    for item_id in ("b", "c", "e"):
        items.deleted(item_id)
    assert items.replace("a", "new_a", "One.") == "first"
    assert items.replace("d", "new_d", "Two.") == "new_a", "behind itself it cannot stand"
    assert items.replace("f", "new_f", "Three.") == "new_d"


def test_what_is_kept_of_a_text_is_bounded() -> None:
    items = ItemLog()
    for _ in range(3):
        items.append_text("a", "x" * (MAX_TEXT_CHARS - 10))
    assert items.entry("a").text == "x" * MAX_TEXT_CHARS


def test_what_is_kept_of_all_texts_is_bounded_and_the_oldest_go() -> None:
    items = ItemLog()
    for number in range(2 * MAX_KEPT_CHARS // MAX_TEXT_CHARS):
        items.set_text(f"item_{number}", "x" * MAX_TEXT_CHARS)
        items.append_text(f"item_{number}", "more")
    kept = [number for number in range(2 * MAX_KEPT_CHARS // MAX_TEXT_CHARS) if f"item_{number}" in items]
    assert len(kept) == MAX_KEPT_CHARS // MAX_TEXT_CHARS
    assert kept[-1] == 2 * MAX_KEPT_CHARS // MAX_TEXT_CHARS - 1
    items.set_text(f"item_{kept[-1]}", "short")
    assert f"item_{kept[0]}" in items, "what was replaced does not count"


def test_a_cut_item_keeps_all_that_was_said_beside_what_was_heard() -> None:
    items = ItemLog()
    items.append_text("a", "one two three four")
    assert items.cut_to_heard("a", 500, 1000) == "one two"
    entry = items.entry("a")
    assert (entry.text, entry.heard) == ("one two three four", "one two")


@pytest.mark.parametrize(
    ("text", "played_ms", "received_ms", "heard"),
    [
        ("one two three", 0, 1000, ""),
        ("one two three", -5, 1000, ""),
        ("one two three", 500, 0, ""),
        ("one two three", 1000, 1000, "one two three"),
        ("one two three", 2000, 1000, "one two three"),
        ("one two three", 540, 1000, "one two"),
        ("one two three", 600, 1000, "one two"),
        ("one two three", 999, 1000, "one two"),
        ("one two three", 100, 1000, ""),
        ("one\ntwo\nthree", 700, 1000, "one\ntwo"),
        ("supercalifragilistic", 999, 1000, ""),
        ("", 500, 1000, ""),
        ("今日はいい天気ですね", 500, 1000, "今日はいい"),
        ("สวัสดีครับ", 500, 1000, "สวัสด"),
        ("ab今日", 300, 1000, ""),
        ("ab今日", 500, 1000, "ab"),
    ],
)
def test_the_heard_part_ends_between_words(text: str, played_ms: int, received_ms: int, heard: str) -> None:
    assert heard_part(text, played_ms, received_ms) == heard


@given(st.text(st.sampled_from("ab \n"), max_size=40), st.integers(-10, 2000), st.integers(-10, 2000))
@settings(max_examples=150, deadline=None)
def test_the_heard_part_is_a_beginning_in_whole_words(text: str, played_ms: int, received_ms: int) -> None:
    heard = heard_part(text, played_ms, received_ms)
    assert text.startswith(heard)
    rest = text[len(heard) :]
    assert heard == "" or rest == "" or rest[0].isspace()
    assert len(heard) <= max(len(text) * played_ms / received_ms, 0) if 0 < played_ms < received_ms else True
