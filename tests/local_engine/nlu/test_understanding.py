"""Tools without example sentences, and requests that follow another one."""

import json
from typing import Any

import pytest

from relay.local_engine.nlu.grammar import Grammar
from tests.local_engine.engine_harness import TOOLS, EngineHarness


def bare(name: str, description: str, required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    """Return a tool without example sentences, as most clients define it."""
    parameters = {"type": "object", "properties": properties, "required": required or []}
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


CITY = {"type": "string"}
ROOM = {"type": "string", "enum": ["kitchen", "bedroom"]}
UNDOCUMENTED_TOOLS = [
    bare("get_weather", "Get the current weather in a city.", ["city"], city=CITY),
    bare("set_light", "Turn the light in a room on or off.", ["room"], room=ROOM),
    bare("lookup_order", "Returns the status of an order", ["order"], order={"type": "integer", "maximum": 99}),
    bare("ping", "Checks that the server is alive."),
]


@pytest.mark.parametrize(
    ("sentence", "name", "arguments"),
    [
        ("get the current weather in paris", "get_weather", {"city": "Paris"}),
        ("please get the current weather in new york", "get_weather", {"city": "New York"}),
        ("what is the weather in oslo", "get_weather", {"city": "Oslo"}),
        ("turn the light in kitchen on", "set_light", {"room": "kitchen"}),
        ("turn the light in bedroom off", "set_light", {"room": "bedroom"}),
        ("return the status of twelve", "lookup_order", {"order": 12}),
        ("check that the server is alive", "ping", {}),
        ("ping", "ping", {}),
    ],
)
def test_a_tool_without_examples_is_understood_by_its_description(sentence: str, name: str, arguments: dict[str, Any]):
    [request] = Grammar(UNDOCUMENTED_TOOLS).parse(sentence, strict=True) or []
    assert (request.name, request.arguments) == (name, arguments)


def test_such_sentences_can_be_spoken():
    words = {word for _, _, word in Grammar(UNDOCUMENTED_TOOLS).word_lattice.arcs}
    assert {"weather", "status", "kitchen", "alive"} <= words


def call_for(engine: EngineHarness, sentence: str) -> tuple[str, dict[str, Any]]:
    [call] = [item for item in engine.user_says(sentence)[-1]["response"]["output"] if item["type"] == "function_call"]
    engine.tool_returns(call["call_id"], "done")
    engine.client_sends("response.create")
    engine.assistant_speaks()
    return call["name"], json.loads(call["arguments"])


def test_a_follow_up_repeats_the_previous_request():
    engine = EngineHarness(tools=TOOLS)
    assert call_for(engine, "what time is it in paris") == ("current_time", {"city": "Paris"})
    assert call_for(engine, "and in tokyo") == ("current_time", {"city": "Tokyo"})
    assert call_for(engine, "what about new york") == ("current_time", {"city": "New York"})


def test_a_follow_up_goes_to_the_last_tool():
    engine = EngineHarness(tools=[*UNDOCUMENTED_TOOLS, *TOOLS])
    assert call_for(engine, "what time is it in paris")[0] == "current_time"
    assert call_for(engine, "and in tokyo") == ("current_time", {"city": "Tokyo"})
    assert call_for(engine, "get the current weather in oslo")[0] == "get_weather"
    assert call_for(engine, "and in tokyo") == ("get_weather", {"city": "Tokyo"})


def test_the_other_arguments_stay():
    engine = EngineHarness(tools=TOOLS)
    call_for(engine, "convert five miles to kilometers")
    assert call_for(engine, "and to feet") == ("convert_units", {"value": 5, "from_unit": "miles", "to_unit": "feet"})


def test_a_follow_up_without_a_previous_request_asks_for_arguments():
    engine = EngineHarness(tools=TOOLS)
    engine.user_says("and to feet")
    assert engine.last_synthesis.sentences[0].startswith("For convert units I need the value and from unit")
