"""What a model is told when its arguments do not fit: a sentence per bad field, to correct itself by.

It also holds the bounds of one call, whatever the way in: beyond them a call is refused before it costs anything.
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
"""Members of the object itself; no tool has so many parameters."""
MAX_VALUES = 2_048
"""Texts, numbers, lists and objects in all: checking more of them would hold up other sessions."""
MAX_DEPTH = 64
MAX_EXPLAINED_FIELDS = 8
MAX_READ_ERRORS = 1_000
"""Each of them costs some microseconds, even if only the first eight are told."""
MAX_QUOTED_CHARS = 60

_ENCODER = json.JSONEncoder(ensure_ascii=False)
_UNKNOWN_FIELD_TYPES = {"extra_forbidden", "unexpected_keyword_argument"}


class InvalidArguments(ToolError):
    """The arguments of a call are no JSON object or do not fit the parameters."""

    def __init__(self, message: str, code: Literal["invalid_json", "invalid_arguments"] = "invalid_arguments") -> None:
        super().__init__(message)
        self.code = code


def explain_validation_error(
    error: pydantic.ValidationError, arguments: dict[str, Any], parameters: dict[str, Any]
) -> str:
    """The sentences for one failed validation, at most eight of them; very many problems are counted only."""
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
        sentences.append(f"There are {more} more problems of this kind.")
    return " ".join(sentences)


def _field_path(location: Iterable[int | str], arguments: Any, kind: str) -> str:
    """Where the problem is, in the sender's terms: pydantic's location also holds names of types."""
    steps = list(location)
    path, here = "", arguments
    for number, step in enumerate(steps):
        if isinstance(here, dict) and step in here:
            path, here = f"{path}.{step}", here[step]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            path, here = f"{path}[{step}]", here[step]
        elif kind == "missing" and number == len(steps) - 1:
            path = f"{path}.{step}"
    return path.removeprefix(".")


def _sentence(path: str, problems: list[Any], parameters: dict[str, Any]) -> str:
    kind = problems[0]["type"]
    name = f'"{_quote_text(path)}"' if path else "The whole"
    if kind == "missing":
        return f"{name} is missing."
    if kind in _UNKNOWN_FIELD_TYPES and "." not in path:
        known = ", ".join(parameters["properties"]) or "none"
        return f"{name} is not a parameter (the parameters are: {known})."
    if kind in _UNKNOWN_FIELD_TYPES:
        return f"{name} is not a known field."
    complaints = " or ".join(dict.fromkeys(_requirement(one["msg"]) for one in problems))
    return f"{name} {complaints} (got {_quote_value(problems[0]['input'])})."


def _requirement(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    if message.startswith("Input should "):
        return "must " + message.removeprefix("Input should ")
    return f"is refused: {message}"


def _quote_value(value: object) -> str:
    if isinstance(value, str):
        value = value[: MAX_QUOTED_CHARS + 1]
    shown = ""
    try:
        for piece in _ENCODER.iterencode(value):
            shown += piece
            if len(shown) > MAX_QUOTED_CHARS:
                break
    except (TypeError, ValueError):
        return f"a value of type {type(value).__name__}"
    return _quote_text(shown)


def _quote_text(text: str) -> str:
    """The beginning of a foreign text, on one line."""
    return escape_controls(text if len(text) <= MAX_QUOTED_CHARS else f"{text[:MAX_QUOTED_CHARS]}…")


def check_length(text: str) -> None:
    """Raises InvalidArguments for a text that is too long to be read."""
    if len(text) > MAX_ARGUMENT_CHARS:
        raise InvalidArguments(f"The arguments are longer than {MAX_ARGUMENT_CHARS} characters.")


def check_arguments(arguments: dict[str, Any] | list[Any]) -> None:
    """Raises InvalidArguments for arguments that are too many, hold too many values, or are nested too deeply.

    Looks at no more values than are allowed.
    """
    if len(arguments) > MAX_ARGUMENTS and isinstance(arguments, dict):
        raise InvalidArguments(
            f"There are {len(arguments)} arguments, at most {MAX_ARGUMENTS} are allowed. "
            "Send the tool's parameters only."
        )
    n_values, depth, level = 0, 0, [arguments]
    while level:
        depth += 1
        n_values += sum(map(len, level))
        if n_values > MAX_VALUES:
            raise InvalidArguments(
                f"The arguments hold more than {MAX_VALUES} values, which is the most that is allowed. Send fewer."
            )
        if depth > MAX_DEPTH:
            raise InvalidArguments(
                f"The arguments are nested more than {MAX_DEPTH} levels deep. Send them with fewer levels."
            )
        members = (one.values() if isinstance(one, dict) else one for one in level)
        level = [value for of_one in members for value in of_one if isinstance(value, dict | list)]
