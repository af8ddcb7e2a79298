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
from relay.session.realtime.policy_rules import Denied

PIECE_CHARS = 24
MIN_WHOLE_CHARS = 8
"""A locked text shorter than a piece is removed only as a whole; one shorter than this is not searched for."""
MAX_CHARS = 32_768


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
    def __init__(self, policy: RealtimePolicy, tools: Iterable[ToolSpec]) -> None:
        self.policy = policy
        self.tools = {tool.name: tool for tool in tools if policy.allows_tool(tool.name)}
        self.include_examples = False
        """Whether tools are described with their example sentences, for an engine that learns from them."""
        self.client_names: frozenset[str] = frozenset()
        """The function tools that the client has set for the session."""
        hidden = self.tools.values() if self.hides_tools else ()
        described = [text for tool in hidden for text in _texts_of(tool) if len(text) >= PIECE_CHARS]
        self._locked = LockedTexts([policy.instructions, *described])

    @property
    def hides_tools(self) -> bool:
        """Whether the client must see no trace of the server's tools."""
        return bool(self.tools) and not self.policy.show_tools

    def runs(self, name: Any, shadows: frozenset[str] | None = None) -> bool:
        """Whether the relay runs calls of that name: a client's tool wins over a server's unless that is protected."""
        tool = self.tools.get(name) if isinstance(name, str) else None
        if tool is None:
            return False
        return tool.protected or tool.name not in (self.client_names if shadows is None else shadows)

    # -- upwards ------------------------------------------------------------------------------------------------------

    def merge(self, settings: JsonObject, *, whole: bool = False) -> JsonObject:
        """A client's session or response settings with the server's share; `whole`: also where the client is silent."""
        if whole or "instructions" in settings:
            instructions = self.policy.combine_instructions(settings.get("instructions"))
            if instructions is not None:
                settings["instructions"] = instructions
        if self.tools and (whole or "tools" in settings):
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

    def remove_reserved_names(self, settings: JsonObject, path: str) -> list[Denied]:
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
            refusals.append(Denied("This name cannot be used here.", param, "invalid_value"))
            settings["tools"] = [tool for tool in members if not self.is_protected(tool)]
        if isinstance(choice, Mapping) and choice.get("type") != "mcp" and self.hides_tools:
            names, name = self.client_names if tools is None else function_names(tools), choice.get("name")
            if not isinstance(name, str) or name not in names:
                message = "No tool of the client's has this name."
                refusals.append(Denied(message, f"{path}.tool_choice", "invalid_value"))
                del settings["tool_choice"]
        return refusals if self.policy.denied_fields == "refuse" else []

    # -- downwards ----------------------------------------------------------------------------------------------------

    def shown(self, session: Mapping[str, Any]) -> Mapping[str, Any]:
        """The session as its client may see it; the same object if nothing has to be taken out."""
        others = {key: value for key, value in session.items() if key not in ("instructions", "tools")}
        cut = self._locked.cut(others)
        changes = self._merged_away(session) | ({} if cut is others else cut)
        return {**session, **changes} if changes else session

    def shown_response(self, response: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same for a response: its settings, where an upstream repeats them, and why it failed."""
        changes = self._merged_away(response)
        details = response.get("status_details")
        cut = self._locked.cut(details)
        if cut is not details:
            changes["status_details"] = cut
        return {**response, **changes} if changes else response

    def shown_error(self, event: Mapping[str, Any], said: Container[str] = ()) -> Mapping[str, Any]:
        """An event with an error, without what it quotes of the server's share; the same object if nothing changes.

        `said` are the names that the client gave in the event that the error answers. They stay: if those that are also
        the server's were removed, the client would know which they are.
        """
        shown: Mapping[str, Any] = self._locked.cut(event)
        error = shown.get("error")
        if not self.hides_tools or not isinstance(error, Mapping) or "tools" not in str(error.get("param"))[:80]:
            return shown
        message = error.get("message")
        if not isinstance(message, str):
            return shown
        names = "|".join(re.escape(name) for name in self.tools if self.runs(name) and name not in said)
        cut = re.sub(rf"(?<![\w-])(?:{names})(?![\w-])", MASK, message) if names else message
        return shown if cut == message else {**shown, "error": {**error, "message": cut}}

    def cut(self, text: str) -> str:
        """A text of the upstream's without what it quotes of the server's share."""
        return str(self._locked.cut(text))

    def _merged_away(self, settings: Mapping[str, Any]) -> JsonObject:
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
        return self.runs(tool.get("name")) or (isinstance(inner, Mapping) and self.runs(inner.get("name")))


def _texts_of(tool: ToolSpec) -> Iterator[str]:
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

    Every run of `PIECE_CHARS` characters that stands in a locked text is removed: in any case, with lines joined by
    spaces, or as JSON escapes it. The cost grows with the length of what is searched, which has a bound: texts and
    objects beyond `MAX_CHARS` characters and members are left out unread.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(dict.fromkeys(text.strip() for text in texts if len(text.strip()) >= MIN_WHOLE_CHARS))

    def cut(self, value: Any) -> Any:
        """JSON without any part of the texts; the same object if there is none."""
        return _Cut(*_pieces(self._texts)).of(value) if self._texts else value


class _Cut:
    """One value's cut: `room` is what may still be looked at."""

    def __init__(self, pieces: frozenset[str], wholes: tuple[str, ...]) -> None:
        self._pieces = pieces
        self._wholes = wholes
        self._room = MAX_CHARS

    def of(self, value: Any) -> Any:
        self._room -= 1
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, Mapping | list):
            return value
        if self._room <= 0:
            return MASK
        members = value.items() if isinstance(value, Mapping) else enumerate(value)
        changed = {key: new for key, old in members if (new := self.of(old)) is not old}
        if not changed:
            return value
        if isinstance(value, Mapping):
            return {**value, **changed}
        return [changed.get(index, member) for index, member in enumerate(value)]

    def _text(self, text: str) -> str:
        seen = text[: max(self._room, 0)]
        self._room -= len(seen)
        kept = self._without_pieces(seen)
        for whole in self._wholes:
            kept = _without(kept, whole)
        if len(seen) < len(text):
            return kept + MASK
        return text if kept == text else kept

    def _without_pieces(self, text: str) -> str:
        folded, parts, kept_to, at = _folded(text), [], 0, 0
        while at + PIECE_CHARS <= len(text):
            end = at + PIECE_CHARS
            if folded[at:end] not in self._pieces:
                at += 1
                continue
            while end < len(text) and folded[end + 1 - PIECE_CHARS : end + 1] in self._pieces:
                end += 1
            found = text[at:end]
            before, after = len(found) - len(found.lstrip()), len(found) - len(found.rstrip())
            parts += [text[kept_to : at + before], MASK]
            kept_to, at = end - after, end
        return "".join((*parts, text[kept_to:]))


def _without(text: str, whole: str) -> str:
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
def _pieces(texts: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """All pieces of the texts, and those that are too short to have one. Sessions of one policy share them."""
    ways = {
        _folded(way)
        for text in texts
        for way in (text, " ".join(text.split()), json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    }
    pieces = frozenset(way[at : at + PIECE_CHARS] for way in ways for at in range(len(way) - PIECE_CHARS + 1))
    return pieces, tuple(sorted(way for way in ways if MIN_WHOLE_CHARS <= len(way) < PIECE_CHARS))
