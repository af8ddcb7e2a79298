from typing import Any

import pytest

from relay.local_engine.realtime.session_config import default_session, merge_session, response_settings
from relay.local_engine.realtime.validation import InvalidRequestError

SESSION = default_session("sess_1", "relay-local")


def merged(current: dict[str, Any], **update: Any) -> dict[str, Any]:
    return merge_session(current, {"type": "realtime", **update}, has_spoken=False)


def test_an_update_does_not_change_the_previous_session():
    after = merged(SESSION, audio={"input": {"turn_detection": None}, "output": {"speed": 1.5}})
    assert SESSION["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert (after["audio"]["input"]["turn_detection"], after["audio"]["output"]["speed"]) == (None, 1.5)


def test_turn_detection_is_replaced_as_a_whole_and_filled_up():
    first = merged(SESSION, audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.9}}})
    second = merged(first, audio={"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 200}}})
    assert second["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    }


def test_a_response_inherits_the_settings_of_the_session():
    session = merged(SESSION, instructions="Be kind.", audio={"output": {"voice": "cedar"}})
    settings = response_settings(session, {"output_modalities": ["text"], "tool_choice": None})
    assert (settings["instructions"], settings["output_modalities"]) == ("Be kind.", ["text"])
    assert (settings["tool_choice"], settings["output"]["voice"]) == ("auto", "cedar")


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"modalities": ["text"]}, "response.modalities"),
        ({"conversation": "other"}, "response.conversation"),
        ({"metadata": {"key": 1}}, "response.metadata.key"),
        ({"metadata": {str(index): "" for index in range(17)}}, "response.metadata"),
        ({"input": "text"}, "response.input"),
        ({"audio": {"input": {}}}, "response.audio.input"),
        ([], "response"),
    ],
)
def test_invalid_response_parameters_are_refused(params: Any, param: str):
    with pytest.raises(InvalidRequestError) as caught:
        response_settings(SESSION, params)
    assert caught.value.param == param


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"x": value}
    return value


def test_values_nested_too_deeply_are_refused():
    tool = {"type": "function", "name": "f", "parameters": nested(400)}
    for update in ({"tools": [tool]}, {"tracing": nested(400)}, {"prompt": nested(400)}):
        with pytest.raises(InvalidRequestError):
            merged(SESSION, **update)


def test_tools_have_a_bound():
    tool = {"type": "function", "name": "f", "parameters": {"description": "x" * 1_000_000}}
    with pytest.raises(InvalidRequestError, match="1000000 bytes"):
        merged(SESSION, tools=[tool])
    with pytest.raises(InvalidRequestError, match="at most 128"):
        merged(SESSION, tools=[{"type": "function", "name": f"f{index}"} for index in range(129)])
