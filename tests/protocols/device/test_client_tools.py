"""Tools that a device client offers: what is accepted, and the error for each mistake."""

from typing import Any

import pytest

from relay.protocols.device.decoder import MAX_SCHEMA_BYTES, MAX_TOOLS, MessageError, parse_tools
from relay.session.common.model import ToolSpec

DOOR = {
    "name": "open_door",
    "description": "Open the door.",
    "parameters": {"type": "object", "properties": {"wide": {"type": "boolean"}}},
    "timeoutMs": 3000,
}


def test_a_tool_with_everything() -> None:
    [tool] = parse_tools([DOOR], "tools")
    assert tool == ToolSpec("open_door", "Open the door.", DOOR["parameters"], timeout_ms=3000)  # type: ignore[arg-type]


def test_a_name_is_enough() -> None:
    [tool] = parse_tools([{"name": "beep"}], "tools")
    assert tool.parameters == {"type": "object", "properties": {}}
    assert (tool.description, tool.timeout_ms) == ("", 15_000)


@pytest.mark.parametrize(
    ("value", "field", "fix"),
    [
        ("open_door", "tools", "a list of at most 32"),
        ([{"name": f"t{n}"} for n in range(MAX_TOOLS + 1)], "tools", "a list of at most 32"),
        (["open_door"], "tools[0]", '{"name":"open_door"}'),
        ([{}], "tools[0].name", "1 to 64 letters"),
        ([DOOR, {"name": "open door"}], "tools[1].name", "1 to 64 letters"),
        ([{"name": "x" * 65}], "tools[0].name", "1 to 64 letters"),
        ([DOOR, DOOR], "tools", "the tool name open_door is used twice"),
        ([{"name": "a", "description": 7}], "tools[0].description", "at most 1024"),
        ([{"name": "a", "description": "x" * 1025}], "tools[0].description", "at most 1024"),
        ([{"name": "a", "timeoutMs": 99}], "tools[0].timeoutMs", "from 100 to 120000"),
        ([{"name": "a", "timeoutMs": 1e4}], "tools[0].timeoutMs", "from 100 to 120000"),
        ([{"name": "a", "timeoutMs": True}], "tools[0].timeoutMs", "from 100 to 120000"),
        ([{"name": "a", "parameters": []}], "tools[0].parameters", '"type":"object"'),
        ([{"name": "a", "parameters": {"type": "string"}}], "tools[0].parameters", '"type":"object"'),
        (
            [{"name": "a", "parameters": {"type": "object", "x": "y" * MAX_SCHEMA_BYTES}}],
            "tools[0].parameters",
            "at most 8192 bytes",
        ),
    ],
    ids=lambda value: f"{value!s:.40}",
)
def test_a_mistake_names_the_tool_and_the_fix(value: Any, field: str, fix: str) -> None:
    with pytest.raises(MessageError, match=r".") as caught:
        parse_tools(value, "tools")
    assert caught.value.event.field == field
    assert fix in caught.value.event.message
