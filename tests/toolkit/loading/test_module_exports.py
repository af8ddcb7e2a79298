"""What a module exports as tools: classes, objects, dicts, names."""

import textwrap
from types import ModuleType
from typing import Any

import pytest

from relay.toolkit.context import ToolContext
from relay.toolkit.loading.module_exports import ExportCollector
from relay.toolkit.registry import Tool
from relay.toolkit.running.navai_payload import bind_payload

CONTEXT = ToolContext(session_id="s1", identity="ann")


def read(text: str) -> ExportCollector:
    module = ModuleType("mine")
    exec(textwrap.dedent(text), module.__dict__)
    exports = ExportCollector()
    exports.add_module(module, "tools/mine.py")
    return exports


def run(tool: Tool, arguments: str | None = None, payload: Any = None) -> Any:
    signature = tool.signature
    bound = bind_payload(signature, payload, CONTEXT) if arguments is None else signature.bind(arguments, CONTEXT)
    return tool.function(*bound.args, **bound.kwargs)


SHOP = """
from relay import tool, ToolContext

class Base:
    def close(self) -> str:
        return "closed"

@tool(timeout_s=3, expose={"model"})
class Shop(Base):
    def __init__(self, city: str, size: int = 1, *, context: ToolContext):
        self.city, self.size, self.who = city, size, context.identity

    def hours(self, day: str) -> str:
        '''When a shop is open.'''
        return f"{day} in {self.city} ({self.size}) for {self.who}"

    @tool(name="find_shop")
    async def find(self): ...

    @staticmethod
    def helper(): ...

    @property
    def open(self): ...

    def _private(self): ...
"""


def test_a_class_is_one_tool_for_each_public_method() -> None:
    tools = read(SHOP).tools
    assert list(tools) == ["base_close", "shop_hours", "find_shop", "shop_close"]
    hours = tools["shop_hours"]
    assert (hours.description, hours.source) == ("When a shop is open.", "tools/mine.py#Shop.hours")
    assert (hours.timeout_s, hours.expose) == (3, {"model"})
    assert hours.parameters["required"] == ["day", "constructorArgs"]
    assert hours.parameters["properties"]["constructorArgs"]["required"] == ["city"]
    assert tools["base_close"].parameters == {"type": "object", "properties": {}, "additionalProperties": False}
    assert not tools["find_shop"].is_async  # its constructor may block


def test_a_call_makes_an_instance_by_name_or_by_place() -> None:
    hours = read(SHOP).tools["shop_hours"]
    said = "Monday in Lima (2) for ann"
    assert run(hours, '{"day": "Monday", "constructorArgs": {"city": "Lima", "size": 2}}') == said
    assert run(hours, payload={"constructorArgs": ["Lima", 2], "methodArgs": ["Monday"]}) == said
    assert run(hours, payload={"constructorArgs": ["Lima", 2], "day": "Monday"}) == said
    with pytest.raises(Exception, match=r'constructorArgs: "city" is missing\.'):
        run(hours, '{"day": "Monday"}')


def test_dicts_namespaces_and_instances() -> None:
    exports = read(
        """
        from types import SimpleNamespace
        import logging

        class Lamp:
            def __init__(self): self.on = False
            def toggle(self) -> bool:
                self.on = not self.on
                return self.on

        log = logging.getLogger("x")
        lamp = Lamp()
        light = {"on": lambda: 1, "dimTo": lambda level: level}
        fan = SimpleNamespace(start=lambda: 2)
        LIMITS = {"a": 1}
        _hidden = {"x": lambda: 1}
        """
    )
    assert list(exports.tools) == ["lamp_toggle", "fan_start", "lamp_toggle_2", "light_on", "light_dim_to"]
    toggle = exports.tools["lamp_toggle_2"]
    assert (run(toggle, "{}"), run(toggle, "{}")) == (True, False)  # one instance, the module's
    assert exports.tools["light_dim_to"].description == "Call exported object member light.dimTo()."
    assert exports.warnings == ['Renamed duplicated function "lamp_toggle" to "lamp_toggle_2".']


def test_types_of_parameters_are_no_tools() -> None:
    exports = read(
        """
        import dataclasses, enum, typing, pydantic

        class Colour(enum.Enum):
            RED = 1

        class Size(pydantic.BaseModel):
            n: int

        class Box(typing.TypedDict):
            n: int

        @dataclasses.dataclass
        class Point:
            x: int
            def norm(self) -> int: return abs(self.x)

        class Broken(Exception): ...

        def paint(colour: Colour, size: Size, box: Box, point: Point) -> None: ...
        """
    )
    assert list(exports.tools) == ["paint"]
    assert "Ignored tools/mine.py#Point: it describes data" in exports.warnings[-1]


def test_what_a_module_imports_is_not_its_own() -> None:
    exports = read("from json import dumps\nfrom pathlib import Path\nimport os")
    assert exports.warnings == ["Ignored tools/mine.py: module has no exports."]
    assert list(read('from json import dumps\n__all__ = ["dumps"]').tools) == ["dumps"]
