"""Converts between everyday units of length, mass, volume, temperature and speed."""

import difflib
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from relay import ToolError, tool


@dataclass(frozen=True)
class _Unit:
    """`base = value * factor + offset`, in meters, kilograms, liters, kelvin or meters per second."""

    kind: str
    one: str
    many: str
    factor: float
    aliases: tuple[str, ...] = ()
    offset: float = 0.0


_UNITS = (
    _Unit("length", "millimeter", "millimeters", 0.001, ("mm", "millimetre", "millimetres")),
    _Unit("length", "centimeter", "centimeters", 0.01, ("cm", "centimetre", "centimetres")),
    _Unit("length", "meter", "meters", 1, ("m", "metre", "metres")),
    _Unit("length", "kilometer", "kilometers", 1000, ("km", "kilometre", "kilometres", "k", "kms")),
    _Unit("length", "inch", "inches", 0.0254, ("in", '"')),
    _Unit("length", "foot", "feet", 0.3048, ("ft", "'")),
    _Unit("length", "yard", "yards", 0.9144, ("yd", "yds")),
    _Unit("length", "mile", "miles", 1609.344, ("mi",)),
    _Unit("length", "nautical mile", "nautical miles", 1852, ("nmi",)),
    _Unit("mass", "milligram", "milligrams", 1e-6, ("mg",)),
    _Unit("mass", "gram", "grams", 0.001, ("g", "gm", "gramme", "grammes")),
    _Unit("mass", "kilogram", "kilograms", 1, ("kg", "kgs", "kilo", "kilos", "kilogramme", "kilogrammes")),
    _Unit("mass", "metric ton", "metric tons", 1000, ("t", "ton", "tons", "tonne", "tonnes")),
    _Unit("mass", "ounce", "ounces", 0.028349523125, ("oz",)),
    _Unit("mass", "pound", "pounds", 0.45359237, ("lb", "lbs")),
    _Unit("mass", "stone", "stone", 6.35029318, ("stones", "st")),
    _Unit("volume", "milliliter", "milliliters", 0.001, ("ml", "millilitre", "millilitres")),
    _Unit("volume", "centiliter", "centiliters", 0.01, ("cl", "centilitre", "centilitres")),
    _Unit("volume", "liter", "liters", 1, ("l", "litre", "litres")),
    _Unit("volume", "cubic meter", "cubic meters", 1000, ("m3", "cubic metre", "cubic metres")),
    _Unit("volume", "teaspoon", "teaspoons", 0.00492892159375, ("tsp",)),
    _Unit("volume", "tablespoon", "tablespoons", 0.01478676478125, ("tbsp",)),
    # An ounce of mass when the other unit is one of mass, a fluid ounce when it is one of volume.
    _Unit("volume", "fluid ounce", "fluid ounces", 0.0295735295625, ("fl oz", "floz", "oz", "ounce", "ounces")),
    _Unit("volume", "cup", "cups", 0.2365882365),
    _Unit("volume", "pint", "pints", 0.473176473, ("pt",)),
    _Unit("volume", "quart", "quarts", 0.946352946, ("qt",)),
    _Unit("volume", "gallon", "gallons", 3.785411784, ("gal", "us gallon", "us gallons")),
    _Unit("volume", "imperial gallon", "imperial gallons", 4.54609, ("uk gallon", "uk gallons")),
    _Unit("temperature", "degree Celsius", "degrees Celsius", 1, ("c", "celsius", "centigrade"), 273.15),
    _Unit("temperature", "degree Fahrenheit", "degrees Fahrenheit", 5 / 9, ("f", "fahrenheit"), 273.15 - 32 * 5 / 9),
    _Unit("temperature", "kelvin", "kelvin", 1, ("k", "kelvins")),
    _Unit("speed", "meter per second", "meters per second", 1, ("m/s", "mps", "metres per second")),
    _Unit(
        "speed",
        "kilometer per hour",
        "kilometers per hour",
        1 / 3.6,
        ("km/h", "kmh", "kph", "kilometres per hour", "kilometers an hour"),
    ),
    _Unit("speed", "mile per hour", "miles per hour", 0.44704, ("mph", "mi/h", "miles an hour")),
    _Unit("speed", "foot per second", "feet per second", 0.3048, ("ft/s", "fps")),
    _Unit("speed", "knot", "knots", 1852 / 3600, ("kn", "kt", "kts")),
)

_SPOKEN = [
    *("miles", "kilometers", "meters", "centimeters", "feet", "inches", "yards"),
    *("pounds", "kilograms", "grams", "ounces", "gallons", "liters", "cups"),
    *("celsius", "fahrenheit", "miles per hour", "kilometers per hour"),
]


@tool(
    examples=[
        "convert {value} {from_unit} to {to_unit}",
        "how many {to_unit} are {value} {from_unit}",
        "how many {to_unit} are in {value} {from_unit}",
        "what is {value} {from_unit} in {to_unit}",
    ],
    timeout_s=2,
    expose=["model", "http", "client"],
)
def convert_units(
    value: Annotated[float, Field(ge=-1e12, le=1e12, description="The number to convert.")],
    from_unit: Annotated[str, Field(max_length=40, description="The unit it is in.", examples=_SPOKEN)],
    to_unit: Annotated[str, Field(max_length=40, description="The unit wanted.", examples=_SPOKEN)],
) -> dict[str, object]:
    """Convert a value between units of length, mass, volume, temperature or speed."""
    source, target = _pair(from_unit, to_unit)
    base = value * source.factor + source.offset
    if source.kind == "temperature" and base < -1e-9:
        raise ToolError(f"{_spoken(value, source)} would be below absolute zero.")
    result = (base - target.offset) / target.factor
    verb = "is" if abs(value) == 1 else "are"
    return {
        "value": value,
        "from_unit": source.many,
        "to_unit": target.many,
        "result": float(f"{result:.10g}"),
        "summary": f"{_spoken(value, source)} {verb} {_spoken(result, target)}.",
    }


def _pair(from_name: str, to_name: str) -> tuple[_Unit, _Unit]:
    """The two units of one kind that the names mean together: "oz" and "k" have two meanings each."""
    sources, targets = _named(from_name), _named(to_name)
    for source in sources:
        for target in targets:
            if source.kind == target.kind:
                return source, target
    raise ToolError(
        f"{sources[0].many} measure {sources[0].kind} and {targets[0].many} measure {targets[0].kind}, "
        "so one cannot be converted to the other."
    )


def _named(name: str) -> list[_Unit]:
    wanted = _normal(name)
    units = [unit for unit in _UNITS if wanted in _names(unit)]
    if not units:
        known = sorted({one for unit in _UNITS for one in _names(unit)})
        near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.7)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Units I know are {', '.join(_SPOKEN)}."
        raise ToolError(f'I do not know the unit "{name}". {hint}')
    return units


def _names(unit: _Unit) -> tuple[str, ...]:
    return (unit.one.lower(), unit.many.lower(), *unit.aliases)


def _normal(name: str) -> str:
    """One form for "Degrees Celsius", "°C" and "celsius"; a full stop ends an abbreviation."""
    plain = " ".join(name.lower().replace("°", " ").replace(".", " ").replace("³", "3").split())
    return plain.removeprefix("degrees ").removeprefix("degree ")


def _spoken(value: float, unit: _Unit) -> str:
    number = _plain(value)
    return f"{number} {unit.one if number in ('1', '-1') else unit.many}"


def _plain(value: float) -> str:
    """Two decimals, or three digits where that would say little; never an exponent, which nobody can say."""
    rounded = round(value, 2)
    if abs(rounded) < 0.1 and abs(value) > 1e-9:  # below that it is the noise of the arithmetic
        rounded = float(f"{value:.3g}")
    text = format(Decimal(repr(rounded)), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
