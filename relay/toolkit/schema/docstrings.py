"""Reads docstrings for the model: the first paragraph, and the descriptions of the parameters.

`docstring_parser` reads Google, NumPy and reST sections; a docstring without them is plain text.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import docstring_parser


@dataclass(frozen=True, slots=True)
class ParsedDocstring:
    """The first paragraph as one line (may be empty), and the descriptions of parameters by name."""

    summary: str
    parameters: Mapping[str, str]


def read_docstring(function: object) -> ParsedDocstring:
    """Read the docstring of a function or class; an inherited docstring is ignored."""
    text = inspect.getdoc(function) if getattr(function, "__doc__", None) else None
    if not text:
        return ParsedDocstring("", {})
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return ParsedDocstring(_first_paragraph(text), {})
    parameters = {
        parameter.arg_name.lstrip("*"): description
        for parameter in parsed.params
        if (description := " ".join((parameter.description or "").split()))
    }
    # The parser splits a summary of several lines; `description` still has the whole paragraph.
    return ParsedDocstring(_first_paragraph(parsed.description or ""), parameters)


def _first_paragraph(text: str) -> str:
    return " ".join(text.strip().split("\n\n")[0].split())
