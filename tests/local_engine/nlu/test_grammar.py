import time
from typing import Any

import pytest

from relay.local_engine.nlu.grammar import Grammar
from relay.local_engine.nlu.word_lattice import WordLattice
from tests.local_engine.engine_harness import TOOLS, function

GRAMMAR = Grammar(TOOLS)


def understood(text: str, *, strict: bool = False) -> list[tuple[str, dict[str, Any]]] | None:
    requests = GRAMMAR.parse(text, strict=strict)
    return None if requests is None else [(request.name, request.arguments) for request in requests]


@pytest.mark.parametrize(
    ("text", "requests"),
    [
        ("What time is it in Paris?", [("current_time", {"city": "Paris"})]),
        ("what's the time in são paulo", [("current_time", {"city": "Sao Paulo"})]),
        ("Could you please tell me the time in New York, thanks", [("current_time", {"city": "New York"})]),
        ("tell us the time in Ulaanbaatar", [("current_time", {"city": "Ulaanbaatar"})]),
        ("roll 2 dice", [("roll_dice", {"count": 2})]),
        ("roll the two dice with 20 sides", [("roll_dice", {"count": 2, "sides": 20})]),
        ("roll a die", [("roll_dice", {})]),
        (
            "convert -40 celsius to fahrenheit",
            [("convert_units", {"value": -40, "from_unit": "celsius", "to_unit": "fahrenheit"})],
        ),
        ("how many feet are 2.5 meters", [("convert_units", {"value": 2.5, "from_unit": "meters", "to_unit": "feet"})]),
        (
            "Roll two dice and tell me the time in Paris.",
            [("roll_dice", {"count": 2}), ("current_time", {"city": "Paris"})],
        ),
        (
            "What time is it in Paris? Roll a die, and then convert 5 miles to kilometers please",
            [
                ("current_time", {"city": "Paris"}),
                ("roll_dice", {}),
                ("convert_units", {"value": 5, "from_unit": "miles", "to_unit": "kilometers"}),
            ],
        ),
        ("use roll dice", [("roll_dice", {})]),
        ("Hello!", [("greeting", {})]),
        ("tell me a long story", [("story", {})]),
        ("what can you do", [("help", {})]),
    ],
)
def test_sentences_of_the_tools_and_small_talk(text: str, requests: list[tuple[str, dict[str, Any]]]):
    assert understood(text) == requests


@pytest.mark.parametrize(
    "text",
    ["", "roll", "roll twenty one dice", "roll two", "time", "and", "the quick brown fox", "roll two dice and", "?!"],
)
def test_text_outside_the_grammar(text: str):
    assert understood(text) is None


def test_recognized_speech_must_match_every_word():
    assert understood("what time is it in ulaanbaatar", strict=True) is None
    assert understood("roll the two dice", strict=True) is None
    assert understood("what time is it in lima", strict=True) == [("current_time", {"city": "Lima"})]


def test_a_tool_without_examples_is_asked_for_by_its_name():
    weather = function("get_weather", [], ["city"], city={"type": "string"}, unit={"enum": ["celsius"]})
    grammar = Grammar([weather, function("restart_router", [], [])])
    for text in ("get weather for Oslo", "what is the weather in Oslo", "weather oslo", "show me the weather for oslo"):
        [request] = grammar.parse(text, strict=True) or []
        assert (request.name, request.arguments) == ("get_weather", {"city": "Oslo"})
    [request] = grammar.parse("restart router") or []
    assert request.name == "restart_router"
    assert sentence_is_in(grammar.word_lattice, "what's the weather in oslo")


@pytest.mark.parametrize(
    "tool",
    [
        {},
        {"name": "x"},
        {"name": "", "parameters": None},
        {"name": "x", "parameters": {"x-examples": "no list"}},
        {"name": "x", "parameters": {"x-examples": [7, "do {nothing}", "{", "", "{x}"], "properties": {"x": {}}}},
        {"name": "日本", "description": None, "parameters": []},
    ],
)
def test_any_tool_is_survived(tool: dict[str, Any]):
    grammar = Grammar([tool])
    assert grammar.parse("hello")
    assert sentence_is_in(grammar.word_lattice, "hello")


def test_an_example_for_the_user():
    assert GRAMMAR.tools["convert_units"].example_sentence() == "convert two miles to miles"
    assert GRAMMAR.tools["roll_dice"].example_sentence() == "roll a die"
    assert (
        Grammar([function("find", [], ["city"], city={"enum": ["Rome"]})]).tools["find"].example_sentence()
        == "find for Rome"
    )


def sentence_is_in(lattice: WordLattice, sentence: str) -> bool:
    states = {0}
    for word in sentence.split():
        states = {target for source, target, label in lattice.arcs if source in states and label == word}
    return lattice.final_state in states


@pytest.mark.parametrize(
    ("sentence", "is_in"),
    [
        ("what time is it in tokyo", True),
        ("please roll two dice and tell me the time in paris", True),
        ("convert five point two miles to kilometers thanks", True),
        ("roll twenty one dice", False),
        ("roll two", False),
        ("hello and hello", False),
        ("what time is it in ulaanbaatar", False),
    ],
)
def test_sentences_of_the_word_lattice(sentence: str, is_in: bool):
    assert sentence_is_in(GRAMMAR.word_lattice, sentence) is is_in


def test_a_text_made_to_be_ambiguous_is_given_up_soon():
    free = {"type": "string"}
    tool = function("f", ["{a} {b} {c} {d}", "{a} x {b} x {c}"], ["a", "b", "c", "d"], a=free, b=free, c=free, d=free)
    start = time.process_time()
    Grammar([tool]).parse("x " * 59)
    assert time.process_time() - start < 2


def test_huge_tool_lists_stay_bounded():
    many = {"enum": [f"value{index}" for index in range(400)]}
    tools = [function(f"tool_{index}", ["do {a} with {b}"], ["a", "b"], a=many, b=many) for index in range(128)]
    network = Grammar(tools).word_lattice
    assert len(network.arcs) < 15_000
