"""The tools of one relay: loading, running, and the tools of each session.

    folders ──► ToolLibrary ──► ToolRegistry ──► `tool_specs`: offered to the model
    MCP servers ──► McpServers ──►  │
                                    └──► ToolRunner ◄── SessionTools ◄── RunTool, CancelTool

`ToolBox` loads and reloads the tools; a failed reload keeps the previous ones. A session gets `SessionTools`: the
runner with the session's identity, policy and language. A tool cannot harm its session: every failure, timeout and
cancellation is a `ToolCallFinished` like any other, with an output that the model can read.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from relay.config.session_settings import DEFAULT_TOOLS
from relay.config.settings import Settings
from relay.errors import ToolError
from relay.session.common.bounded_set import BoundedSet
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.model import SessionConfig, ToolSpec
from relay.session.common.policy import Principal
from relay.session.device.commands import RunTool
from relay.session.device.events import EndSessionRequested, ToolCallFinished, ToolCallProgress
from relay.session.tools.pending_calls import CANCELLED_CALL
from relay.toolkit.context import ToolContext
from relay.toolkit.loading.loader import ToolLoader
from relay.toolkit.loading.search_paths import ToolSources
from relay.toolkit.mcp.client import McpServers
from relay.toolkit.mcp.config import McpServerConfig, read_mcp_config
from relay.toolkit.registry import Tool, ToolRegistry
from relay.toolkit.running.runner import ToolCall, ToolRunner

MAX_CANCELLED_EARLY = 32
"""Calls that were cancelled before they started; beyond it the oldest one runs and returns normally."""
STOP_TIMEOUT_S = 2.0
_log = logging.getLogger("relay")


def tool_spec(tool: Tool) -> ToolSpec:
    """Return the session's description of a tool of the registry."""
    return ToolSpec(
        tool.name,
        tool.description,
        tool.parameters,
        tool.examples,
        visible_to_client="client" in tool.expose,
        protected=tool.protected,
        cancel_on_interrupt=tool.cancel_on_interrupt,
    )


def tool_specs(registry: ToolRegistry) -> tuple[ToolSpec, ...]:
    """Return the tools that are exposed to the model."""
    return tuple(tool_spec(tool) for tool in registry if "model" in tool.expose)


class SessionTools:
    """Runs the tool calls of one session; a tool that its policy does not offer counts as unknown."""

    def __init__(
        self,
        runner: ToolRunner,
        session_id: str,
        identity: str,
        config: Callable[[], SessionConfig] | None = None,
        is_offered: Callable[[str], bool] | None = None,
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """`config` returns the active configuration: the tools get its language, which a client may change."""
        self._runner = runner
        self._secrets = secrets
        self._session_id = session_id
        self._identity = identity
        self._config = config
        self._is_offered = is_offered
        self._cancelled_early = BoundedSet(MAX_CANCELLED_EARLY)

    async def run(
        self, command: RunTool, report: Callable[[ToolCallProgress | EndSessionRequested], None]
    ) -> ToolCallFinished:
        """Run one call; every failure is a result as well."""
        if self._cancelled_early.pop(command.call_id, "") is None:
            return ToolCallFinished(command.call_id, "cancelled", CANCELLED_CALL, 0)
        started = time.monotonic()
        loop = asyncio.get_running_loop()

        def progress(text: str) -> None:
            report(
                ToolCallProgress(
                    command.call_id, self._secrets.redact(text), round((time.monotonic() - started) * 1000)
                )
            )

        def end_session(reason: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, so the session is over
                loop.call_soon_threadsafe(
                    report, EndSessionRequested(command.call_id, self._secrets.redact(str(reason)))
                )

        context = ToolContext(
            session_id=self._session_id,
            call_id=command.call_id,
            identity=self._identity,
            language=self._config().language if self._config is not None else None,
            on_progress=progress,
            on_end=end_session,
        )
        call = ToolCall(command.call_id, command.name, command.arguments)
        result = await self._runner.run(call, context, is_offered=self._is_offered)
        return ToolCallFinished(
            command.call_id, result.status, result.output, result.ms, result.arguments, result.client_output
        )

    def cancel(self, call_id: str) -> None:
        """Cancel one call: it returns "cancelled", also if its task has not started yet."""
        if not self._runner.cancel(self._session_id, call_id):
            self._cancelled_early.add(call_id)


class ToolBox:
    """The tools of one relay. `library` is None if the caller passed a registry instead of folders."""

    def __init__(
        self,
        settings: Settings,
        registry: ToolRegistry | None,
        servers: tuple[McpServerConfig, ...],
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """Loads nothing yet. Raises ToolError for an invalid folder of tools."""
        self.library: ToolLoader | None = None
        if registry is None:
            registry = ToolRegistry()
            self.library = ToolLoader(tool_sources(settings), registry)
        self.registry = registry
        self.mcp = McpServers(servers, registry, secrets.redact)
        self.runner = ToolRunner(registry, redact=secrets.redact)
        self._secrets = secrets

    async def start(self) -> None:
        """Load the tools and start the MCP servers."""
        await self.load()
        await self.mcp.start()

    async def load(self) -> None:
        """Load or reload the tools; running sessions keep theirs. A failure is logged."""
        if self.library is None:
            return
        try:
            await self.library.load()
        except ToolError as error:
            _log.error("tools not reloaded, the previous ones stay: %s", error)

    async def stop(self) -> None:
        """Stop the running tools and the MCP servers, in bounded time."""
        await self.runner.close(STOP_TIMEOUT_S)
        await self.mcp.stop()

    def for_session(
        self, session_id: str, principal: Principal, config: Callable[[], SessionConfig] | None = None
    ) -> SessionTools:
        """Return the tools of one session; `config` returns its active configuration."""
        offers = principal.policy.allows_tool
        return SessionTools(self.runner, session_id, principal.identity, config, offers, self._secrets)


def load_mcp_servers(settings: Settings) -> tuple[McpServerConfig, ...]:
    """Read the configuration of the MCP servers. Raises ConfigError."""
    path = settings.tools.mcp_servers
    return read_mcp_config(path, settings.environment.values) if path else ()


def tool_sources(settings: Settings) -> ToolSources:
    """Return the folders of tools; without a setting and a `tools` folder, the one that ships with the relay.

    Raises ToolError for an invalid folder.
    """
    tools = settings.tools
    folders, base_dir = tools.folders, tools.base_dir
    if folders == DEFAULT_TOOLS and not (base_dir or Path()).joinpath(folders).exists():
        package = Path(__file__).parent.parent
        shipped = (package / "shipped_tools", package.parent / "tools")
        folders = str(next(folder for folder in shipped if folder.exists()))
    sources = ToolSources(
        folders=folders, navai_folders=tools.navai_folders, agents=tools.navai_agents, base_dir=base_dir
    )
    sources.check()
    return sources
