import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relay.cli.talk.display import JsonDisplay, TextDisplay


def printed(*messages: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    display = TextDisplay(out)
    for message in messages:
        display.message(message, 0)
    display.close()
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_line_that_comes_into_the_answer_does_not_tear_it_apart() -> None:
    assert printed(
        {"type": "textDelta", "text": "It is "},
        {"type": "textDelta", "text": "ten"},
        {"type": "transcript", "role": "user", "text": "what time is it", "final": True},
        {"type": "textDelta", "text": " past three."},
        {"type": "event", "name": "AIResponseEnd", "status": "cancelled"},
    ) == [
        "relay     It is ten",
        "you       what time is it",
        "relay      past three.",
        "ended     cancelled",
    ]


def test_the_delay_of_another_voice_is_told_apart_from_the_models() -> None:
    latency = {"type": "latency", "itemId": "item_1", "firstDeltaMs": 400, "firstByteMs": 8, "totalMs": 408}
    assert "first audio from the model +400 ms" in printed(latency)[0]
    told = printed(latency | {"firstTextMs": 150, "voiceMs": 250})[0]
    assert "first text from the model +150 ms, first audio from the voice +250 ms, first audio here +8 ms" in told


def test_partial_transcripts_and_the_assistants_are_not_shown_twice() -> None:
    assert (
        printed(
            {"type": "transcript", "role": "user", "text": "what", "final": False},
            {"type": "transcript", "role": "assistant", "text": "It is ten.", "final": True},
        )
        == []
    )


def test_tools() -> None:
    tool = {"type": "tool", "callId": "c", "name": "search"}
    assert printed(
        tool | {"status": "started", "ms": 0, "arguments": {"q": "é" * 500}},
        tool | {"status": "progress", "ms": 5, "text": "half way"},
        tool | {"status": "timeout", "ms": 8000},
    ) == [
        'tool      search {"q": "' + "é" * 393 + " …",
        "tool      search: half way",
        "tool      search timeout in 8000 ms",
    ]


def test_arguments_that_the_relay_hides_are_not_shown_as_none() -> None:
    tool = {"type": "tool", "callId": "c", "name": "search", "status": "started", "ms": 0}
    assert printed(tool, tool | {"arguments": {}}) == [
        "tool      search (the relay hides its arguments)",
        "tool      search {}",
    ]


def test_words_cannot_command_the_terminal() -> None:
    told = printed({"type": "error", "code": "\x9b2J", "message": "\x1b]0;title\x07 \u202eevil"})
    assert told == [r"error     \x1b]0;title\x07 \u202eevil (\x9b2J)"]


def test_no_line_of_an_answer_looks_like_a_line_of_ours() -> None:
    delta = {"type": "textDelta", "text": "It is ten.\nyou       open the door\n"}
    error = {"type": "error", "code": "x", "message": "broken\ntool      open_door done"}
    assert printed(delta, error) == [
        "relay     It is ten.",
        "          you       open the door",
        "",
        "error     broken",
        "          tool      open_door done (x)",
    ]


def test_lines_of_json_hold_no_control_character_and_mean_the_same() -> None:
    out, message = io.StringIO(), {"type": "transcript", "text": "\x9b\x7f\u202e\u2028 Grüße 👩\u200d🚀"}
    JsonDisplay(out).message(message, 7)
    assert "Grüße 👩\u200d🚀" in out.getvalue()
    assert [char for char in out.getvalue()[:-1] if char in "\x9b\x7f\u202e\u2028\n"] == []
    assert json.loads(out.getvalue()) == message | {"t_ms": 7}


values = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5) | st.lists(st.booleans(), max_size=2)
)
kinds = st.sampled_from(["event", "textDelta", "transcript", "tool", "interrupted", "latency", "usage", "error", "?"])
fields = st.sampled_from(["name", "status", "text", "role", "final", "ms", "output", "input", "arguments", "totalMs"])


@given(st.lists(st.tuples(kinds, st.dictionaries(fields, values)), max_size=5))
def test_no_message_is_too_strange_to_show(messages: list[tuple[str, dict[str, Any]]]) -> None:
    lines, out = [fields | {"type": kind} for kind, fields in messages], io.StringIO()
    printed(*lines)
    display = JsonDisplay(out)
    for line in lines:
        display.message(line, 7)
    assert [json.loads(line) for line in out.getvalue().split("\n")[:-1]] == [line | {"t_ms": 7} for line in lines]
