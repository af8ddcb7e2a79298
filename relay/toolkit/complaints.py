"""What a model is told when its arguments do not fit: a sentence per bad field, to correct itself by."""

import json
from collections.abc import Iterable
from typing import Any, Literal

import pydantic

from relay.errors import ToolError

MAX_PROBLEMS = 8
MAX_SHOWN_CHARS = 60

_UNKNOWN_FIELD = {"extra_forbidden", "unexpected_keyword_argument"}


class InvalidArguments(ToolError):
    """The arguments of a call are no JSON object or do not fit the parameters."""

    def __init__(self, message: str, code: Literal["invalid_json", "invalid_arguments"] = "invalid_arguments") -> None:
        super().__init__(message)
        self.code = code


def describe_problems(error: pydantic.ValidationError, arguments: dict[str, Any], parameters: dict[str, Any]) -> str:
    """The sentences for one failed validation, at most eight of them."""
    by_field: dict[str, list[Any]] = {}
    for problem in error.errors(include_url=False, include_context=False):
        by_field.setdefault(_path(problem["loc"], arguments, problem["type"]), []).append(problem)
    sentences = [_sentence(path, problems, parameters) for path, problems in by_field.items()]
    more = len(sentences) - MAX_PROBLEMS
    if more > 0:
        sentences[MAX_PROBLEMS:] = [f"There are {more} more problems of this kind."]
    return " ".join(sentences)


def _path(location: Iterable[int | str], arguments: Any, kind: str) -> str:
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
    name = f'"{_short(path)}"' if path else "The whole"
    if kind == "missing":
        return f"{name} is missing."
    if kind in _UNKNOWN_FIELD and "." not in path:
        known = ", ".join(parameters["properties"]) or "none"
        return f"{name} is not a parameter (the parameters are: {known})."
    if kind in _UNKNOWN_FIELD:
        return f"{name} is not a known field."
    complaints = " or ".join(dict.fromkeys(_complaint(one["msg"]) for one in problems))
    return f"{name} {complaints} (got {_show(problems[0]['input'])})."


def _complaint(message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    if message.startswith("Input should "):
        return "must " + message.removeprefix("Input should ")
    return f"is refused: {message}"


def _show(value: object) -> str:
    try:
        return _short(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError):
        return f"a value of type {type(value).__name__}"


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
