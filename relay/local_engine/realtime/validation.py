"""The protocol's small change: faults, and checks of fields.

Event and field names: https://platform.openai.com/docs/api-reference/realtime-client-events. Where a code is known to
clients (facts of their source), exactly that code is used.
"""

import re
from collections.abc import Callable, Collection
from typing import Any

import orjson

from relay.json_types import JsonObject

Send = Callable[[JsonObject], None]
"""Sends one event."""
Check = Callable[[Any, str], Any]
"""Checks the value of a parameter of that name; returns it as it is kept, or raises Fault."""


class Fault(Exception):
    """The client sent something wrong; becomes an `error` event, the connection stays open."""

    def __init__(self, message: str, *, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


LONGEST_ID = 32
"""Of items, calls and what else a client may name."""
_ID = re.compile(r"[A-Za-z0-9_-]+")


def need(obj: JsonObject, key: str, path: str = "") -> Any:
    """A required field."""
    if key not in obj or obj[key] is None:
        raise Fault(
            f"Missing required parameter: '{path}{key}'.", code="missing_required_parameter", param=f"{path}{key}"
        )
    return obj[key]


def only(obj: JsonObject, allowed: Collection[str], path: str) -> None:
    """No other keys than these."""
    for key in obj:
        if key not in allowed:
            raise Fault(f"Unknown parameter: '{path}{key}'.", code="unknown_parameter", param=f"{path}{key}"[:200])


def an_object(value: Any, param: str) -> JsonObject:
    """A JSON object."""
    if not isinstance(value, dict):
        raise _wrong_type(value, param, "an object")
    return value


def a_list(value: Any, param: str, most: int) -> list[Any]:
    """A list of at most `most` entries."""
    if not isinstance(value, list):
        raise _wrong_type(value, param, "a list")
    if len(value) > most:
        raise Fault(
            f"Invalid '{param}': array too long. Expected at most {most} entries, but got {len(value)} instead.",
            code="array_above_max_length",
            param=param,
        )
    return value


def a_text(value: Any, param: str, longest: int = 1_000_000, shortest: int = 0) -> str:
    """A string with a bounded length."""
    if not isinstance(value, str):
        raise _wrong_type(value, param, "a string")
    if len(value) > longest:
        raise Fault(
            f"Invalid '{param}': string too long. Expected at most {longest} characters, but got {len(value)} instead.",
            code="string_above_max_length",
            param=param,
        )
    if len(value) < shortest:
        raise Fault(
            f"Invalid '{param}': string too short. Expected at least {shortest} characters.",
            code="string_below_min_length",
            param=param,
        )
    return value


def an_id(value: Any, param: str) -> str:
    """An id that a client chose: short, and of letters, digits, dash and underscore."""
    text = a_text(value, param, LONGEST_ID, 1)
    if not _ID.fullmatch(text):
        raise Fault(
            f"Invalid '{param}': {_shown(text)}. Expected only letters, digits, dashes and underscores.", param=param
        )
    return text


def one_of(value: Any, param: str, options: Collection[str]) -> str:
    """One of some strings."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(f"'{option}'" for option in options)
        raise Fault(f"Invalid value: {_shown(value)}. Supported values are: {listed}.", param=param)
    return value


def a_whole_number(value: Any, param: str, low: int, high: int) -> int:
    """An integer within bounds; 3.0 counts as 3."""
    number = a_number(value, param, low, high, kind="integer")
    if not number.is_integer():
        raise _wrong_type(value, param, "an integer")
    return int(number)


def a_number(value: Any, param: str, low: float, high: float, *, kind: str = "decimal") -> float:
    """A number within bounds; `kind` is the first word of the error's code."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(value, param, "a number" if kind == "decimal" else "an integer")
    if value < low:
        message = f"Invalid '{param}': {kind} below minimum value. Expected a value >= {low}, but got {_shown(value)}."
        raise Fault(message, code=f"{kind}_below_min_value", param=param)
    if not value <= high:
        message = f"Invalid '{param}': {kind} above maximum value. Expected a value <= {high}, but got {_shown(value)}."
        raise Fault(message, code=f"{kind}_above_max_value", param=param)
    return float(value)


def a_flag(value: Any, param: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong_type(value, param, "true or false")
    return value


def given(value: Any, default: Any) -> Any:
    """The value, or the default if it is null: a false value of a wrong type is still wrong."""
    return default if value is None else value


def or_default(check: Check, default: Any) -> Check:
    """A check that takes null for the default."""
    return lambda value, param: default if value is None else check(value, param)


def choice(*options: str) -> Check:
    """`one_of` as a check."""
    return lambda value, param: one_of(value, param, options)


def one_of_or(check: Check, *options: str) -> Check:
    """One of some strings, or an object."""
    return lambda value, param: check(value, param) if isinstance(value, dict) else one_of(value, param, options)


def shaped(checks: dict[str, Check], *required: str) -> Check:
    """Null, or an object of known fields; those of them that are null are left out."""

    def check(value: Any, param: str) -> JsonObject | None:
        if value is None:
            return None
        value = an_object(value, param)
        for key in required:
            need(value, key, f"{param}.")
        only(value, checks, f"{param}.")
        return {key: checks[key](entry, f"{param}.{key}") for key, entry in value.items() if entry is not None}

    return check


def metadata(value: Any, param: str) -> JsonObject | None:
    """At most 16 short strings, as OpenAI has it."""
    if value is None:
        return None
    value = an_object(value, param)
    if len(value) > 16:
        raise Fault(f"Invalid '{param}': at most 16 entries are allowed.", param=param)
    for key, entry in value.items():
        a_text(key, param, 64)
        a_text(entry, f"{param}.{key}", 512)
    return dict(value)


def any_json(value: Any, param: str) -> Any:
    """Accepted and echoed; nothing here depends on it."""
    if json_bytes(value, param) > 100_000:
        raise Fault(f"Invalid '{param}': it is too long.", param=param)
    return value


def json_bytes(value: Any, param: str) -> int:
    """Bytes as JSON; what is nested too deeply to be echoed is refused."""
    try:
        return len(orjson.dumps(value))
    except TypeError as error:
        raise Fault(f"Invalid '{param}': it is nested too deeply.", param=param) from error


def _wrong_type(value: Any, param: str, wanted: str) -> Fault:
    return Fault(
        f"Invalid type for '{param}': expected {wanted}, got {_shown(value)} instead.", code="invalid_type", param=param
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
