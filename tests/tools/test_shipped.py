"""The folder as a whole: what a model is offered, and what it hears back."""

import json
import re
from typing import Any

import pytest

from relay import ToolContext
from relay.toolkit.loading.library import LoadResult
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.running.runner import ToolCall, ToolOutcome, ToolRunner


async def call(shipped: LoadResult, name: str, **arguments: Any) -> ToolOutcome:
    runner = ToolRunner(ToolRegistry(shipped.tools))
    return await runner.run(ToolCall("c1", name, json.dumps(arguments)), ToolContext(session_id="s1"))


def test_the_folder_loads_without_a_warning(shipped: LoadResult) -> None:
    assert [one.name for one in shipped.tools] == ["current_time", "roll_dice", "convert_units"]
    assert shipped.warnings == ()


def test_each_tool_is_described_for_a_model_and_taught_by_examples(shipped: LoadResult) -> None:
    for one in shipped.tools:
        assert one.description.endswith(".")
        assert len(one.examples) >= 4
        assert all("description" in schema for schema in one.parameters["properties"].values())
        assert one.expose == {"model", "http", "client"}, "a first conversation shows what happens"


def test_every_value_that_a_text_placeholder_offers_is_one_the_tool_takes(
    shipped: LoadResult, clock: Any, units: Any
) -> None:
    offered = {
        name: schema.get("examples", [])
        for one in shipped.tools
        for name, schema in one.parameters["properties"].items()
    }
    assert len(offered["city"]) >= 40
    for city in offered["city"]:
        assert clock.current_time(city)["city"] == city
    for unit in offered["from_unit"]:
        assert re.fullmatch(r"1 .* is 1 .*\.", units.convert_units(1, unit, unit)["summary"])
    assert offered["from_unit"] == offered["to_unit"]


@pytest.mark.parametrize(
    ("name", "arguments", "summary"),
    [
        ("current_time", {"city": "tokyo"}, r"In Tokyo it is .+ on [A-Z][a-z]+day\."),
        ("roll_dice", {}, r"I rolled a [1-6]\."),
        ("roll_dice", {"count": "2"}, r"I rolled [1-6] and [1-6], that makes \d+\."),
        (
            "convert_units",
            {"value": 5, "from_unit": "miles", "to_unit": "kilometers"},
            r"5 miles are 8\.05 kilometers\.",
        ),
    ],
)
async def test_a_call_is_answered_by_a_sentence_to_speak(
    shipped: LoadResult, name: str, arguments: dict[str, Any], summary: str
) -> None:
    result = await call(shipped, name, **arguments)
    assert result.status == "done"
    assert re.fullmatch(summary, json.loads(result.output)["summary"])


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("roll_dice", {"count": 21}, '"count" must be less than or equal to 20 (got 21).'),
        ("roll_dice", {"sides": 1}, '"sides" must be greater than or equal to 2 (got 1).'),
        ("current_time", {"city": "Berlim"}, "I do not know the time in Berlim. Did you mean Berlin"),
        (
            "convert_units",
            {"value": 1e13, "from_unit": "m", "to_unit": "km"},
            '"value" must be less than or equal to 1000000000000',
        ),
    ],
)
async def test_what_it_cannot_do_it_says(
    shipped: LoadResult, name: str, arguments: dict[str, Any], message: str
) -> None:
    result = await call(shipped, name, **arguments)
    assert result.status == "failed"
    assert json.loads(result.output)["message"].startswith(message)
