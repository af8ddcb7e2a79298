"""What the server adds to a Realtime client's session, and the client may neither read, replace nor remove.

Upwards, the server's instructions and tools are merged into every `session.update` and `response.create` that would
replace them; downwards, `session.created` and `session.updated` are shown without them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from relay.core.policy import RealtimePolicy
from relay.core.realtime_events import Obj
from relay.core.values import ToolSpec

_BETWEEN = "\n\n"


def tool_object(tool: ToolSpec, *, teach: bool = False) -> Obj:
    """A tool as the protocol describes it; `teach` adds its example sentences, for an engine that learns from them."""
    parameters = dict(tool.parameters)
    if teach and tool.examples:
        parameters["x-examples"] = list(tool.examples)
    return {"type": "function", "name": tool.name, "description": tool.description, "parameters": parameters}


def function_names(tools: Any) -> frozenset[str]:
    """The names of the function tools in a list of tools."""
    members = tools if isinstance(tools, list) else ()
    return frozenset(
        name
        for tool in members
        if isinstance(tool, Mapping) and tool.get("type", "function") == "function"
        if isinstance(name := tool.get("name"), str)
    )


class ServerParts:
    """The server's share of one session: its instructions, and those of its tools that the policy offers."""

    def __init__(self, policy: RealtimePolicy, tools: Iterable[ToolSpec]) -> None:
        self._policy = policy
        self.tools = {tool.name: tool for tool in tools if policy.allows_tool(tool.name)}
        self.teach = False
        self.client_names: frozenset[str] = frozenset()
        """The function tools that the client has set for the session."""

    @property
    def hides_tools(self) -> bool:
        """Whether the client must see no trace of the server's tools."""
        return bool(self.tools) and not self._policy.show_tools

    def runs(self, name: Any, shadows: frozenset[str] | None = None) -> bool:
        """Whether the relay runs calls of that name: a client's tool wins over a server's unless that is protected."""
        tool = self.tools.get(name) if isinstance(name, str) else None
        if tool is None:
            return False
        return tool.protected or tool.name not in (self.client_names if shadows is None else shadows)

    # -- upwards ------------------------------------------------------------------------------------------------------

    def instructions_with(self, given: Any) -> Any:
        """The server's instructions, and behind them the client's."""
        own = self._policy.instructions
        if not own:
            return given
        return f"{own}{_BETWEEN}{given}" if isinstance(given, str) and given.strip() else own

    def tools_with(self, given: Any) -> Any:
        """The client's tools and the server's, each name once."""
        if not self.tools:
            return given
        client = given if isinstance(given, list) else []
        names = function_names(client)
        kept = [tool for tool in client if not self._is_protected(tool)]
        return kept + [
            tool_object(tool, teach=self.teach)
            for tool in self.tools.values()
            if tool.protected or tool.name not in names
        ]

    def merge(self, settings: Obj, *, whole: bool = False) -> Obj:
        """A client's session or response settings with the server's share; `whole`: also where the client is silent."""
        if whole or "instructions" in settings:
            instructions = self.instructions_with(settings.get("instructions"))
            if instructions is not None:
                settings["instructions"] = instructions
        if self.tools and (whole or "tools" in settings):
            settings["tools"] = self.tools_with(settings.get("tools"))
        return settings

    def _is_protected(self, tool: Any) -> bool:
        name = tool.get("name") if isinstance(tool, Mapping) else None
        server = self.tools.get(name) if isinstance(name, str) else None
        return server is not None and server.protected

    # -- downwards ----------------------------------------------------------------------------------------------------

    def shown(self, session: Mapping[str, Any]) -> Mapping[str, Any]:
        """The session as its client may see it; the same object if nothing has to be taken out."""
        changes: Obj = {}
        own, instructions = self._policy.instructions, session.get("instructions")
        if own and instructions is not None:
            is_merged = isinstance(instructions, str) and instructions.startswith(own + _BETWEEN)
            changes["instructions"] = instructions[len(own + _BETWEEN) :] if is_merged else ""
        tools = session.get("tools")
        if self.hides_tools and isinstance(tools, list):
            kept = [tool for tool in tools if not self._is_hidden(tool)]
            if len(kept) != len(tools):
                changes["tools"] = kept
        return {**session, **changes} if changes else session

    def _is_hidden(self, tool: Any) -> bool:
        return isinstance(tool, Mapping) and tool.get("type", "function") == "function" and self.runs(tool.get("name"))
