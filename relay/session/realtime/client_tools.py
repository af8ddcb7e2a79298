"""The tools that a Realtime client sets for its session, while the upstream may still refuse them.

A `session.update` counts when it is sent: calls by a tool's name may come before the answer. If the upstream refuses
the update, the tools before it are active again, and later updates that set tools keep theirs. The upstream answers
updates in order. Beyond the bounds the oldest update is forgotten, and counts as taken.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from relay.core.server_parts import ServerParts, function_names

MAX_UPDATES = 256


@dataclass(frozen=True, slots=True)
class _Update:
    """A `session.update` of the client's that has no answer yet, and the client's tools before it."""

    event_id: str
    tools_before: Any
    sets_tools: bool
    tools: Any


class ClientTools:
    """The client's tools of one session; the server's are in `parts`, which needs the client's names."""

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts
        self._updates: deque[_Update] = deque(maxlen=MAX_UPDATES)
        self._names: OrderedDict[str, frozenset[str]] = OrderedDict()
        self.tools: Any = []
        """Those that are active."""

    def use(self, tools: Any) -> None:
        """These are the client's tools of the session."""
        self._parts.client_names = function_names(tools)
        self.tools = tools or []

    def update(self, event_id: str, session: Mapping[str, Any]) -> None:
        """The client sends a `session.update`, given without the server's tools."""
        update = _Update(event_id, self.tools, "tools" in session, session.get("tools"))
        self._updates.append(update)
        self.remember_names(event_id, update.tools)
        if update.sets_tools:
            self.use(update.tools)

    def update_taken(self) -> None:
        """The upstream has taken the oldest `session.update` that it has not answered yet."""
        if self._updates:
            self._updates.popleft()

    def update_refused(self, event_id: str) -> None:
        """The upstream has refused an event; if it was a `session.update`, the tools before it are active again."""
        for index, update in enumerate(self._updates):
            if update.event_id == event_id:
                del self._updates[index]
                self.use(self._tools_after(index, update.tools_before))
                return

    def _tools_after(self, index: int, tools: Any) -> Any:
        """The client's tools once the updates from `index` on are taken, where `tools` are those before them."""
        for later, update in enumerate(list(self._updates)[index:], index):
            self._updates[later] = replace(update, tools_before=tools)
            tools = update.tools if update.sets_tools else tools
        return tools

    # -- names in errors ----------------------------------------------------------------------------------------------

    def remember_names(self, event_id: str, tools: Any) -> None:
        """The client gives these tools in an event: names of the server's among them may be quoted in its error."""
        names = function_names(tools) & self._parts.tools.keys()
        if names:
            self._names[event_id] = names
            if len(self._names) > MAX_UPDATES:
                self._names.popitem(last=False)

    def names_given_in(self, event_id: str) -> frozenset[str]:
        """Those names of the server's tools that the client gave to tools of its own in this event."""
        return self._names.get(event_id, frozenset())
