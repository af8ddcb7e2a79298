"""Rolls dice."""

import random
from typing import Annotated

from pydantic import Field

from relay import tool


@tool(
    examples=[
        "roll a die",
        "roll the dice",
        "roll {count} dice",
        "roll {count} dice with {sides} sides",
        "roll a die with {sides} sides",
    ],
    timeout_s=2,
    expose=["model", "http", "client"],
)
def roll_dice(
    count: Annotated[int, Field(ge=1, le=20, description="How many dice.")] = 1,
    sides: Annotated[int, Field(ge=2, le=100, description="How many sides each die has.")] = 6,
) -> dict[str, object]:
    """Roll one or more dice and add them up."""
    return _roll(count, sides, random.SystemRandom())


def _roll(count: int, sides: int, source: random.Random) -> dict[str, object]:
    rolls = [source.randint(1, sides) for _ in range(count)]
    return {
        "rolls": rolls,
        "total": sum(rolls),
        "sides": sides,
        "summary": _summary(rolls),
    }


def _summary(rolls: list[int]) -> str:
    if len(rolls) == 1:
        return f"I rolled {_article(rolls[0])} {rolls[0]}."
    if len(rolls) > 6:  # too many numbers to read out
        return f"I rolled {len(rolls)} dice, that makes {sum(rolls)}."
    first = ", ".join(str(roll) for roll in rolls[:-1])
    return f"I rolled {first} and {rolls[-1]}, that makes {sum(rolls)}."


def _article(number: int) -> str:
    """Return the spoken article: an eight, an eleven, an eighteen, an eighty-one."""
    return "an" if number in (8, 11, 18) or 80 <= number <= 89 else "a"
