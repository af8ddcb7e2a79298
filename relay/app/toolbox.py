"""The tools of one relay: where they come from, what runs them, and what sessions get of them."""

import logging
from collections.abc import Callable
from pathlib import Path

from relay.config import DEFAULT_TOOLS, Settings
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.core.policy import Principal
from relay.core.values import SessionConfig
from relay.errors import ToolError
from relay.session_tools import SessionTools
from relay.toolkit.library import ToolLibrary
from relay.toolkit.mcp import McpServers
from relay.toolkit.mcp_config import McpServerConfig, read_config
from relay.toolkit.registry import ToolRegistry
from relay.toolkit.runner import ToolRunner
from relay.toolkit.sources import ToolSources

STOP_TIMEOUT_S = 2.0

_log = logging.getLogger("relay")


class ToolBox:
    """The tools of one relay. `library` is None where the registry was given, and is not loaded from folders."""

    def __init__(
        self,
        settings: Settings,
        registry: ToolRegistry | None,
        servers: tuple[McpServerConfig, ...],
        secrets: KnownSecrets = NO_SECRETS,
    ) -> None:
        """Raises ToolError where a folder of tools is bad; nothing is loaded yet."""
        self.library: ToolLibrary | None = None
        if registry is None:
            registry = ToolRegistry()
            self.library = ToolLibrary(tool_sources(settings), registry)
        self.registry = registry
        self.mcp = McpServers(servers, registry, secrets.redact)
        self.runner = ToolRunner(registry, redact=secrets.redact)
        self._secrets = secrets

    async def start(self) -> None:
        """Load the tools and start the MCP servers."""
        await self.load()
        await self.mcp.start()

    async def load(self) -> None:
        """Load the tools, or load them again: sessions go on with theirs. A failure is logged."""
        if self.library is None:
            return
        try:
            await self.library.load()
        except ToolError as error:
            _log.error("%s The tools are as before.", error)

    async def stop(self) -> None:
        """End the tools that run and the MCP servers, in bounded time."""
        await self.runner.close(STOP_TIMEOUT_S)
        await self.mcp.stop()

    def for_session(
        self, session_id: str, principal: Principal, config: Callable[[], SessionConfig] | None = None
    ) -> SessionTools:
        """The tools, run in the name of one session; `config` gives its configuration."""
        offers = principal.policy.allows_tool
        return SessionTools(self.runner, session_id, principal.identity, config, offers, self._secrets)


def mcp_servers(settings: Settings) -> tuple[McpServerConfig, ...]:
    """The MCP servers of the settings. Raises ConfigError."""
    return read_config(settings.mcp_servers, settings.environment()) if settings.mcp_servers else ()


def tool_sources(settings: Settings) -> ToolSources:
    """Where the settings' tools are; the folder that comes with the relay, if nothing is named and there is none.

    Raises ToolError where a folder that was named is bad.
    """
    folders, base_dir = settings.tools, settings.tools_base_dir
    if folders == DEFAULT_TOOLS and not (base_dir or Path()).joinpath(folders).exists():
        package = Path(__file__).parent.parent
        folders = str(next(one for one in (package / "shipped_tools", package.parent / "tools") if one.exists()))
    sources = ToolSources(
        folders=folders, navai_folders=settings.navai_folders, agents=settings.navai_agents, base_dir=base_dir
    )
    sources.check()
    return sources
