"""Texts on which a regular expression may take too long, made from the expression itself.

They are what a pattern nearly matches, with an end that does not fit. Each of its characters comes over and over, and
so do its beginnings. So does every repeated part, behind what comes before it.
"""

import re
import re._parser as parser  # type: ignore[import-not-found]  # no public way to look into a pattern
from collections.abc import Callable, Iterator
from typing import Any

MISFIT = "\x00"
MAX_CHARS = 16
_CANDIDATES = "a1 \n.-_/\\\"':;,@=+<>()[]{}AZ\t\x00é中😀"
_LISTED = ("LITERAL", "RANGE")
_REPEATS = {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}

Make = Callable[[int], str]


def hostile_inputs(pattern: "re.Pattern[Any]") -> Iterator[tuple[str, Make]]:
    """Each with a name, as a function of its length."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    tree = parser.parse(source, pattern.flags & ~re.UNICODE)
    units: dict[tuple[str, str, str], None] = {}
    chars = list(dict.fromkeys(_chars(tree)))[:MAX_CHARS]
    misfits = ["", MISFIT, *dict.fromkeys(_excluded(tree))][:5]
    units |= dict.fromkeys(("", char, misfit) for char in chars for misfit in misfits)
    for choice in range(_choices(tree)):
        whole = _sample(tree, choice)
        for end in {1, len(whole) // 2, len(whole) - 1, len(whole)}:
            units["", whole[:end], ""] = units["", whole[:end], MISFIT] = None
            units["", whole[:end] + MISFIT, ""] = None
        for before, body, _ in _repeated(tree, choice, ""):
            for char in dict.fromkeys([body, *chars[:3]]):
                units |= dict.fromkeys((before, char, misfit) for misfit in misfits)
                units["", before + char, ""] = None
    for before, unit, after in units:
        if unit:
            yield (
                f"{before!r} + {unit!r} × n + {after!r}",
                lambda n, b=before, u=unit, a=after: b + u * (n // len(u)) + a,
            )
    for one in chars[:4]:
        for other in chars[:4]:
            if one != other:
                yield f"{one!r} × n + {other!r} × n", lambda n, x=one, y=other: x * (n // 2) + y * (n // 2) + MISFIT


def _choices(tree: Any) -> int:
    return max((len(argument[1]) for name, argument in _nodes(tree) if name == "BRANCH"), default=1)


def _nodes(tree: Any) -> Iterator[tuple[str, Any]]:
    for operation, argument in tree:
        name = str(operation)
        yield name, argument
        for part in _parts(name, argument):
            yield from _nodes(part)


def _parts(name: str, argument: Any) -> list[Any]:
    """The sequences within a node."""
    if name == "BRANCH":
        return list(argument[1])
    if name == "SUBPATTERN":
        return [argument[3]]
    if name in _REPEATS:
        return [argument[2]]
    if name in ("ASSERT", "ASSERT_NOT"):
        return [argument[1]]
    return [argument] if name == "ATOMIC_GROUP" else []


def _sample(tree: Any, choice: int) -> str:
    """A text that the sequence matches, as far as classes and branches say; repeated parts come once."""
    found = ""
    for operation, argument in tree:
        name = str(operation)
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            found += next(_of_class(name, argument))
        elif name == "BRANCH":
            found += _sample(argument[1][choice % len(argument[1])], choice)
        elif name in _REPEATS:
            found += _sample(argument[2], choice) * max(1, min(argument[0], 16))
        elif name not in ("ASSERT", "ASSERT_NOT"):
            found += "".join(_sample(part, choice) for part in _parts(name, argument))
    return found


def _repeated(tree: Any, choice: int, before: str) -> Iterator[tuple[str, str, Any]]:
    """Every part that may come very often: what stands before it, one of it, and its tree."""
    for node in tree:
        name, argument = str(node[0]), node[1]
        if name in _REPEATS and argument[1] > 64:
            yield before, _sample(argument[2], choice), argument[2]
        for part in _parts(name, argument):
            yield from _repeated(part, choice, before)
        before += _sample([node], choice)


def _chars(tree: Any) -> Iterator[str]:
    for name, argument in _nodes(tree):
        if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            yield from _of_class(name, argument)


def _excluded(tree: Any) -> Iterator[str]:
    """A character that does not belong to each of the classes that say what they do not hold."""
    for name, argument in _nodes(tree):
        if name == "IN" and str(argument[0][0]) == "NEGATE":
            yield from _of_class("IN", argument[1:])


def _of_class(name: str, argument: Any) -> Iterator[str]:
    """Some characters that the class holds."""
    if name == "LITERAL":
        yield chr(argument)
        return
    if name == "ANY":
        yield "a"
        return
    members = [(parser.NOT_LITERAL, argument)] if name == "NOT_LITERAL" else argument
    listed = [chr(one[1]) if "LITERAL" in str(one[0]) else chr(one[1][0]) for one in members if str(one[0]) in _LISTED]
    matches = _matcher(members)
    found = [char for char in [*listed, *_CANDIDATES] if matches(char)]
    yield from dict.fromkeys(found[:4] or [listed[0] if listed else "a"])


def _matcher(members: Any) -> Callable[[str], bool]:
    categories = {
        "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s",
        "CATEGORY_NOT_SPACE": r"\S", "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
    }  # fmt: skip

    def holds(char: str) -> bool:
        for operation, argument in members:
            name = str(operation)
            if name == "LITERAL" and ord(char) == argument:
                return True
            if name == "NOT_LITERAL" and ord(char) != argument:
                return True
            if name == "RANGE" and argument[0] <= ord(char) <= argument[1]:
                return True
            if name == "CATEGORY" and re.match(categories[str(argument)], char):
                return True
        return False

    negated = bool(members) and str(members[0][0]) == "NEGATE"
    return lambda char: holds(char) is not negated
