"""The protocol's small change: faults, and checks of fields.

Event and field names: https://platform.openai.com/docs/api-reference/realtime-client-events. Where a code is known to
clients (facts of their source), exactly that code is used.
"""

import re
from collections.abc import Callable, Collection
from typing import Any

import orjson

from relay.json_types import JsonObject

EventSink = Callable[[JsonObject], None]
"""Sends one event."""
FieldCheck = Callable[[Any, str], Any]
"""Checks the value of a parameter of that name; returns it as it is kept, or raises Fault."""


class InvalidRequestError(Exception):
    """The client sent something wrong; becomes an `error` event, the connection stays open."""

    def __init__(self, message: str, *, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


MAX_ID_CHARS = 32
"""Of items, calls and what else a client may name."""
_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]+")


def require_field(obj: JsonObject, key: str, path: str = "") -> Any:
    """A required field."""
    if key not in obj or obj[key] is None:
        raise InvalidRequestError(
            f"Missing required parameter: '{path}{key}'.", code="missing_required_parameter", param=f"{path}{key}"
        )
    return obj[key]


def reject_unknown_fields(obj: JsonObject, allowed: Collection[str], path: str) -> None:
    """No other keys than these."""
    for key in obj:
        if key not in allowed:
            raise InvalidRequestError(
                f"Unknown parameter: '{path}{key}'.", code="unknown_parameter", param=f"{path}{key}"[:200]
            )


def check_object(value: Any, param: str) -> JsonObject:
    """A JSON object."""
    if not isinstance(value, dict):
        raise _type_error(value, param, "an object")
    return value


def check_list(value: Any, param: str, max_entries: int) -> list[Any]:
    """A list of at most `max_entries` entries."""
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
    """A string with a bounded length."""
    if not isinstance(value, str):
        raise _type_error(value, param, "a string")
    if len(value) > max_chars:
        raise InvalidRequestError(
            f"Invalid '{param}': string too long. Expected at most {max_chars} characters, "
            f"but got {len(value)} instead.",
            code="string_above_max_length",
            param=param,
        )
    if len(value) < min_chars:
        raise InvalidRequestError(
            f"Invalid '{param}': string too short. Expected at least {min_chars} characters.",
            code="string_below_min_length",
            param=param,
        )
    return value


def check_id(value: Any, param: str) -> str:
    """An id that a client chose: short, and of letters, digits, dash and underscore."""
    text = check_string(value, param, MAX_ID_CHARS, 1)
    if not _ID_PATTERN.fullmatch(text):
        raise InvalidRequestError(
            f"Invalid '{param}': {_short_repr(text)}. Expected only letters, digits, dashes and underscores.",
            param=param,
        )
    return text


def check_enum(value: Any, param: str, options: Collection[str]) -> str:
    """One of some strings."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(f"'{option}'" for option in options)
        raise InvalidRequestError(f"Invalid value: {_short_repr(value)}. Supported values are: {listed}.", param=param)
    return value


def check_integer(value: Any, param: str, low: int, high: int) -> int:
    """An integer within bounds; 3.0 counts as 3."""
    number = check_number(value, param, low, high, kind="integer")
    if not number.is_integer():
        raise _type_error(value, param, "an integer")
    return int(number)


def check_number(value: Any, param: str, low: float, high: float, *, kind: str = "decimal") -> float:
    """A number within bounds; `kind` is the first word of the error's code."""
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
    """True or false."""
    if not isinstance(value, bool):
        raise _type_error(value, param, "true or false")
    return value


def default_if_none(value: Any, default: Any) -> Any:
    """The value, or the default if it is null: a false value of a wrong type is still wrong."""
    return default if value is None else value


def nullable(check: FieldCheck, default: Any) -> FieldCheck:
    """A check that takes null for the default."""
    return lambda value, param: default if value is None else check(value, param)


def enum_check(*options: str) -> FieldCheck:
    """`check_enum` as a check."""
    return lambda value, param: check_enum(value, param, options)


def enum_or_object(check: FieldCheck, *options: str) -> FieldCheck:
    """One of some strings, or an object."""
    return lambda value, param: check(value, param) if isinstance(value, dict) else check_enum(value, param, options)


def object_check(checks: dict[str, FieldCheck], *required: str) -> FieldCheck:
    """Null, or an object of known fields; those of them that are null are left out."""

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
    """At most 16 short strings, as OpenAI has it."""
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
    """Accepted and echoed; nothing here depends on it."""
    if json_size_bytes(value, param) > 100_000:
        raise InvalidRequestError(f"Invalid '{param}': it is too long.", param=param)
    return value


def json_size_bytes(value: Any, param: str) -> int:
    """Bytes as JSON; what is nested too deeply to be echoed is refused."""
    try:
        return len(orjson.dumps(value))
    except TypeError as error:
        raise InvalidRequestError(f"Invalid '{param}': it is nested too deeply.", param=param) from error


def _type_error(value: Any, param: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"Invalid type for '{param}': expected {expected}, got {_short_repr(value)} instead.",
        code="invalid_type",
        param=param,
    )


def _short_repr(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
