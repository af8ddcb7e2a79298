import json
from typing import Any

import pytest

from relay.local_engine.dialogue.tool_result_text import output_sentences


@pytest.mark.parametrize(
    ("output", "sentences"),
    [
        ({"city": "Paris", "time": "14:05"}, ["The current time says: city Paris, time 14 05."]),
        ({"summary": "It is two. Or so.", "x": 1}, ["It is two.", "Or so."]),
        ({"ok": True, "result": {"text": "Fine."}}, ["Fine."]),
        ("plain words", ["plain words"]),
        ([1, 2.5, None, True], ["The current time says: 1, 2.5, nothing, yes."]),
        (42, ["The current time says: 42."]),
        (None, ["The current time says: nothing."]),
        ({}, ["The current time says: nothing."]),
        (
            {"ok": False, "error": "timeout", "message": "It took too long."},
            ["I am sorry, current time did not work: It took too long."],
        ),
        ({"error": {"message": "no such city"}}, ["I am sorry, current time did not work: no such city."]),
        ({"ok": False}, ["I am sorry, current time did not work: it gave no reason."]),
        ({"ok": True, "error": "none"}, ["The current time says: ok yes, error none."]),
        ({"rows": list(range(9))}, ["The current time says: rows 0, 1, 2, 3, 4, 5, and 3 more."]),
        ({"a": {"b": {"c": {"d": 1}}}}, ["The current time says: a b c more."]),
    ],
)
def test_outputs_of_any_shape_become_sentences(output: Any, sentences: list[str]):
    assert output_sentences("current_time", json.dumps(output)) == sentences


def test_plain_text_output_is_spoken_unchanged():
    assert output_sentences("f", "The door is open.") == ["The door is open."]
    assert output_sentences("f", "") == ["The f says: nothing."]


def test_a_long_output_is_cut():
    [sentence] = output_sentences("f", json.dumps("word " * 1000))
    assert len(sentence) < 620
    assert sentence.endswith("and so on.")
