"""`@tool` and the registry of what it marked."""

import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import relay
from relay import ToolContext, tool
from relay.errors import ToolError
from relay.toolkit.registry import Tool, ToolOptions, ToolRegistry, get_tool_options


def weather(city: str) -> str:
    """Tell the weather."""
    return f"Sunny in {city}."


def named(name: str, **options: Any) -> Tool:
    return Tool.from_function(tool(name=name, **options)(lambda: name), source=f"here.py#{name}")


def test_relay_exports_what_a_tool_file_needs() -> None:
    assert relay.tool is tool
    assert relay.ToolContext is ToolContext
    assert relay.ToolError is ToolError
    assert {"tool", "ToolContext", "ToolError"} <= set(dir(relay))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = relay.nothing


def test_a_bare_decorator_leaves_the_function_as_it_was() -> None:
    @tool
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == 8
    assert get_tool_options(double) == ToolOptions()


def test_options_reach_the_tool() -> None:
    @tool(
        name="tell-weather",
        description="Look out of the window.",
        examples=["how is the weather in {city}"],
        timeout_s=3,
        expose={"model", "client"},
        protected=True,
        cancel_on_interrupt=True,
    )
    async def ask(city: str) -> str:
        return weather(city)

    result = Tool.from_function(ask, source="w.py#ask")
    assert (result.name, result.description, result.source) == ("tell-weather", "Look out of the window.", "w.py#ask")
    assert (result.examples, result.timeout_s) == (("how is the weather in {city}",), 3)
    assert result.expose == {"model", "client"}
    assert result.protected
    assert result.cancel_on_interrupt
    assert result.is_async
    assert result.function is ask


def test_an_undecorated_function_is_a_tool_too() -> None:
    result = Tool.from_function(weather)
    assert (result.name, result.description, result.timeout_s) == ("weather", "Tell the weather.", 15)
    assert result.expose == {"model", "http"}
    assert not result.is_async


@pytest.mark.parametrize("name", ["", "a b", "ñandú", "x" * 65, "a\n", "a.b"])
def test_a_name_that_the_protocol_does_not_allow_is_refused(name: str) -> None:
    with pytest.raises(ToolError, match="is not a valid tool name"):
        tool(name=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_s": 0}, "timeout_s must be a number of seconds greater than 0, not 0"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"expose": {"model", "moon"}}, 'expose may contain "model", "http" and "client", not moon'),
        ({"expose": "model"}, "must be lists of strings, not a string"),
        ({"exampels": ["what time is it"]}, "@tool has no option 'exampels'. The options are: name, description, "),
        ({"examples": "what time is it"}, "must be lists of strings, not a string"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        tool(**options)


def test_an_example_with_an_unknown_placeholder_is_refused() -> None:
    with pytest.raises(ToolError, match=r'"weather in \{town\}" has an unknown placeholder \{town\}.*are: city'):
        Tool.from_function(tool(examples=["weather in {town}"])(functools.partial(weather)), name="weather")


def test_functions_that_yield_are_refused() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def words() -> AsyncIterator[str]:
        yield "a"

    for function in (numbers, words):
        with pytest.raises(ToolError, match=r"is a generator\. A tool must return one value"):
            Tool.from_function(function)


def test_a_lambda_needs_a_name_given_to_it() -> None:
    with pytest.raises(ToolError, match='"<lambda>" is not a valid tool name'):
        Tool.from_function(lambda: 1)
    assert Tool.from_function(lambda: 1, name="one").name == "one"


def test_an_object_whose_call_is_a_coroutine_function_is_async() -> None:
    class Caller:
        """Call someone."""

        async def __call__(self, who: str) -> str:
            return who

    result = Tool.from_function(Caller())
    assert (result.name, result.description, result.is_async) == ("Caller", "Call someone.", True)
    assert list(result.parameters["properties"]) == ["who"]


def test_a_registry_keeps_the_order_and_finds_by_name() -> None:
    registry = ToolRegistry([named("b"), named("a")])
    assert registry.names() == ("b", "a")
    assert [entry.name for entry in registry] == ["b", "a"]
    assert len(registry) == 2
    assert "a" in registry
    registered = registry.get("a")
    assert registered is not None
    assert registered.function() == "a"
    assert registry.get("c") is None


def test_a_taken_name_gets_a_number_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    registry = ToolRegistry([named("a"), named("a"), named("a")])
    assert registry.names() == ("a", "a_2", "a_3")
    assert registry.warnings == [
        'Renamed duplicated function "a" to "a_2".',
        'Renamed duplicated function "a" to "a_3".',
    ]
    assert 'to "a_3"' in caplog.text


def test_a_taken_name_of_full_length_stays_within_it() -> None:
    registry = ToolRegistry([named("x" * 64), named("x" * 64)])
    assert registry.names() == ("x" * 64, "x" * 62 + "_2")


def test_each_audience_sees_its_own() -> None:
    registry = ToolRegistry(
        [named("both"), named("spoken", expose={"model"}), named("shown", expose={"http", "client"})]
    )
    assert [entry.name for entry in registry.exposed_to("model")] == ["both", "spoken"]
    assert [entry.name for entry in registry.exposed_to("http")] == ["both", "shown"]
    assert [entry.name for entry in registry.exposed_to("client")] == ["shown"]
