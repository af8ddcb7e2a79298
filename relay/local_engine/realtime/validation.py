"""Validation of client events: the error for an invalid request, and checks of single fields.

Event and field names: https://platform.openai.com/docs/api-reference/realtime-client-events. Error codes that clients
match are OpenAI's own.
"""

import re
from collections.abc import Callable, Collection
from typing import Any

import orjson

from relay.json_types import JsonObject

EventSink = Callable[[JsonObject], None]
"""Send one event."""
FieldCheck = Callable[[Any, str], Any]
"""Check a value of the named parameter; returns the value to store. Raises InvalidRequestError."""


class InvalidRequestError(Exception):
    """The client's request is invalid; it is answered with an `error` event and the connection stays open."""

    def __init__(self, message: str, *, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


MAX_ID_CHARS = 32
"""The limit of item and call ids that a client chooses."""
_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]+")


def require_field(obj: JsonObject, key: str, path: str = "") -> Any:
    """Return a required field."""
    if key not in obj or obj[key] is None:
        raise InvalidRequestError(
            f"Missing required parameter: '{path}{key}'.", code="missing_required_parameter", param=f"{path}{key}"
        )
    return obj[key]


def reject_unknown_fields(obj: JsonObject, allowed: Collection[str], path: str) -> None:
    """Raise InvalidRequestError if an object has other keys than these."""
    for key in obj:
        if key not in allowed:
            raise InvalidRequestError(
                f"Unknown parameter: '{path}{key}'.", code="unknown_parameter", param=f"{path}{key}"[:200]
            )


def check_object(value: Any, param: str) -> JsonObject:
    """Check a JSON object."""
    if not isinstance(value, dict):
        raise _type_error(value, param, "an object")
    return value


def check_list(value: Any, param: str, max_entries: int) -> list[Any]:
    """Check a list of at most `max_entries` entries."""
    if not isinstance(value, list):
        raise _type_error(value, param, "a list")
    if len(value) > max_entries:
        raise InvalidRequestError(
            f"Invalid '{param}': array too long. Expected at most {max_entries} entries, but got {len(value)} instead.",
            code="array_above_max_length",
            param=param,
        )
    return value


def check_string(value: Any, param: str, max_chars: int = 1_000_000, min_chars: int = 0) -> str:
    """Check a string of `min_chars` to `max_chars` characters."""
    if not isinstance(value, str):
        raise _type_error(value, param, "a string")
    if len(value) > max_chars:
        message = f"string too long. Expected at most {max_chars} characters, but got {len(value)} instead."
        raise InvalidRequestError(f"Invalid '{param}': {message}", code="string_above_max_length", param=param)
    if len(value) < min_chars:
        raise InvalidRequestError(
            f"Invalid '{param}': string too short. Expected at least {min_chars} characters.",
            code="string_below_min_length",
            param=param,
        )
    return value


def check_id(value: Any, param: str) -> str:
    """Check an id that a client chose: short, with letters, digits, dashes and underscores."""
    text = check_string(value, param, MAX_ID_CHARS, 1)
    if not _ID_PATTERN.fullmatch(text):
        raise InvalidRequestError(
            f"Invalid '{param}': {_short_repr(text)}. Expected only letters, digits, dashes and underscores.",
            param=param,
        )
    return text


def check_enum(value: Any, param: str, options: Collection[str]) -> str:
    """Check that a value is one of some strings."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(f"'{option}'" for option in options)
        raise InvalidRequestError(f"Invalid value: {_short_repr(value)}. Supported values are: {listed}.", param=param)
    return value


def check_integer(value: Any, param: str, low: int, high: int) -> int:
    """Check an integer from `low` to `high`; 3.0 counts as 3."""
    number = check_number(value, param, low, high, kind="integer")
    if not number.is_integer():
        raise _type_error(value, param, "an integer")
    return int(number)


def check_number(value: Any, param: str, low: float, high: float, *, kind: str = "decimal") -> float:
    """Check a number from `low` to `high`; `kind` is the first word of the error code."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _type_error(value, param, "a number" if kind == "decimal" else "an integer")
    if value < low:
        message = (
            f"Invalid '{param}': {kind} below minimum value. Expected a value >= {low}, but got {_short_repr(value)}."
        )
        raise InvalidRequestError(message, code=f"{kind}_below_min_value", param=param)
    if not value <= high:
        message = (
            f"Invalid '{param}': {kind} above maximum value. Expected a value <= {high}, but got {_short_repr(value)}."
        )
        raise InvalidRequestError(message, code=f"{kind}_above_max_value", param=param)
    return float(value)


def check_bool(value: Any, param: str) -> bool:
    """Check a boolean."""
    if not isinstance(value, bool):
        raise _type_error(value, param, "true or false")
    return value


def default_if_none(value: Any, default: Any) -> Any:
    """Return the default for None only: other false values are still checked."""
    return default if value is None else value


def nullable(check: FieldCheck, default: Any) -> FieldCheck:
    """Return a check that maps null to the default."""
    return lambda value, param: default if value is None else check(value, param)


def enum_check(*options: str) -> FieldCheck:
    """Return a check for one of some strings."""
    return lambda value, param: check_enum(value, param, options)


def enum_or_object(check: FieldCheck, *options: str) -> FieldCheck:
    """Return a check for one of some strings, or an object."""
    return lambda value, param: check(value, param) if isinstance(value, dict) else check_enum(value, param, options)


def object_check(checks: dict[str, FieldCheck], *required: str) -> FieldCheck:
    """Return a check for null or an object of known fields; fields that are null are removed."""

    def check(value: Any, param: str) -> JsonObject | None:
        if value is None:
            return None
        value = check_object(value, param)
        for key in required:
            require_field(value, key, f"{param}.")
        reject_unknown_fields(value, checks, f"{param}.")
        return {key: checks[key](entry, f"{param}.{key}") for key, entry in value.items() if entry is not None}

    return check


def check_metadata(value: Any, param: str) -> JsonObject | None:
    """Check metadata: at most 16 short strings, as in OpenAI's API."""
    if value is None:
        return None
    value = check_object(value, param)
    if len(value) > 16:
        raise InvalidRequestError(f"Invalid '{param}': at most 16 entries are allowed.", param=param)
    for key, entry in value.items():
        check_string(key, param, 64)
        check_string(entry, f"{param}.{key}", 512)
    return dict(value)


def check_json(value: Any, param: str) -> Any:
    """Check the size of a value that is only echoed."""
    if json_size_bytes(value, param) > 100_000:
        raise InvalidRequestError(f"Invalid '{param}': at most 100000 bytes of JSON are allowed.", param=param)
    return value


def json_size_bytes(value: Any, param: str) -> int:
    """Return the size of a value as JSON. Raises InvalidRequestError if it is nested too deeply to be echoed."""
    try:
        return len(orjson.dumps(value))
    except TypeError as error:
        raise InvalidRequestError(f"Invalid '{param}': nested too deeply.", param=param) from error


def _type_error(value: Any, param: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Invalid type for '{param}': expected {expected}, got {_short_repr(value)} instead.",
        code="invalid_type",
        param=param,
    )


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
