"""Dice: fair within their bounds, told in one sentence."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


class FixedRandom(random.Random):
    """Dice that fall as told."""

    def __init__(self, *rolls: int) -> None:
        super().__init__()
        self.rolls = list(rolls)

    def randint(self, a: int, b: int) -> int:
        roll = self.rolls.pop(0)
        assert a <= roll <= b
        return roll


def test_all_that_is_told(dice: Any) -> None:
    assert dice._roll(2, 6, FixedRandom(3, 5)) == {
        "rolls": [3, 5],
        "total": 8,
        "sides": 6,
        "summary": "I rolled 3 and 5, that makes 8.",
    }


@pytest.mark.parametrize(
    ("rolls", "summary"),
    [
        ((4,), "I rolled a 4."),
        ((8,), "I rolled an 8."),
        ((11,), "I rolled an 11."),
        ((80,), "I rolled an 80."),
        ((100,), "I rolled a 100."),
        ((3, 5, 2), "I rolled 3, 5 and 2, that makes 10."),
        ((1,) * 7, "I rolled 7 dice, that makes 7."),
    ],
)
def test_how_a_roll_is_spoken(dice: Any, rolls: tuple[int, ...], summary: str) -> None:
    assert dice._roll(len(rolls), 100, FixedRandom(*rolls))["summary"] == summary


@settings(deadline=None)
@given(count=st.integers(1, 20), sides=st.integers(2, 100), seed=st.integers())
def test_rolls_are_within_the_sides(dice: Any, count: int, sides: int, seed: int) -> None:
    told = dice._roll(count, sides, random.Random(seed))
    assert len(told["rolls"]) == count
    assert all(1 <= one <= sides for one in told["rolls"])
    assert told["total"] == sum(told["rolls"])


def test_the_tool_itself_rolls_every_side(dice: Any) -> None:
    seen = {one for _ in range(100) for one in dice.roll_dice(20, 2)["rolls"]}
    assert seen == {1, 2}
