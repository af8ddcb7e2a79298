"""The server's instructions and tools in a session, which a Realtime client can neither read, replace nor remove.

The overlay consists of the server's instructions and the tools that the policy offers. Towards the upstream, it is
merged into every `session.update` and `response.create` that would replace it. The server's instructions come before
the client's, its tools after them. Towards the client, it is stripped from sessions, responses and errors.

A client tool overrides a server tool of the same name, unless the server's is protected. In that case the client's tool
is rejected, because the model would never call it. All that the client learns is that the name is taken.
"""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.locked_texts import MIN_MATCH_CHARS, LockedTexts
from relay.session.common.model import ToolSpec
from relay.session.common.policy import INSTRUCTIONS_SEPARATOR, RealtimePolicy
from relay.session.common.redact import MASK
from relay.session.realtime.policy_rules import PolicyViolation


def function_names(tools: Any) -> frozenset[str]:
    """Return the names of the function tools in a list of tools."""
    members = tools if isinstance(tools, list) else ()
    return frozenset(
        name
        for tool in members
        if isinstance(tool, Mapping) and tool.get("type", "function") == "function"
        if isinstance(name := tool.get("name"), str)
    )


class ServerOverlay:
    """The server's instructions and tools in one session."""

    def __init__(self, policy: RealtimePolicy, tools: Iterable[ToolSpec]) -> None:
        self.policy = policy
        self.tools = {tool.name: tool for tool in tools if policy.allows_tool(tool.name)}
        self.include_examples = False
        """Whether tool descriptions include example sentences, for an engine that learns from them."""
        self.client_tool_names: frozenset[str] = frozenset()
        """The function tools that the client has set for the session."""
        hidden_tools = self.tools.values() if self.hides_tools else ()
        descriptions = [text for tool in hidden_tools for text in _tool_texts(tool) if len(text) >= MIN_MATCH_CHARS]
        self._locked_texts = LockedTexts([policy.instructions, *descriptions])

    @property
    def hides_tools(self) -> bool:
        """Whether the client must see no trace of the server's tools."""
        return bool(self.tools) and not self.policy.show_tools

    def is_server_tool(self, name: Any, client_names: frozenset[str] | None = None) -> bool:
        """Return whether the relay runs calls of that name; `client_names` override unprotected tools."""
        tool = self.tools.get(name) if isinstance(name, str) else None
        if tool is None:
            return False
        return tool.protected or tool.name not in (self.client_tool_names if client_names is None else client_names)

    # -- towards the upstream -----------------------------------------------------------------------------------------

    def merge(self, settings: JsonObject, *, include_absent: bool = False) -> JsonObject:
        """Merge the overlay into a client's settings, in place; `include_absent`: also into unset fields."""
        if include_absent or "instructions" in settings:
            instructions = self.policy.combine_instructions(settings.get("instructions"))
            if instructions is not None:
                settings["instructions"] = instructions
        if self.tools and (include_absent or "tools" in settings):
            tools = settings.get("tools")
            client_tools = tools if isinstance(tools, list) else []
            names = function_names(client_tools)
            server_tools = [tool for tool in self.tools.values() if tool.protected or tool.name not in names]
            definitions = [tool.definition(with_examples=self.include_examples) for tool in server_tools]
            settings["tools"] = [tool for tool in client_tools if not self.is_protected(tool)] + definitions
        return settings

    def is_protected(self, tool: Any) -> bool:
        """Return whether a client tool has the name of a protected server tool."""
        name = tool.get("name") if isinstance(tool, Mapping) else None
        server = self.tools.get(name) if isinstance(name, str) else None
        return server is not None and server.protected

    def remove_reserved_names(self, settings: JsonObject, path: str) -> list[PolicyViolation]:
        """Remove tool names that a client may not use; returns the violations that the policy wants reported.

        A tool that the client chooses must be its own. A name that only a server tool has is answered like an unknown
        name, so that nothing is disclosed.
        """
        violations = []
        tools, choice = settings.get("tools"), settings.get("tool_choice")
        members = tools if isinstance(tools, list) else []
        reserved_indexes = [index for index, tool in enumerate(members) if self.is_protected(tool)]
        if reserved_indexes:
            param = f"{path}.tools[{reserved_indexes[0]}].name"
            violations.append(PolicyViolation("This name cannot be used here.", param, "invalid_value"))
            settings["tools"] = [tool for tool in members if not self.is_protected(tool)]
        if isinstance(choice, Mapping) and choice.get("type") != "mcp" and self.hides_tools:
            names, name = self.client_tool_names if tools is None else function_names(tools), choice.get("name")
            if not isinstance(name, str) or name not in names:
                message = "No tool of the client has this name."
                violations.append(PolicyViolation(message, f"{path}.tool_choice", "invalid_value"))
                del settings["tool_choice"]
        return violations if self.policy.denied_fields == "refuse" else []

    # -- towards the client -------------------------------------------------------------------------------------------

    def strip_session(self, session: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the session as the client may see it; the same object if nothing is removed."""
        members = {key: value for key, value in session.items() if key not in ("instructions", "tools")}
        redacted = self._locked_texts.redact(members)
        changes = self._strip_members(session) | ({} if redacted is members else redacted)
        return {**session, **changes} if changes else session

    def strip_response(self, response: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the response as the client may see it, without the overlay in its settings and its failure details."""
        changes = self._strip_members(response)
        details = response.get("status_details")
        redacted = self._locked_texts.redact(details)
        if redacted is not details:
            changes["status_details"] = redacted
        return {**response, **changes} if changes else response

    def strip_error(self, event: Mapping[str, Any], quotable_names: Container[str] = ()) -> Mapping[str, Any]:
        """Return an event with an error, without quotes of the overlay; the same object if nothing changes.

        `quotable_names` are names in the client event that the error answers. They stay: removing those that are also
        server tools would tell the client which they are.
        """
        redacted: Mapping[str, Any] = self._locked_texts.redact(event)
        error = redacted.get("error")
        if not self.hides_tools or not isinstance(error, Mapping) or "tools" not in str(error.get("param"))[:80]:
            return redacted
        message = error.get("message")
        if not isinstance(message, str):
            return redacted
        names = [re.escape(name) for name in self.tools if self.is_server_tool(name) and name not in quotable_names]
        masked_message = re.sub(rf"(?<![\w-])(?:{'|'.join(names)})(?![\w-])", MASK, message) if names else message
        return redacted if masked_message == message else {**redacted, "error": {**error, "message": masked_message}}

    def redact(self, text: str) -> str:
        """Return an upstream text without quotes of the overlay."""
        return str(self._locked_texts.redact(text))

    def _strip_members(self, settings: Mapping[str, Any]) -> JsonObject:
        """Return the members of a session or a response that change when the overlay is stripped."""
        changes: JsonObject = {}
        server_instructions, instructions = self.policy.instructions, settings.get("instructions")
        if server_instructions and instructions is not None:
            prefix = server_instructions + INSTRUCTIONS_SEPARATOR
            is_merged = isinstance(instructions, str) and instructions.startswith(prefix)
            changes["instructions"] = instructions[len(prefix) :] if is_merged else ""
        tools = settings.get("tools")
        if self.hides_tools and tools is not None:
            members = tools if isinstance(tools, list) else []
            client_tools = [tool for tool in members if not self._is_hidden(tool)]
            if not isinstance(tools, list) or len(client_tools) != len(tools):
                changes["tools"] = client_tools
        return changes

    def _is_hidden(self, tool: Any) -> bool:
        if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
            return False
        inner = tool.get("function")  # the shape of Chat Completions, which some endpoints use
        inner_name = inner.get("name") if isinstance(inner, Mapping) else None
        return self.is_server_tool(tool.get("name")) or self.is_server_tool(inner_name)


def _tool_texts(tool: ToolSpec) -> Iterator[str]:
    yield tool.description
    yield from _descriptions(tool.parameters)


def _descriptions(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("description"), str):
            yield schema["description"]
        for member in schema.values():
            yield from _descriptions(member)
    elif isinstance(schema, list | tuple):
        for member in schema:
            yield from _descriptions(member)
