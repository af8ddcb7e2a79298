"""Two runs side by side."""

from pathlib import Path

import orjson
import pytest

from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.live_replay.comparison import (
    ComparedCall,
    ComparedTurn,
    Comparison,
    parse_equal_fields,
    recorded_turns,
)
from relay.recording.store.layout import RecordingError
from relay.recording.store.reader import Recording
from tests.support.scripted_recordings import make_recording


def test_the_recorded_side_is_cut_into_turns(tmp_path: Path) -> None:
    first, second = recorded_turns(build_timeline(Recording(make_recording(tmp_path))).timeline)
    assert first.user.startswith("what time is it in Rome?")
    assert first.assistant == "It is noon in Rome, and"
    assert first.calls == [ComparedCall("clock", {"city": "Rome"})]
    assert first.latency_ms is not None
    assert (second.user, second.assistant, second.calls) == ("stop", "", [])


def test_what_was_asked_to_be_equal_decides(tmp_path: Path) -> None:
    recorded = [ComparedTurn("Roll two dice.", "Here: 3.", [ComparedCall("roll", {"count": 2})], 600)]
    now = [ComparedTurn("roll two dice", "Here: 4.", [ComparedCall("roll", {"count": 3})], 700), ComparedTurn("stop")]
    comparison = Comparison(recorded, now, ["the relay closed"])
    assert comparison.differences(["tools"]) == []
    assert comparison.differences(["user", "assistant", "arguments"]) == [
        "user of turn 2", "assistant of turn 1", "arguments of turn 1"
    ]  # fmt: skip
    drawn = "\n".join(comparison.render())
    assert "≠ Here: 4." in drawn
    assert "600 ms" in drawn
    assert "note: the relay closed" in drawn
    assert b'"count": 3' in comparison.to_json()


def test_foreign_text_commands_no_terminal() -> None:
    evil = "\x1b[2J\x9b\u202e\r\nturn 9"
    comparison = Comparison([ComparedTurn(evil, evil, [ComparedCall(evil, {evil: evil})])], [], [evil])
    drawn = [*comparison.render(), comparison.to_json().decode()]
    assert [char for char in "".join(drawn) if char in "\x1b\x9b\u202e\r"] == []
    assert "turn 9" not in [line[:6] for line in drawn]
    assert orjson.loads(comparison.to_json())["notes"] == [evil]


def test_aspects_are_named() -> None:
    assert parse_equal_fields("user, tools") == ("user", "tools")
    assert parse_equal_fields("") == ()
    with pytest.raises(RecordingError, match="--equal 'mood' is not one of user"):
        parse_equal_fields("user,mood")
