"""Tools that a client brings, and what refers to the request before."""

import json
from typing import Any

import pytest

from relay.local_engine.nlu.grammar import Grammar
from tests.local_engine.engine_stage import TOOLS, EngineHarness


def bare(name: str, description: str, required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    """A tool as most clients bring it: no example sentences."""
    parameters = {"type": "object", "properties": properties, "required": required or []}
    return {"type": "function", "name": name, "description": description, "parameters": parameters}


CITY = {"type": "string"}
ROOM = {"type": "string", "enum": ["kitchen", "bedroom"]}
BROUGHT = [
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
    [request] = Grammar(BROUGHT).parse(sentence, strict=True) or []
    assert (request.name, request.arguments) == (name, arguments)


def test_such_sentences_can_be_said_aloud():
    words = {word for _, _, word in Grammar(BROUGHT).word_lattice.arcs}
    assert {"weather", "status", "kitchen", "alive"} <= words


def asked(paper: EngineHarness, sentence: str) -> tuple[str, dict[str, Any]]:
    [call] = [item for item in paper.user_says(sentence)[-1]["response"]["output"] if item["type"] == "function_call"]
    paper.tool_returns(call["call_id"], "done")
    paper.client_sends("response.create")
    paper.assistant_speaks()
    return call["name"], json.loads(call["arguments"])


def test_what_follows_repeats_the_request_before():
    paper = EngineHarness(tools=TOOLS)
    assert asked(paper, "what time is it in paris") == ("current_time", {"city": "Paris"})
    assert asked(paper, "and in tokyo") == ("current_time", {"city": "Tokyo"})
    assert asked(paper, "what about new york") == ("current_time", {"city": "New York"})


def test_what_follows_goes_to_the_tool_that_was_called_last():
    paper = EngineHarness(tools=[*BROUGHT, *TOOLS])
    assert asked(paper, "what time is it in paris")[0] == "current_time"
    assert asked(paper, "and in tokyo") == ("current_time", {"city": "Tokyo"})
    assert asked(paper, "get the current weather in oslo")[0] == "get_weather"
    assert asked(paper, "and in tokyo") == ("get_weather", {"city": "Tokyo"})


def test_the_other_arguments_stay():
    paper = EngineHarness(tools=TOOLS)
    asked(paper, "convert five miles to kilometers")
    assert asked(paper, "and to feet") == ("convert_units", {"value": 5, "from_unit": "miles", "to_unit": "feet"})


def test_a_request_that_follows_nothing_is_asked_back():
    paper = EngineHarness(tools=TOOLS)
    paper.user_says("and to feet")
    assert paper.last_synthesis.sentences[0].startswith("For convert units I need the value and from unit")
