"""`relay tools`: what the settings' tools are, one of them run by hand, the schema of one."""

import asyncio
import contextlib
import json as json_text
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relay.cli.terminal import say, say_json, say_output
from relay.errors import ToolError

if TYPE_CHECKING:
    from relay.app.toolbox import ToolBox
    from relay.toolkit.registry import Tool, ToolRegistry

app = typer.Typer(help="List the backend tools, run one, print its schema.", invoke_without_command=True)

Folders = Annotated[
    str | None, typer.Option("--tools", help="Folders, files or patterns of backend tools (RELAY_TOOLS; tools).")
]
Name = Annotated[str, typer.Argument(help="The tool's name, as `relay tools` lists it.", show_default=False)]


@app.callback()
def list_tools(
    context: typer.Context,
    tools: Folders = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the backend tools: name and parameters, source, who may call them; then what went wrong."""
    # What goes wrong is told below, or by the command itself: the log would say it a second time, with tracebacks.
    logging.getLogger("relay").setLevel(logging.CRITICAL)
    context.obj = tools
    if context.invoked_subcommand is not None:
        return
    registry = asyncio.run(_listed(tools))
    if json:
        from relay.app.toolbox import tool_spec

        items = [
            {**tool_spec(one).definition(), "source": one.source, "expose": sorted(one.expose)} for one in registry
        ]
        say_json({"tools": items, "warnings": registry.warnings}, indent=2)
        return
    for one in registry:
        say(f"{one.name}({_parameters(one)})")
        say(f"    {one.description}")
        say(f"    {one.source} · {', '.join(sorted(one.expose)) or 'nobody'}{_options(one)}")
    for warning in registry.warnings:
        say(f"warning: {warning}", err=True)
    if not len(registry):
        say("no tools")


@app.command()
def call(
    context: typer.Context,
    name: Name,
    arguments: Annotated[str, typer.Argument(help="Its arguments as a JSON object.")] = "{}",
) -> None:
    """Run one tool as the model would, and print what the model would be told. Exit code 1 if it has no result."""
    output, is_done = asyncio.run(_call(context.obj, name, arguments))
    say_output(output)
    raise typer.Exit(0 if is_done else 1)


@app.command()
def schema(context: typer.Context, name: Name) -> None:
    """Print one tool as it is described to the model."""
    from relay.app.toolbox import tool_spec

    tool = _find(asyncio.run(_listed(context.obj)), name)
    say_json(tool_spec(tool).definition(), indent=2)


@contextlib.asynccontextmanager
async def _loaded(folders: str | None) -> AsyncIterator["ToolBox"]:
    """The tools of the settings: those of the folders, and of the MCP servers as long as this lasts."""
    from relay.app.toolbox import ToolBox, load_mcp_servers
    from relay.config.environment import Environment
    from relay.config.settings import Settings

    settings = Settings.load(Environment.read({"RELAY_TOOLS": ("--tools", folders)}))
    tools = ToolBox(settings, None, load_mcp_servers(settings))
    assert tools.library is not None
    await tools.library.load()
    await tools.mcp.start()
    try:
        yield tools
    finally:
        await tools.stop()


async def _listed(folders: str | None) -> "ToolRegistry":
    async with _loaded(folders) as tools:
        return tools.registry


def _find(registry: "ToolRegistry", name: str) -> "Tool":
    tool = registry.get(name)
    if tool is None:
        raise ToolError(f"There is no tool {name!r:.80}. The tools are: {', '.join(registry.names()) or 'none'}.")
    return tool


async def _call(folders: str | None, name: str, arguments: str) -> tuple[str, bool]:
    from relay.toolkit.context import ToolContext
    from relay.toolkit.running.runner import ToolCall

    def tell(text: str) -> None:
        say(f"progress: {text}", err=True)

    async with _loaded(folders) as tools:
        tool = _find(tools.registry, name)
        context = ToolContext(session_id="command line", identity="command line", on_progress=tell)
        audience: Any = next((one for one in ("model", "http", "client") if one in tool.expose), "model")
        result = await tools.runner.run(ToolCall("call_1", tool.name, arguments), context, audience=audience)
        return result.output, result.code is None


def _parameters(tool: "Tool") -> str:
    required = tool.parameters.get("required", [])
    shown = []
    for name, schema in tool.parameters.get("properties", {}).items():
        kind = schema.get("type") or ("one of" if "enum" in schema else "any")
        ending = "" if name in required else f" = {json_text.dumps(schema.get('default'), ensure_ascii=False)}"
        shown.append(f"{name}: {kind}{ending}")
    return ", ".join(shown)


def _options(tool: "Tool") -> str:
    options = [f"{tool.timeout_s:g} s"]
    if tool.concurrency is not None:
        options.append(f"at most {tool.concurrency} at a time")
    if tool.protected:
        options.append("protected")
    if tool.cancel_on_interrupt:
        options.append("ends on interruption")
    return f" · {', '.join(options)}"
