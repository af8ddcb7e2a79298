"""Explains invalid arguments to a model, one sentence per field, so that it can correct its call.

Also checks the limits of the arguments, before they are validated.
"""

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal

import pydantic

from relay.errors import ToolError
from relay.escaping import escape_controls

MAX_ARGUMENT_CHARS = 262_144
MAX_ARGUMENTS = 256
"""Members of the object itself; no tool has that many parameters."""
MAX_VALUES = 2_048
"""Strings, numbers, lists and objects in all: validating more of them would delay other sessions."""
MAX_DEPTH = 64
MAX_EXPLAINED_FIELDS = 8
MAX_READ_ERRORS = 1_000
"""Reading an error takes some microseconds, even if only the first eight are reported."""
MAX_QUOTED_CHARS = 60

_ENCODER = json.JSONEncoder(ensure_ascii=False)
_UNKNOWN_FIELD_TYPES = {"extra_forbidden", "unexpected_keyword_argument"}


class InvalidArguments(ToolError):
    """The arguments of a call are not a JSON object, or do not match the parameters."""

    def __init__(self, message: str, code: Literal["invalid_json", "invalid_arguments"] = "invalid_arguments") -> None:
        super().__init__(message)
        self.code = code


def explain_validation_error(
    error: pydantic.ValidationError, arguments: dict[str, Any], parameters: dict[str, Any]
) -> str:
    """Return at most eight sentences for a failed validation; of very many problems only the number."""
    if error.error_count() > MAX_READ_ERRORS:
        known = ", ".join(parameters["properties"]) or "none"
        return f"The arguments have {error.error_count()} problems (the parameters are: {known})."
    by_field: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False, include_context=False):
        by_field.setdefault(_field_path(problem["loc"], arguments, problem["type"]), []).append(problem)
    first = islice(by_field.items(), MAX_EXPLAINED_FIELDS)
    sentences = [_sentence(path, problems, parameters) for path, problems in first]
    more = len(by_field) - MAX_EXPLAINED_FIELDS
    if more > 0:
        sentences.append(f"{more} more fields are invalid.")
    return " ".join(sentences)


def _field_path(location: Iterable[int | str], arguments: Any, kind: str) -> str:
    """Return the path of a problem within the arguments; pydantic's location also has names of types."""
    steps = list(location)
    path, value = "", arguments
    for number, step in enumerate(steps):
        if isinstance(value, dict) and step in value:
            path, value = f"{path}.{step}", value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            path, value = f"{path}[{step}]", value[step]
        elif kind == "missing" and number == len(steps) - 1:
            path = f"{path}.{step}"
    return path.removeprefix(".")


def _sentence(path: str, problems: list[Any], parameters: dict[str, Any]) -> str:
    kind = problems[0]["type"]
    name = f'"{_quote_text(path)}"' if path else "The object"
    if kind == "missing":
        return f"{name} is missing."
    if kind in _UNKNOWN_FIELD_TYPES and "." not in path:
        known = ", ".join(parameters["properties"]) or "none"
        return f"{name} is not a parameter (the parameters are: {known})."
    if kind in _UNKNOWN_FIELD_TYPES:
        return f"{name} is not a known field."
    requirements = " or ".join(dict.fromkeys(_requirement(problem["msg"]) for problem in problems))
    return f"{name} {requirements} (got {_quote_value(problems[0]['input'])})."


def _requirement(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    if message.startswith("Input should "):
        return "must " + message.removeprefix("Input should ")
    return f"is not valid: {message}"


def _quote_value(value: object) -> str:
    if isinstance(value, str):
        value = value[: MAX_QUOTED_CHARS + 1]
    text = ""
    try:
        for chunk in _ENCODER.iterencode(value):
            text += chunk
            if len(text) > MAX_QUOTED_CHARS:
                break
    except (TypeError, ValueError):
        return f"a value of type {type(value).__name__}"
    return _quote_text(text)


def _quote_text(text: str) -> str:
    """Return the beginning of a text on one line, without control characters."""
    return escape_controls(text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}…")


def check_length(text: str) -> None:
    """Raise InvalidArguments for a text that is too long to parse."""
    if len(text) > MAX_ARGUMENT_CHARS:
        raise InvalidArguments(f"The arguments are longer than {MAX_ARGUMENT_CHARS} characters.")


def check_arguments(arguments: dict[str, Any] | list[Any]) -> None:
    """Raise InvalidArguments for too many arguments, too many values, or too deep nesting.

    Reads at most as many values as the limit allows.
    """
    if len(arguments) > MAX_ARGUMENTS and isinstance(arguments, dict):
        raise InvalidArguments(
            f"There are {len(arguments)} arguments, the limit is {MAX_ARGUMENTS}. Send only the tool's parameters."
        )
    n_values, depth, level = 0, 0, [arguments]
    while level:
        depth += 1
        n_values += sum(map(len, level))
        if n_values > MAX_VALUES:
            raise InvalidArguments(f"The arguments have more than {MAX_VALUES} values, which is the limit. Send fewer.")
        if depth > MAX_DEPTH:
            raise InvalidArguments(
                f"The arguments are nested more than {MAX_DEPTH} levels deep. Send them with fewer levels."
            )
        children = (value for parent in level for value in (parent.values() if isinstance(parent, dict) else parent))
        level = [value for value in children if isinstance(value, dict | list)]
