"""What the grammar is made of: clauses of words and slots, and the requests that they stand for."""

from dataclasses import dataclass, field
from typing import Any

from relay.local_engine.slots import Slot

PREPOSITIONS = ("in", "for", "of", "to", "with", "at", "on", "from", "by")


@dataclass(frozen=True, slots=True)
class OneOf:
    """A place in a clause for at most one of some words."""

    words: tuple[str, ...]


Element = str | Slot | OneOf


@dataclass(frozen=True, slots=True)
class Clause:
    """One way to ask for something: a tool by its name, or (`tool` false) a topic of small talk.

    `aloud` is false for what is only understood when typed: every sentence more makes recognition worse. `follows` is
    for what repeats an earlier request with another value.
    """

    name: str
    tool: bool
    elements: tuple[Element, ...]
    aloud: bool = True
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: a tool with the arguments that were said, or a topic of small talk.

    `follows`: the other arguments are those of the call before.
    """

    name: str
    tool: bool
    arguments: dict[str, Any] = field(default_factory=dict)
    follows: bool = False
