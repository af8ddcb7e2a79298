from typing import Any

import pytest

from relay.local_engine.nlu.english import CITIES
from relay.local_engine.nlu.slots import Slot, slots_from_schema
from relay.local_engine.nlu.spoken_grammar import spoken_numbers
from relay.local_engine.nlu.text_normalization import tokenize
from relay.local_engine.nlu.word_lattice import compile_lattice


def slot(schema: Any, name: str = "thing", **root: Any) -> Slot:
    return slots_from_schema({"type": "object", "properties": {name: schema}, "required": [name], **root})[name]


def read(slot_to_read: Slot, text: str) -> list[Any]:
    words = tokenize(text)
    return [value for end, value, _ in slot_to_read.read(words, 0, text) if end == len(words)]


@pytest.mark.parametrize(
    ("schema", "text", "values"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 20}, "7", [7]),
        ({"type": "integer", "minimum": 1, "maximum": 20}, "21", []),
        ({"type": "integer"}, "two point five", []),
        ({"type": "number"}, "-2.5", [-2.5]),
        ({"type": "boolean"}, "yes", [True]),
        ({"enum": ["red", "dark_blue"]}, "dark blue", ["dark_blue"]),
        ({"enum": ["red", "dark_blue"]}, "green", []),
        ({"enum": [1, 2]}, "two", [2]),
        ({"type": "string", "examples": ["Oslo"]}, "oslo", ["Oslo", "oslo"]),
        ({"type": "string"}, "Old Kraków", ["Old Kraków"]),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "three", [3]),
        ({"type": ["null", "integer"]}, "three", [3]),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, "b", [["b"]]),
        ({"type": "object"}, "anything", []),
        ({"const": "on"}, "on", ["on"]),
    ],
)
def test_values_are_read_by_their_schema(schema: Any, text: str, values: list[Any]):
    assert read(slot(schema), text) == values


def test_references_are_followed():
    defs = {"Color": {"type": "string", "enum": ["red"]}}
    assert read(slot({"$ref": "#/$defs/Color"}, **{"$defs": defs}), "red") == ["red"]
    assert slot({"$ref": "#/$defs/Nobody"}, **{"$defs": defs}).kind == "free"
    assert slot({"$ref": "#/$defs/A"}, **{"$defs": {"A": {"$ref": "#/$defs/A"}}}).kind == "free"


def test_places_and_units_are_known_without_being_listed():
    assert [choice.value for choice in slot({"type": "string"}, "city").choices] == list(CITIES)
    assert read(slot({"type": "string"}, "from_unit"), "mile")[0] == "miles"
    assert read(slot({"type": "string"}, "to_unit"), "degrees celsius")[0] == "celsius"
    assert [choice.value for choice in slot({"type": "string", "examples": ["Bree"]}, "city").choices] == ["Bree"]


@pytest.mark.parametrize("parameters", [None, [], {}, {"properties": []}, {"properties": {"x": None}, "required": 7}])
def test_any_schema_is_survived(parameters: Any):
    assert all(parameter.kind == "free" for parameter in slots_from_schema(parameters).values())


@pytest.mark.parametrize(
    ("schema", "spoken_range"),
    [
        ({"type": "integer"}, (0, 100)),
        ({"type": "integer", "minimum": 1}, (1, 101)),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 6}, (1, 6)),
        ({"type": "integer", "examples": [250]}, (0, 250)),
        ({"type": "number"}, (-999, 999)),
    ],
)
def test_the_spoken_range(schema: Any, spoken_range: tuple[float, float]):
    assert slot(schema).spoken_range == spoken_range


def test_small_ranges_are_exact_when_spoken():
    arcs = compile_lattice(spoken_numbers(2, 21, fractions=False)).arcs
    assert "thirty" not in {word for _, _, word in arcs}
    assert "one" in {word for _, _, word in arcs}


@pytest.mark.parametrize(
    ("schema", "value"),
    [({"type": "integer", "default": 4}, 4), ({"type": "integer", "minimum": 3}, 3), ({"enum": ["x"]}, "x"), ({}, "")],
)
def test_the_fallback_value_of_a_forced_call(schema: Any, value: Any):
    assert slot(schema).fallback_value() == value
