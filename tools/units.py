"""Converts between everyday units of length, mass, volume, temperature and speed."""

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from relay import ToolError, tool


@dataclass(frozen=True)
class _Unit:
    """`base = value * factor + offset`, in meters, kilograms, liters, kelvin or meters per second."""

    kind: str
    singular: str
    plural: str
    factor: float
    aliases: Sequence[str] = ()
    offset: float = 0.0


_DATA: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_SPOKEN: list[str] = _DATA.pop("spoken")
_UNITS = [_Unit(kind, **unit) for kind, units in _DATA.items() for unit in units]


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
        "from_unit": source.plural,
        "to_unit": target.plural,
        "result": float(f"{result:.10g}"),
        "summary": f"{_spoken(value, source)} {verb} {_spoken(result, target)}.",
    }


def _pair(from_name: str, to_name: str) -> tuple[_Unit, _Unit]:
    """Return the two units of one kind; "oz" and "k" have two meanings each."""
    sources, targets = _named(from_name), _named(to_name)
    for source in sources:
        for target in targets:
            if source.kind == target.kind:
                return source, target
    raise ToolError(
        f"{sources[0].plural} measure {sources[0].kind} and {targets[0].plural} measure {targets[0].kind}, "
        "so one cannot be converted to the other."
    )


def _named(name: str) -> list[_Unit]:
    normal_name = _normal(name)
    units = [unit for unit in _UNITS if normal_name in _names(unit)]
    if not units:
        known_names = sorted({known_name for unit in _UNITS for known_name in _names(unit)})
        near = difflib.get_close_matches(normal_name, known_names, n=3, cutoff=0.7)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Units I know are {', '.join(_SPOKEN)}."
        raise ToolError(f'I do not know the unit "{name}". {hint}')
    return units


def _names(unit: _Unit) -> tuple[str, ...]:
    return (unit.singular.lower(), unit.plural.lower(), *unit.aliases)


def _normal(name: str) -> str:
    """Normalize "Degrees Celsius", "°C" and "celsius" to one form; removes the full stops of abbreviations."""
    plain = " ".join(name.lower().replace("°", " ").replace(".", " ").replace("³", "3").split())
    return plain.removeprefix("degrees ").removeprefix("degree ")


def _spoken(value: float, unit: _Unit) -> str:
    number = _plain(value)
    return f"{number} {unit.singular if number in ('1', '-1') else unit.plural}"


def _plain(value: float) -> str:
    """Format with two decimals, or three significant digits of a small value; never with an exponent."""
    rounded = round(value, 2)
    if abs(rounded) < 0.1 and abs(value) > 1e-9:  # smaller values are rounding errors
        rounded = float(f"{value:.3g}")
    text = format(Decimal(repr(rounded)), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
