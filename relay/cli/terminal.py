"""The one way to a terminal for commands: whatever is printed, foreign text in it stays text."""

import json
import sys
from typing import Any

from relay.escaping import escape_controls, escape_json, escape_lines

_INDENT = 2


def say(line: str, *, err: bool = False) -> None:
    """Print one line; a line end within it is shown as an escape. `err`: on standard error."""
    _write(escape_controls(line), err)


def say_lines(text: str, *, err: bool = False, indent: int = _INDENT) -> None:
    """Print a text of several lines; each after the first is indented, so that none looks like a line of its own."""
    _write(escape_lines(text, indent), err)


def say_json(value: Any, *, indent: int | None = None) -> None:
    """Print a value as JSON, with ordinary text readable."""
    _write(escape_json(json.dumps(value, indent=indent, ensure_ascii=False)), err=False)


def say_output(text: str) -> None:
    """Print what a tool returned: JSON stays the same JSON, another text keeps its lines."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        say_lines(text, indent=0)
    else:
        _write(escape_json(text), err=False)


def confirm(question: str) -> None:
    """Ask a question to be answered with y. Raises typer.Abort for every other answer."""
    import typer

    typer.confirm(escape_controls(question), abort=True)


def _write(text: str, err: bool) -> None:
    print(text, file=sys.stderr if err else sys.stdout, flush=True)
