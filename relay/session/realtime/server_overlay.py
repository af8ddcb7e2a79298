"""The server's share of a session, which a Realtime client may neither read, replace nor remove.

The share is the server's instructions and those of its tools that the policy offers. Upwards, it is merged into every
`session.update` and `response.create` that would replace it: the server's instructions come before the client's, and
its tools after the client's. Downwards, sessions, responses and errors are shown without it. A client's tool wins over
a server's tool of the same name, unless that one is protected: then the client's tool is refused, because the model
would never call it. All that the client learns is that the name is taken.
"""

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.model import ToolSpec
from relay.session.common.policy import INSTRUCTIONS_SEPARATOR, RealtimePolicy
from relay.session.common.redact import MASK
from relay.session.realtime.policy_rules import PolicyViolation

MIN_MATCH_CHARS = 24
MIN_LOCKED_TEXT_CHARS = 8
"""A locked text shorter than a piece is removed only as a whole; one shorter than this is not searched for."""
MAX_SCANNED_CHARS = 32_768


def function_names(tools: Any) -> frozenset[str]:
    """The names of the function tools in a list of tools."""
    members = tools if isinstance(tools, list) else ()
    return frozenset(
        name
        for tool in members
        if isinstance(tool, Mapping) and tool.get("type", "function") == "function"
        if isinstance(name := tool.get("name"), str)
    )


class ServerOverlay:
    def __init__(self, policy: RealtimePolicy, tools: Iterable[ToolSpec]) -> None:
        self.policy = policy
        self.tools = {tool.name: tool for tool in tools if policy.allows_tool(tool.name)}
        self.include_examples = False
        """Whether tools are described with their example sentences, for an engine that learns from them."""
        self.client_tool_names: frozenset[str] = frozenset()
        """The function tools that the client has set for the session."""
        hidden = self.tools.values() if self.hides_tools else ()
        described = [text for tool in hidden for text in _tool_texts(tool) if len(text) >= MIN_MATCH_CHARS]
        self._locked = LockedTexts([policy.instructions, *described])

    @property
    def hides_tools(self) -> bool:
        """Whether the client must see no trace of the server's tools."""
        return bool(self.tools) and not self.policy.show_tools

    def is_server_tool(self, name: Any, client_names: frozenset[str] | None = None) -> bool:
        """Whether the relay runs calls of that name: a client's tool wins over a server's unless that is protected."""
        tool = self.tools.get(name) if isinstance(name, str) else None
        if tool is None:
            return False
        return tool.protected or tool.name not in (self.client_tool_names if client_names is None else client_names)

    # -- upwards ------------------------------------------------------------------------------------------------------

    def merge(self, settings: JsonObject, *, include_absent: bool = False) -> JsonObject:
        """A client's session or response settings with the server's share; `include_absent`: also where the client is
        silent.
        """
        if include_absent or "instructions" in settings:
            instructions = self.policy.combine_instructions(settings.get("instructions"))
            if instructions is not None:
                settings["instructions"] = instructions
        if self.tools and (include_absent or "tools" in settings):
            given = settings.get("tools")
            client = given if isinstance(given, list) else []
            names = function_names(client)
            servers = [tool for tool in self.tools.values() if tool.protected or tool.name not in names]
            definitions = [tool.definition(with_examples=self.include_examples) for tool in servers]
            settings["tools"] = [tool for tool in client if not self.is_protected(tool)] + definitions
        return settings

    def is_protected(self, tool: Any) -> bool:
        """Whether a client's tool has the name of a protected one of the server's."""
        name = tool.get("name") if isinstance(tool, Mapping) else None
        server = self.tools.get(name) if isinstance(name, str) else None
        return server is not None and server.protected

    def remove_reserved_names(self, settings: JsonObject, path: str) -> list[PolicyViolation]:
        """Remove what a client may not name from a session or a response; returns the refusals that the policy wants.

        A tool that the client chooses must be its own. A name that only a server's tool has is answered like one that
        no tool has, so that nothing is disclosed.
        """
        refusals = []
        tools, choice = settings.get("tools"), settings.get("tool_choice")
        members = tools if isinstance(tools, list) else []
        taken = [index for index, tool in enumerate(members) if self.is_protected(tool)]
        if taken:
            param = f"{path}.tools[{taken[0]}].name"
            refusals.append(PolicyViolation("This name cannot be used here.", param, "invalid_value"))
            settings["tools"] = [tool for tool in members if not self.is_protected(tool)]
        if isinstance(choice, Mapping) and choice.get("type") != "mcp" and self.hides_tools:
            names, name = self.client_tool_names if tools is None else function_names(tools), choice.get("name")
            if not isinstance(name, str) or name not in names:
                message = "No tool of the client's has this name."
                refusals.append(PolicyViolation(message, f"{path}.tool_choice", "invalid_value"))
                del settings["tool_choice"]
        return refusals if self.policy.denied_fields == "refuse" else []

    # -- downwards ----------------------------------------------------------------------------------------------------

    def strip_session(self, session: Mapping[str, Any]) -> Mapping[str, Any]:
        """The session as its client may see it; the same object if nothing has to be taken out."""
        others = {key: value for key, value in session.items() if key not in ("instructions", "tools")}
        cut = self._locked.redact(others)
        changes = self._stripped_members(session) | ({} if cut is others else cut)
        return {**session, **changes} if changes else session

    def strip_response(self, response: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same for a response: its settings, where an upstream repeats them, and why it failed."""
        changes = self._stripped_members(response)
        details = response.get("status_details")
        cut = self._locked.redact(details)
        if cut is not details:
            changes["status_details"] = cut
        return {**response, **changes} if changes else response

    def strip_error(self, event: Mapping[str, Any], quotable_names: Container[str] = ()) -> Mapping[str, Any]:
        """An event with an error, without what it quotes of the server's share; the same object if nothing changes.

        `quotable_names` are the names that the client gave in the event that the error answers. They stay: if those
        that are also the server's were removed, the client would know which they are.
        """
        shown: Mapping[str, Any] = self._locked.redact(event)
        error = shown.get("error")
        if not self.hides_tools or not isinstance(error, Mapping) or "tools" not in str(error.get("param"))[:80]:
            return shown
        message = error.get("message")
        if not isinstance(message, str):
            return shown
        names = "|".join(
            re.escape(name) for name in self.tools if self.is_server_tool(name) and name not in quotable_names
        )
        cut = re.sub(rf"(?<![\w-])(?:{names})(?![\w-])", MASK, message) if names else message
        return shown if cut == message else {**shown, "error": {**error, "message": cut}}

    def redact(self, text: str) -> str:
        """A text of the upstream's without what it quotes of the server's share."""
        return str(self._locked.redact(text))

    def _stripped_members(self, settings: Mapping[str, Any]) -> JsonObject:
        """The members of a session or a response that are shown without the server's share."""
        changes: JsonObject = {}
        own, instructions = self.policy.instructions, settings.get("instructions")
        if own and instructions is not None:
            prefix = own + INSTRUCTIONS_SEPARATOR
            is_merged = isinstance(instructions, str) and instructions.startswith(prefix)
            changes["instructions"] = instructions[len(prefix) :] if is_merged else ""
        tools = settings.get("tools")
        if self.hides_tools and tools is not None:
            members = tools if isinstance(tools, list) else []
            kept = [tool for tool in members if not self._is_hidden(tool)]
            if not isinstance(tools, list) or len(kept) != len(tools):
                changes["tools"] = kept
        return changes

    def _is_hidden(self, tool: Any) -> bool:
        if not isinstance(tool, Mapping) or tool.get("type", "function") != "function":
            return False
        inner = tool.get("function")  # as some endpoints write it
        return self.is_server_tool(tool.get("name")) or (
            isinstance(inner, Mapping) and self.is_server_tool(inner.get("name"))
        )


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


class LockedTexts:
    """Removes texts that a client must not read from errors and sessions of the upstream that quote them.

    Every run of `MIN_MATCH_CHARS` characters that stands in a locked text is removed: in any case, with lines joined by
    spaces, or as JSON escapes it. The cost grows with the length of what is searched, which has a bound: texts and
    objects beyond `MAX_SCANNED_CHARS` characters and members are left out unread.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(dict.fromkeys(text.strip() for text in texts if len(text.strip()) >= MIN_LOCKED_TEXT_CHARS))

    def redact(self, value: Any) -> Any:
        """JSON without any part of the texts; the same object if there is none."""
        return _LockedTextRedaction(*_index_texts(self._texts)).apply(value) if self._texts else value


class _LockedTextRedaction:
    """One value's cut: `room` is what may still be looked at."""

    def __init__(self, pieces: frozenset[str], wholes: tuple[str, ...]) -> None:
        self._fragments = pieces
        self._wholes = wholes
        self._remaining_chars = MAX_SCANNED_CHARS

    def apply(self, value: Any) -> Any:
        self._remaining_chars -= 1
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, Mapping | list):
            return value
        if self._remaining_chars <= 0:
            return MASK
        members = value.items() if isinstance(value, Mapping) else enumerate(value)
        changed = {key: new for key, old in members if (new := self.apply(old)) is not old}
        if not changed:
            return value
        if isinstance(value, Mapping):
            return {**value, **changed}
        return [changed.get(index, member) for index, member in enumerate(value)]

    def _text(self, text: str) -> str:
        seen = text[: max(self._remaining_chars, 0)]
        self._remaining_chars -= len(seen)
        kept = self._redact_fragments(seen)
        for whole in self._wholes:
            kept = _redact_whole(kept, whole)
        if len(seen) < len(text):
            return kept + MASK
        return text if kept == text else kept

    def _redact_fragments(self, text: str) -> str:
        folded, parts, kept_to, at = _folded(text), [], 0, 0
        while at + MIN_MATCH_CHARS <= len(text):
            end = at + MIN_MATCH_CHARS
            if folded[at:end] not in self._fragments:
                at += 1
                continue
            while end < len(text) and folded[end + 1 - MIN_MATCH_CHARS : end + 1] in self._fragments:
                end += 1
            found = text[at:end]
            before, after = len(found) - len(found.lstrip()), len(found) - len(found.rstrip())
            parts += [text[kept_to : at + before], MASK]
            kept_to, at = end - after, end
        return "".join((*parts, text[kept_to:]))


def _redact_whole(text: str, whole: str) -> str:
    folded, parts, kept_to = _folded(text), [], 0
    while (at := folded.find(whole, kept_to)) >= 0:
        parts += [text[kept_to:at], MASK]
        kept_to = at + len(whole)
    return "".join((*parts, text[kept_to:]))


def _folded(text: str) -> str:
    """The text in lower case, with every character in its place.

    U+0130 is the only character whose lower case is longer than itself: one of it must not move all that follows.
    """
    return text.replace("\u0130", "i").lower()


@lru_cache(maxsize=16)
def _index_texts(texts: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """All pieces of the texts, and those that are too short to have one. Sessions of one policy share them."""
    ways = {
        _folded(way)
        for text in texts
        for way in (text, " ".join(text.split()), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    }
    pieces = frozenset(way[at : at + MIN_MATCH_CHARS] for way in ways for at in range(len(way) - MIN_MATCH_CHARS + 1))
    return pieces, tuple(sorted(way for way in ways if MIN_LOCKED_TEXT_CHARS <= len(way) < MIN_MATCH_CHARS))
