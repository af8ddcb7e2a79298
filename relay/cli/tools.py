"""`relay tools`: list the server tools, run one, or print its schema."""

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

app = typer.Typer(help="List the server tools, run one, or print its schema.", invoke_without_command=True)

ToolFolders = Annotated[
    str | None,
    typer.Option("--tools", help="Folders, files or glob patterns of server tools (RELAY_TOOLS; tools)."),
]
ToolName = Annotated[str, typer.Argument(help="The tool's name, as `relay tools` lists it.", show_default=False)]


@app.callback()
def list_tools(
    context: typer.Context,
    tools: ToolFolders = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the server tools (without a command): parameters, source, permitted callers; then the warnings."""
    # Warnings are printed below, and errors by the command itself; the log would repeat them with tracebacks.
    logging.getLogger("relay").setLevel(logging.CRITICAL)
    context.obj = tools
    if context.invoked_subcommand is not None:
        return
    registry = asyncio.run(_load_registry(tools))
    if json:
        from relay.app.toolbox import tool_spec

        items = [
            {**tool_spec(tool).definition(), "source": tool.source, "expose": sorted(tool.expose)} for tool in registry
        ]
        say_json({"tools": items, "warnings": registry.warnings}, indent=2)
        return
    for tool in registry:
        say(f"{tool.name}({_format_parameters(tool)})")
        say(f"    {tool.description}")
        say(f"    {tool.source} · {', '.join(sorted(tool.expose)) or 'nobody'}{_format_options(tool)}")
    for warning in registry.warnings:
        say(f"warning: {warning}", err=True)
    if not len(registry):
        say("no tools")


@app.command()
def call(
    context: typer.Context,
    name: ToolName,
    arguments: Annotated[str, typer.Argument(help="Arguments of the tool, as a JSON object.")] = "{}",
) -> None:
    """Run one tool as the model would, and print its output for the model. Exit code 1 if it failed."""
    output, is_done = asyncio.run(_run_tool(context.obj, name, arguments))
    say_output(output)
    raise typer.Exit(0 if is_done else 1)


@app.command()
def schema(context: typer.Context, name: ToolName) -> None:
    """Print the definition of one tool, as the model gets it."""
    from relay.app.toolbox import tool_spec

    tool = _require_tool(asyncio.run(_load_registry(context.obj)), name)
    say_json(tool_spec(tool).definition(), indent=2)


@contextlib.asynccontextmanager
async def _loaded_tools(folders: str | None) -> AsyncIterator["ToolBox"]:
    """Load the tools of the folders, and connect to the MCP servers for the duration of the context."""
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


async def _load_registry(folders: str | None) -> "ToolRegistry":
    async with _loaded_tools(folders) as tools:
        return tools.registry


def _require_tool(registry: "ToolRegistry", name: str) -> "Tool":
    tool = registry.get(name)
    if tool is None:
        raise ToolError(f"There is no tool {name!r:.80}. The tools are: {', '.join(registry.names()) or 'none'}.")
    return tool


async def _run_tool(folders: str | None, name: str, arguments: str) -> tuple[str, bool]:
    from relay.toolkit.context import ToolContext
    from relay.toolkit.running.runner import ToolCall

    def print_progress(text: str) -> None:
        say(f"progress: {text}", err=True)

    async with _loaded_tools(folders) as tools:
        tool = _require_tool(tools.registry, name)
        context = ToolContext(session_id="command line", identity="command line", on_progress=print_progress)
        audience: Any = next((name for name in ("model", "http", "client") if name in tool.expose), "model")
        result = await tools.runner.run(ToolCall("call_1", tool.name, arguments), context, audience=audience)
        return result.output, result.code is None


def _format_parameters(tool: "Tool") -> str:
    required = tool.parameters.get("required", [])
    texts = []
    for name, schema in tool.parameters.get("properties", {}).items():
        kind = schema.get("type") or ("one of" if "enum" in schema else "any")
        default = "" if name in required else f" = {json_text.dumps(schema.get('default'), ensure_ascii=False)}"
        texts.append(f"{name}: {kind}{default}")
    return ", ".join(texts)


def _format_options(tool: "Tool") -> str:
    options = [f"{tool.timeout_s:g} s"]
    if tool.concurrency is not None:
        options.append(f"at most {tool.concurrency} at a time")
    if tool.protected:
        options.append("protected")
    if tool.cancel_on_interrupt:
        options.append("cancelled by a barge-in")
    return f" · {', '.join(options)}"
