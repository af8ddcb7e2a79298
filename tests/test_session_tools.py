"""The tools as a session sees them: whom they work for, and what they say meanwhile."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from relay import ToolContext, tool
from relay.app.toolbox import SessionTools, tool_spec, tool_specs
from relay.session.common.model import SessionConfig
from relay.session.device.commands import RunTool
from relay.session.device.events import EndSessionRequested, ToolCallProgress
from relay.toolkit.registry import Tool, ToolRegistry
from relay.toolkit.running.runner import ToolRunner


def tools_of(function: Any, config: Callable[[], SessionConfig] = SessionConfig) -> SessionTools:
    return SessionTools(ToolRunner(ToolRegistry([Tool.from_function(function)])), "rs_1", "key-1", config)


def weather(city: str) -> str:
    """Tell the weather."""
    return f"Sunny in {city}."


def test_the_definition_has_no_examples() -> None:
    made = Tool.from_function(tool(examples=["weather in {city}"])(functools.partial(weather)), name="weather")
    plain = tool_spec(made).definition()
    assert plain["type"] == "function"
    assert (plain["name"], plain["parameters"]) == ("weather", made.parameters)
    assert "x-examples" not in plain["parameters"]


async def test_a_tool_knows_the_session_and_the_language_in_force() -> None:
    def who(context: ToolContext) -> list[object]:
        session = context.session
        return [session.id, session.identity, session.language, context.call_id]

    configs = [SessionConfig(language="en")]
    tools = tools_of(who, lambda: configs[-1])
    said: list[object] = []
    assert (await tools.run(RunTool("c1", "who", "{}"), said.append)).output == '["rs_1", "key-1", "en", "c1"]'
    configs.append(SessionConfig(language="fr"))
    assert (await tools.run(RunTool("c2", "who", "{}"), said.append)).output == '["rs_1", "key-1", "fr", "c2"]'
    assert said == []


async def test_progress_and_the_wish_to_end_come_back_on_the_loop_also_from_threads() -> None:
    def leave(context: ToolContext) -> str:
        context.progress("packing")
        context.end_session("gone")
        return "bye"

    said: list[object] = []
    returned = await tools_of(leave).run(RunTool("c1", "leave", "{}"), said.append)
    assert (returned.status, returned.output) == ("done", "bye")
    [progress, end] = said
    assert isinstance(progress, ToolCallProgress)
    assert progress.text == "packing"
    assert end == EndSessionRequested("c1", "gone")


async def test_one_call_can_be_cancelled() -> None:
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    tools = tools_of(wait)
    running = asyncio.create_task(tools.run(RunTool("c1", "wait", "{}"), lambda event: None))
    await begun.wait()
    tools.cancel("another")
    tools.cancel("c1")
    assert (await running).status == "cancelled"


async def test_a_call_can_be_cancelled_before_it_begins() -> None:
    ran: list[int] = []

    def count() -> None:
        ran.append(1)

    tools = tools_of(count)
    tools.cancel("c1")
    statuses = [(await tools.run(RunTool(call_id, "count", "{}"), lambda _: None)).status for call_id in ("c1", "c2")]
    assert (statuses, ran) == (["cancelled", "done"], [1])


def test_what_the_model_is_not_shown_is_no_tool_of_the_session() -> None:
    @tool(expose={"http"})
    def hidden() -> None: ...

    @tool(cancel_on_interrupt=True, protected=True)
    def shown() -> None: ...

    [spec] = tool_specs(ToolRegistry([Tool.from_function(hidden), Tool.from_function(shown)]))
    assert (spec.name, spec.cancel_on_interrupt, spec.protected) == ("shown", True, True)


async def test_a_tool_that_is_not_offered_is_unknown_and_its_name_is_not_told() -> None:
    ran: list[str] = []

    def opening_hours() -> str:
        return "nine to five"

    def staff_list() -> str:
        ran.append("staff_list")
        return "Ada"

    registry = ToolRegistry([Tool.from_function(opening_hours), Tool.from_function(staff_list)])
    tools = SessionTools(ToolRunner(registry), "rs_1", "key-1", None, lambda name: name.startswith("opening_"))
    hidden = await tools.run(RunTool("c1", "staff_list", "{}"), ignore)
    unknown = await tools.run(RunTool("c2", "stuff_list", "{}"), ignore)
    assert (hidden.output.replace("staff", "stuff"), ran) == (unknown.output, [])
    assert "opening_hours" in unknown.output
    assert (await tools.run(RunTool("c3", "opening_hours", "{}"), ignore)).output == "nine to five"


def ignore(_: object) -> None: ...
