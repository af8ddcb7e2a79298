"""Units: a value and two names in, a sentence out."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import ToolError


def test_all_that_is_told(units: Any) -> None:
    assert units.convert_units(5, "miles", "kilometers") == {
        "value": 5,
        "from_unit": "miles",
        "to_unit": "kilometers",
        "result": 8.04672,
        "summary": "5 miles are 8.05 kilometers.",
    }


@pytest.mark.parametrize(
    ("value", "source", "target", "summary"),
    [
        (1, "mile", "km", "1 mile is 1.61 kilometers."),
        (12, "in", "feet", "12 inches are 1 foot."),
        (2.5, "Metres", "CENTIMETRES", "2.5 meters are 250 centimeters."),
        (10, "lbs.", "kilograms", "10 pounds are 4.54 kilograms."),
        (1, "stone", "pounds", "1 stone is 14 pounds."),
        (1000, "g", "kilos", "1000 grams are 1 kilogram."),
        (3, "oz", "grams", "3 ounces are 85.05 grams."),
        (3, "ounces", "ml", "3 fluid ounces are 88.72 milliliters."),
        (1, "gallon", "liters", "1 gallon is 3.79 liters."),
        (20, "celsius", "fahrenheit", "20 degrees Celsius are 68 degrees Fahrenheit."),
        (-40, "°F", "degrees celsius", "-40 degrees Fahrenheit are -40 degrees Celsius."),
        (32, "f", "c", "32 degrees Fahrenheit are 0 degrees Celsius."),
        (0, "kelvin", "celsius", "0 kelvin are -273.15 degrees Celsius."),
        (300, "k", "c", "300 kelvin are 26.85 degrees Celsius."),
        (5, "k", "miles", "5 kilometers are 3.11 miles."),
        (100, "km/h", "mph", "100 kilometers per hour are 62.14 miles per hour."),
        (1, "millimeter", "miles", "1 millimeter is 0.000000621 miles."),
        (1e12, "miles", "mm", "1000000000000 miles are 1609344000000000000 millimeters."),
        (-1, "m", "m", "-1 meter is -1 meter."),
    ],
)
def test_how_a_conversion_is_spoken(units: Any, value: float, source: str, target: str, summary: str) -> None:
    assert units.convert_units(value, source, target)["summary"] == summary


@pytest.mark.parametrize(
    ("value", "source", "target", "message"),
    [
        (
            5,
            "pounds",
            "miles",
            "pounds measure mass and miles measure length, so one cannot be converted to the other.",
        ),
        (5, "pundos", "kg", 'I do not know the unit "pundos". Did you mean pounds or pound?'),
        (5, "kg", "xyzzy", 'I do not know the unit "xyzzy". Units I know are miles, kilometers, '),
        (5, "", "kg", 'I do not know the unit "".'),
        (-500, "c", "f", "-500 degrees Celsius would be below absolute zero."),
    ],
)
def test_what_cannot_be_converted(units: Any, value: float, source: str, target: str, message: str) -> None:
    with pytest.raises(ToolError) as caught:
        units.convert_units(value, source, target)
    assert str(caught.value).startswith(message)


def test_a_name_means_one_unit_of_a_kind(units: Any) -> None:
    seen: set[tuple[str, str]] = set()
    for unit in units._UNITS:
        for name in set(units._names(unit)):
            assert (unit.kind, name) not in seen
            assert units._normal(name) in (name, name.removeprefix("degrees ").removeprefix("degree "))
            seen.add((unit.kind, name))


@settings(deadline=None)
@given(value=st.floats(-1e12, 1e12), data=st.data())
def test_there_and_back_again(units: Any, value: float, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["length", "mass", "volume", "speed"]))
    pair = st.sampled_from([one for one in units._UNITS if one.kind == kind])
    source, target = data.draw(pair), data.draw(pair)
    there = units.convert_units(value, source.plural, target.plural)
    back = units.convert_units(there["result"], target.plural, source.plural)
    assert back["result"] == pytest.approx(value, rel=1e-9, abs=1e-290)
    assert re.fullmatch(r"-?\d+(\.\d+)? .* (is|are) -?\d+(\.\d+)? .*\.", there["summary"])
