"""A tool call that carries too much is refused, and its refusal costs next to nothing."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from relay.toolkit.context import ToolContext
from relay.toolkit.running.navai_payload import bind_payload
from relay.toolkit.schema.signature import build_signature
from relay.toolkit.schema.validation_errors import (
    MAX_ARGUMENT_CHARS,
    MAX_ARGUMENTS,
    MAX_DEPTH,
    MAX_VALUES,
    InvalidArguments,
)
from tests.support.doubling import cpu_ms

CONTEXT = ToolContext(session_id="s1")


def tool(count: int = 1, items: list[Any] = [], **others: Any) -> None: ...  # noqa: B006 - never changed


def strict(count: int = 1, items: list[int | float] = []) -> None: ...  # noqa: B006 - never changed


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return {"items": value}


def complaint(function: Any, arguments: Any, way: str) -> str:
    signature = build_signature(function, "f")
    with pytest.raises(InvalidArguments) as caught:
        bind_payload(signature, arguments, CONTEXT) if way == "payload" else signature.bind(
            json.dumps(arguments), CONTEXT
        )
    assert caught.value.code == "invalid_arguments"
    return str(caught.value)


@pytest.mark.parametrize("way", ["model", "payload"])
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {f"k{n}": n for n in range(MAX_ARGUMENTS + 1)},
            "There are 257 arguments, at most 256 are allowed. Send the tool's parameters only.",
        ),
        (
            {"items": [1] * MAX_VALUES},
            "The arguments hold more than 2048 values, which is the most that is allowed. Send fewer.",
        ),
        (
            {"items": [[1] * 100] * 21},
            "The arguments hold more than 2048 values, which is the most that is allowed. Send fewer.",
        ),
        (nested(MAX_DEPTH + 1), "The arguments are nested more than 64 levels deep. Send them with fewer levels."),
    ],
    ids=["arguments", "values", "values in lists", "levels"],
)
def test_the_refusal_names_the_bound(way: str, arguments: Any, told: str) -> None:
    assert complaint(tool, arguments, way) == told


@pytest.mark.parametrize(
    "arguments", [{f"k{n}": n for n in range(MAX_ARGUMENTS)}, {"items": [1] * (MAX_VALUES - 1)}, nested(MAX_DEPTH)]
)
def test_up_to_the_bound_it_is_taken(arguments: dict[str, Any]) -> None:
    assert build_signature(tool, "f").bind(json.dumps(arguments), CONTEXT).arguments == arguments
    assert bind_payload(build_signature(tool, "f"), arguments, CONTEXT).arguments == arguments


@pytest.mark.parametrize(
    "arguments",
    [
        {f"k{n}": n for n in range(16_000)},
        {"items": ["x"] * 40_000},
        {"items": [{"x": 1}] * 9_000},
        {"items": ["x"] * (MAX_VALUES - 1)},
        "{" + '"k":1,' * 40_000 + '"k":1}',
        json.dumps({"count": "x" * 200_000}),
    ],
    ids=["arguments", "values", "objects", "problems", "one name again and again", "a long text"],
)
def test_a_refusal_costs_little(arguments: Any) -> None:
    """No more than to read the longest text twice. Before there were bounds these took 15 to 120 ms each."""
    signature = build_signature(strict, "f")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    longest = json.dumps({f"k{n}": n for n in range(MAX_ARGUMENT_CHARS // 16)})
    assert max(len(text), len(longest)) <= MAX_ARGUMENT_CHARS

    def refuse(_: int) -> None:
        with pytest.raises(InvalidArguments):
            signature.bind(text, CONTEXT)

    def read(_: int) -> None:
        json.loads(longest)

    assert least_ms(refuse) < 2 * least_ms(read)


def least_ms(work: Callable[[int], None]) -> float:
    return min(cpu_ms(work, 0) for _ in range(5))
