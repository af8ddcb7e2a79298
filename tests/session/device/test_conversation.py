"""The items of a conversation: their order, their text, and the part of it that was heard."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.session.device.conversation import (
    MAX_ITEMS,
    MAX_LOG_CHARS,
    MAX_TEXT_CHARS,
    ConversationLog,
    text_at_position,
)


def test_an_item_has_the_place_of_its_first_mention() -> None:
    items = ConversationLog()
    assert [items.get_or_create(item_id).order for item_id in ("a", "b", "a", "c")] == [0, 1, 0, 2]
    assert items.mark_added("b", "user").order == 1


def test_an_item_is_in_the_conversation_from_added_to_deleted() -> None:
    items = ConversationLog()
    assert not items.get_or_create("a").in_conversation
    assert items.mark_added("a", "assistant").in_conversation
    items.mark_deleted("a")
    assert not items.get_or_create("a").in_conversation
    items.mark_deleted("never seen")
    assert "never seen" not in items


def test_a_role_once_known_is_kept() -> None:
    items = ConversationLog()
    items.mark_added("a", "assistant")
    assert items.mark_added("a", None).role == "assistant"


def test_the_oldest_items_are_forgotten_and_places_are_never_given_twice() -> None:
    items = ConversationLog()
    for number in range(MAX_ITEMS + 10):
        items.get_or_create(f"item_{number}")
    assert "item_9" not in items
    assert "item_10" in items
    assert items.get_or_create("item_0").order == MAX_ITEMS + 10


def test_an_upstream_whose_items_form_a_circle_holds_nothing_up() -> None:
    items = ConversationLog()
    items.mark_added("first", "user")
    for item_id, previous in (("a", "b"), ("b", "c"), ("c", "b"), ("d", "e"), ("e", "d"), ("f", "f")):
        items.mark_added(item_id, "assistant", previous)
    for item_id in ("b", "c", "e"):
        items.mark_deleted(item_id)
    assert items.replace("a", "new_a", "One.") == "first"
    assert items.replace("d", "new_d", "Two.") == "new_a", "behind itself it cannot stand"
    assert items.replace("f", "new_f", "Three.") == "new_d"


def test_what_is_kept_of_a_text_is_bounded() -> None:
    items = ConversationLog()
    for _ in range(3):
        items.append_text("a", "x" * (MAX_TEXT_CHARS - 10))
    assert items.get_or_create("a").text == "x" * MAX_TEXT_CHARS


def test_what_is_kept_of_all_texts_is_bounded_and_the_oldest_go() -> None:
    items = ConversationLog()
    for number in range(2 * MAX_LOG_CHARS // MAX_TEXT_CHARS):
        items.set_text(f"item_{number}", "x" * MAX_TEXT_CHARS)
        items.append_text(f"item_{number}", "more")
    kept = [number for number in range(2 * MAX_LOG_CHARS // MAX_TEXT_CHARS) if f"item_{number}" in items]
    assert len(kept) == MAX_LOG_CHARS // MAX_TEXT_CHARS
    assert kept[-1] == 2 * MAX_LOG_CHARS // MAX_TEXT_CHARS - 1
    items.set_text(f"item_{kept[-1]}", "short")
    assert f"item_{kept[0]}" in items, "what was replaced does not count"


def test_a_truncated_item_keeps_its_text_beside_the_heard_text() -> None:
    items = ConversationLog()
    items.append_text("a", "one two three four")
    assert items.truncate_to_played("a", 500, 1000) == "one two"
    entry = items.get_or_create("a")
    assert (entry.text, entry.heard_text) == ("one two three four", "one two")


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
    assert text_at_position(text, played_ms, received_ms) == heard


@given(st.text(st.sampled_from("ab \n"), max_size=40), st.integers(-10, 2000), st.integers(-10, 2000))
@settings(max_examples=150, deadline=None)
def test_the_heard_part_is_a_beginning_in_whole_words(text: str, played_ms: int, received_ms: int) -> None:
    heard = text_at_position(text, played_ms, received_ms)
    assert text.startswith(heard)
    rest = text[len(heard) :]
    assert heard == "" or rest == "" or rest[0].isspace()
    assert len(heard) <= max(len(text) * played_ms / received_ms, 0) if 0 < played_ms < received_ms else True
