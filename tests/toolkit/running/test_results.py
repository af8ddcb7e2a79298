"""What a tool returned or raised in, one bounded string out."""

import collections
import dataclasses
import enum
import itertools
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from relay.errors import ToolError
from relay.toolkit.running.results import ToolOutput, encode_result, exception_output, failure_output

MAX = 16_384


class Model(BaseModel):
    when: date


@dataclasses.dataclass
class Point:
    x: int
    tags: set[str]


class Color(enum.Enum):
    RED = "red"


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("plain text", "plain text"),
        ("", ""),
        ('{"already": "json"}', '{"already": "json"}'),
        (None, "null"),
        (5, "5"),
        ({"name": "Zoë", "n": [1, 2.5, True]}, '{"name": "Zoë", "n": [1, 2.5, true]}'),
        (Model(when=date(2026, 11, 21)), '{"when": "2026-11-21"}'),
        (Point(1, {"b", "a"}), '{"x": 1, "tags": ["a", "b"]}'),
        ({"c": Color.RED, "s": {3, 1}}, '{"c": "red", "s": [1, 3]}'),
        ([Decimal("1.10"), Path("a/b")], '["1.10", "a/b"]'),
        (datetime(2026, 11, 21, 9, tzinfo=UTC), '"2026-11-21T09:00:00Z"'),
        (Pair(1, 2), "[1, 2]"),
    ],
    ids=repr,
)
def test_results_are_json_encoded_once(value: Any, output: str) -> None:
    assert encode_result(value, MAX) == ToolOutput(output, "done")


def loop_of_lists() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def deep() -> list[Any]:
    inner: list[Any] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {"nan": float("nan")},
        {("a", "b"): 1},
        loop_of_lists(),
        itertools.count(),
        [itertools.count()],
        b"\xff",
        10**5000,
        lambda: 1,
        deep(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_json_cannot_hold_is_a_failure(value: Any) -> None:
    reply = encode_result(value, MAX)
    body = json.loads(reply.output)
    assert reply.status == "failed"
    assert (body["ok"], body["error"], body["retryable"]) == (False, "unserialisable", False)
    assert body["message"].startswith(f"The tool returned a {type(value).__name__} that is no JSON: ")


def test_a_large_result_is_cut_at_a_whole_character_with_a_note() -> None:
    reply = encode_result("ä" * 1_000_000, MAX)
    assert reply.status == "done"
    assert len(reply.output.encode()) in (MAX, MAX - 1)
    assert reply.output.endswith("ä… [cut: the result has 2000000 bytes, 16384 are allowed]")


def test_a_result_of_just_the_bound_is_not_cut() -> None:
    assert encode_result("x" * MAX, MAX).output == "x" * MAX
    assert encode_result("é" * (MAX // 2), MAX).output == "é" * (MAX // 2)


@settings(deadline=None)
@given(st.text(st.characters()) | st.integers().map(lambda n: "\ud800" * (n % 5_000)))
def test_every_output_can_be_sent_and_is_within_the_bound(text: str) -> None:
    for reply in (
        encode_result(text * 40, 1_024),
        encode_result({"text": text}, 1_024),
        failure_output("exception", text),
    ):
        assert len(reply.output.encode()) <= max(1_024, 6 * 1_000 + 100)


def test_failures_say_whether_to_try_again() -> None:
    assert json.loads(failure_output("timeout", "Too slow.").output) == {
        "ok": False,
        "error": "timeout",
        "message": "Too slow.",
        "retryable": True,
    }
    ends = {
        code: failure_output(code, "").status
        for code in ("timeout", "busy", "cancelled", "shutdown", "unknown_tool", "exception")
    }
    assert ends == {
        "timeout": "timeout",
        "busy": "failed",
        "cancelled": "cancelled",
        "shutdown": "cancelled",
        "unknown_tool": "failed",
        "exception": "failed",
    }
    assert json.loads(failure_output("unknown_tool", "").output)["retryable"] is False


def test_an_exception_is_its_type_and_message_and_the_traceback_goes_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    try:
        {"a": 1}["key"]
    except KeyError as error:
        reply = exception_output("look_up", error)
    assert json.loads(reply.output)["message"] == "KeyError: 'key'"
    assert "Traceback" not in reply.output
    assert "tool look_up failed" in caplog.text
    assert "Traceback" in caplog.text


def test_a_tool_error_is_a_refusal_in_the_tools_own_words(caplog: pytest.LogCaptureFixture) -> None:
    body = json.loads(exception_output("clock", ToolError("I do not know that city.")).output)
    assert (body["error"], body["message"]) == ("refused", "I do not know that city.")
    assert "Traceback" not in caplog.text


def test_a_message_that_is_long_or_cannot_be_read() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert len(json.loads(exception_output("f", ValueError("x" * 100_000)).output)["message"]) == 1_000
    assert json.loads(exception_output("f", Broken()).output)["message"] == "Broken: its message cannot be read"
    assert json.loads(exception_output("f", SystemExit()).output)["message"] == "SystemExit"
