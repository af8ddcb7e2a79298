"""Connects to MCP servers through the official SDK, lists and calls their tools, and reconnects after failures.

Each server has one task that owns its connection. A server that is down or hangs affects only its own tools.
They stay listed, and their calls fail with a message until the server is back.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from relay.child_environment import TLS_VARIABLES, child_environment
from relay.errors import ToolError
from relay.toolkit.context import ToolContext
from relay.toolkit.loading.names import MAX_NAME_CHARS
from relay.toolkit.mcp.config import McpServerConfig
from relay.toolkit.mcp.stderr_log import StderrFormatter, stderr_to_log
from relay.toolkit.registry import Tool, ToolOptions, ToolRegistry
from relay.toolkit.schema.signature import BoundArguments, parse_arguments

if TYPE_CHECKING:
    import httpx2
    from mcp import Client
    from mcp.types import CallToolResult
    from mcp.types import Tool as McpTool

INITIAL_RETRY_DELAY_S, MAX_RETRY_DELAY_S = 1.0, 60.0
CONNECT_TIMEOUT_S, STREAM_TIMEOUT_S = 10.0, 300.0
HEARTBEAT_S = 15.0
HEARTBEAT_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 5.0
START_WAIT_S = 5.0
MAX_TOOLS = 128
MAX_SCHEMA_CHARS = 65_536
MAX_DESCRIPTION_CHARS = 1024

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]")

log = logging.getLogger(__name__)


class ExternalSchema:
    """Arguments that the server describes and validates; here they only have to be a JSON object."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.parameters = {"type": "object", "properties": {}, **schema}

    def bind(self, text: str, context: ToolContext) -> BoundArguments:
        arguments = parse_arguments(text)
        return BoundArguments((arguments,), {}, arguments)


class McpServer:
    """One MCP server: its connection, its tools in the registry, and its reconnects."""

    def __init__(
        self,
        config: McpServerConfig,
        registry: ToolRegistry,
        *,
        retry_delay_s: float = INITIAL_RETRY_DELAY_S,
        redact: Callable[[str], str] = str,
    ) -> None:
        """`redact` removes the relay's secrets from the server's standard error."""
        self.config = config
        self._redact = redact
        self.tools_listed = asyncio.Event()
        """Set after the tools were listed for the first time."""
        self.connected = asyncio.Event()
        """Set while the server accepts calls."""
        self._registry = registry
        self._retry_delay_s = retry_delay_s
        self._client: Client | None = None
        self._n_running_calls = 0
        self._wakeup = asyncio.Event()
        self._stop = asyncio.Event()
        self._listed_tools: list[Any] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect in a new task, and reconnect after each failure."""
        self._task = asyncio.create_task(self._run(), name=f"mcp {self.config.name}")

    async def stop(self) -> None:
        """Disconnect, and end a command that was started; takes at most twice `STOP_TIMEOUT_S`."""
        self._stop.set()
        self._wakeup.set()
        if self._task is not None:
            # The task that opened the connection must close it. Only a task that hangs is cancelled.
            await asyncio.wait({self._task}, timeout=STOP_TIMEOUT_S)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=STOP_TIMEOUT_S)

    # -- the connection -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        delay_s = self._retry_delay_s
        while not self._stop.is_set():
            try:
                async with _connect(self.config, self._redact) as client:
                    await self._refresh_tools(client)
                    delay_s, self._client = self._retry_delay_s, client
                    self.tools_listed.set()
                    self.connected.set()
                    await self._watch(client)
            except Exception as error:  # a failure of the server or the SDK affects this server only
                reason = _error_text(error)
                log.warning("MCP server %s: not connected, retry in %g s: %s", self.config.name, delay_s, reason)
            finally:
                self._client = None
                self.connected.clear()
            if not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wait_for_wakeup(), delay_s)
                delay_s = min(delay_s * 2, MAX_RETRY_DELAY_S)

    async def _watch(self, client: "Client") -> None:
        """Refresh the tools on each wake-up and heartbeat until `stop`; raises when the server fails."""
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wait_for_wakeup(), HEARTBEAT_S)
            if self._stop.is_set():
                return
            try:
                await asyncio.wait_for(self._refresh_tools(client), HEARTBEAT_TIMEOUT_S)
            except TimeoutError:
                if not self._n_running_calls:  # a busy server may be slow
                    raise

    async def _wait_for_wakeup(self) -> None:
        await self._wakeup.wait()
        self._wakeup.clear()

    async def _refresh_tools(self, client: "Client") -> None:
        listed: list[McpTool] = []
        cursor = None
        while len(listed) < MAX_TOOLS:
            page = await client.list_tools(cursor=cursor, cache_mode="refresh")
            listed.extend(page.tools)
            cursor = page.next_cursor
            if not cursor:
                break
        if listed == self._listed_tools:
            return
        self._listed_tools = listed
        warnings: list[str] = []
        tools = [
            tool
            for mcp_tool in self._select_tools(listed, warnings)
            if (tool := self._build_tool(mcp_tool, warnings)) is not None
        ]
        self._registry.assign(f"mcp {self.config.name}", tools, warnings)

    # -- its tools ----------------------------------------------------------------------------------------------------

    def _select_tools(self, listed: list["McpTool"], warnings: list[str]) -> list["McpTool"]:
        if self.config.tools is None:
            if len(listed) > MAX_TOOLS:
                warnings.append(f"MCP server {self.config.name} has more than {MAX_TOOLS} tools. The rest is ignored.")
            return listed[:MAX_TOOLS]
        names = {mcp_tool.name for mcp_tool in listed}
        missing = [name for name in self.config.tools if name not in names]
        if missing:
            warnings.append(f"MCP server {self.config.name} has no tool {', '.join(missing)}.")
        return [mcp_tool for mcp_tool in listed if mcp_tool.name in self.config.tools]

    def _build_tool(self, mcp_tool: "McpTool", warnings: list[str]) -> Tool | None:
        config = self.config
        prefix = f"{config.name}_" if config.prefix is None else config.prefix
        name = _NOT_ALLOWED.sub("_", f"{prefix}{mcp_tool.name}")[:MAX_NAME_CHARS]
        if len(json.dumps(mcp_tool.input_schema)) > MAX_SCHEMA_CHARS:
            warnings.append(f"Ignored {mcp_tool.name} of MCP server {config.name}: its schema is too large.")
            return None
        return Tool.from_signature(
            ToolOptions(timeout_s=config.timeout_s),
            name,
            partial(self._call_tool, mcp_tool.name),
            ExternalSchema(mcp_tool.input_schema),
            source=f"mcp:{config.name}#{mcp_tool.name}",
            description=(mcp_tool.description or mcp_tool.title or name)[:MAX_DESCRIPTION_CHARS],
            is_async=True,
        )

    async def _call_tool(self, name: str, arguments: dict[str, Any]) -> object:
        client = self._client
        if client is None:
            raise ToolError(f"The server {self.config.name} is not connected. Try again in a moment.")
        self._n_running_calls += 1
        try:
            result = await client.call_tool(name, arguments, read_timeout_seconds=self.config.timeout_s)
        except Exception as error:
            self._wakeup.set()  # check the connection now
            raise ToolError(f"The server {self.config.name} failed: {_error_text(error)}") from error
        finally:
            self._n_running_calls -= 1
        return result_value(result)


class McpServers:
    """The MCP servers of a relay."""

    def __init__(
        self, configs: Iterable[McpServerConfig], registry: ToolRegistry, redact: Callable[[str], str] = str
    ) -> None:
        self._configs = tuple(configs)
        self._redact = redact
        self._registry = registry
        self.servers: list[McpServer] = []

    async def start(self, wait_s: float = START_WAIT_S) -> None:
        """Connect to all servers; returns when all tools are listed, at the latest after `wait_s`.

        Raises ToolError if the SDK is not installed.
        """
        if not self._configs:
            return
        try:
            import mcp  # noqa: F401
        except ImportError:
            raise ToolError("MCP servers need the package mcp. Install relay-voice[mcp].") from None
        self.servers = [McpServer(config, self._registry, redact=self._redact) for config in self._configs]
        for server in self.servers:
            server.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(server.tools_listed.wait() for server in self.servers)), wait_s)

    async def stop(self) -> None:
        """Disconnect from all servers."""
        await asyncio.gather(*(server.stop() for server in self.servers))


def result_value(result: "CallToolResult") -> object:
    """Return the structured content of a result, else its text. Raises ToolError for an error result."""
    texts = [block.text if block.type == "text" else f"[{block.type}]" for block in result.content]
    text = "\n".join(texts)
    if result.is_error:
        raise ToolError(text or "The tool failed without an error message.")
    structured = result.structured_content
    if structured is None:
        return text
    if isinstance(structured, dict) and structured.keys() == {"result"}:  # the SDK wraps what is not an object
        return structured["result"]
    return structured


@contextlib.asynccontextmanager
async def _connect(config: McpServerConfig, redact: Callable[[str], str]) -> AsyncIterator["Client"]:
    import httpx2
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client
    from mcp.client.streamable_http import streamable_http_client

    if config.command is not None:
        # The SDK adds variables of its own choice, all of which `child_environment` allows as well.
        environment = child_environment(os.environ, TLS_VARIABLES) | config.env
        server = StdioServerParameters(command=config.command, args=list(config.args), env=environment, cwd=config.cwd)
        async with (
            stderr_to_log(StderrFormatter(config.name, config.env.values(), redact)) as stderr,
            Client(stdio_client(server, stderr), read_timeout_seconds=config.timeout_s) as client,
        ):
            yield client
        return
    timeout = httpx2.Timeout(CONNECT_TIMEOUT_S, read=STREAM_TIMEOUT_S)
    # The SDK follows redirects whatever the options of the client; only an exception here stops it.
    hooks = {"response": [_refuse_redirect]}
    async with httpx2.AsyncClient(headers=dict(config.headers), timeout=timeout, event_hooks=hooks) as http:
        transport = streamable_http_client(config.url or "", http_client=http)
        async with Client(transport, read_timeout_seconds=config.timeout_s) as client:
            yield client


async def _refuse_redirect(response: "httpx2.Response") -> None:
    if 300 <= response.status_code < 400:
        raise ToolError(f"the server redirects ({response.status_code}); configure its final URL")


def _error_text(error: BaseException) -> str:
    """Return the first error of the groups that the SDK raises."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300]
