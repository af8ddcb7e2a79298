"""What a docstring says to a model: the tool's first paragraph, and a line for each parameter that it describes.

Google, NumPy and reST sections are read by `docstring_parser`; a docstring that follows none of them is all text.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import docstring_parser


@dataclass(frozen=True, slots=True)
class ParsedDocstring:
    """The first paragraph on one line (empty where there is none), and the descriptions of parameters by name."""

    summary: str
    parameters: Mapping[str, str]


def read_docstring(function: object) -> ParsedDocstring:
    """Reads the docstring of a function or class; one that only its base has does not count."""
    text = inspect.getdoc(function) if getattr(function, "__doc__", None) else None
    if not text:
        return ParsedDocstring("", {})
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return ParsedDocstring(_first_paragraph(text), {})
    parameters = {
        one.arg_name.lstrip("*"): description
        for one in parsed.params
        if (description := " ".join((one.description or "").split()))
    }
    # A summary of several lines is cut in two by the parser: the paragraph is found again in what it left.
    return ParsedDocstring(_first_paragraph(parsed.description or ""), parameters)


def _first_paragraph(text: str) -> str:
    return " ".join(text.strip().split("\n\n")[0].split())
