"""How much one tool call may carry, whatever the way in: beyond it a call is refused before it costs anything."""

from typing import Any

from relay.toolkit.complaints import InvalidArguments

MAX_ARGUMENT_CHARS = 262_144
MAX_ARGUMENTS = 256
"""Members of the object itself; no tool has so many parameters."""
MAX_VALUES = 2_048
"""Texts, numbers, lists and objects in all: checking more of them would hold up other sessions."""
MAX_DEPTH = 64


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
