"""Terminal output of all commands. Control characters are escaped, because text may come from others."""

import json
import os
import sys
from typing import Any

from relay.escaping import escape_controls, escape_json, escape_lines

_INDENT = 2


def say(line: str, *, err: bool = False) -> None:
    """Print one line; a line break in it is escaped. `err`: on standard error."""
    _write(escape_controls(line), err)


def say_lines(text: str, *, err: bool = False, indent: int = _INDENT) -> None:
    """Print several lines; those after the first are indented, so that they cannot look like other messages."""
    _write(escape_lines(text, indent), err)


def say_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON, with non-ASCII text readable."""
    _write(escape_json(json.dumps(value, indent=indent, ensure_ascii=False)), err=False)


def say_output(text: str) -> None:
    """Print the output of a tool: JSON stays equivalent, and other text keeps its lines."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        say_lines(text, indent=0)
    else:
        _write(escape_json(text), err=False)


def os_error_text(error: OSError) -> str:
    """Return the operating system's message, without the address that asyncio adds."""
    number = error.errno or 0  # resolver errors are negative
    return os.strerror(number).lower() if number > 0 else error.strerror or str(error)


def confirm(question: str) -> None:
    """Ask a yes-or-no question. Raises typer.Abort for every answer but y."""
    import typer

    typer.confirm(escape_controls(question), abort=True)


def _write(text: str, err: bool) -> None:
    print(text, file=sys.stderr if err else sys.stdout, flush=True)
