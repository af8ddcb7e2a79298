"""The tools that a Realtime client sets for its session, while the upstream may still refuse them.

A `session.update` counts when it is sent: calls by a tool's name may come before the answer. If the upstream refuses
the update, the tools before it are active again, and later updates that set tools keep theirs. The upstream answers
updates in order. Beyond the bounds the oldest update is forgotten, and counts as taken.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from relay.core.server_parts import ServerParts, function_names

MAX_UPDATES = 256


class _Update(NamedTuple):
    """A `session.update` of the client's that has no answer yet."""

    event_id: str
    sets_tools: bool
    tools: Any


class ClientTools:
    """The client's tools of one session; the server's are in `parts`, which needs the client's names."""

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts
        self._taken: Any = []
        self._updates: deque[_Update] = deque()
        self._names: OrderedDict[str, frozenset[str]] = OrderedDict()
        self.tools: Any = []
        """Those that are active."""

    def use(self, tools: Any) -> None:
        """The upstream has these tools of the client's, before any update."""
        self._taken = tools
        self._activate()

    def update(self, event_id: str, session: Mapping[str, Any]) -> None:
        """The client sends a `session.update`, given without the server's tools."""
        if len(self._updates) == MAX_UPDATES:
            self.update_taken()
        self._updates.append(_Update(event_id, "tools" in session, session.get("tools")))
        self.remember_names(event_id, session.get("tools"))
        self._activate()

    def update_taken(self) -> None:
        """The upstream has taken the oldest `session.update` that it has not answered yet."""
        if self._updates and (update := self._updates.popleft()).sets_tools:
            self._taken = update.tools

    def refused(self, event_id: str) -> frozenset[str]:
        """The upstream has refused an event; if it was a `session.update`, the tools before it are active again.

        Returns those names of the server's tools that the client gave to tools of its own in this event.
        """
        update = next((update for update in self._updates if update.event_id == event_id), None)
        if update is not None:
            self._updates.remove(update)
            self._activate()
        return self._names.get(event_id, frozenset())

    def _activate(self) -> None:
        set_last = (update.tools for update in reversed(self._updates) if update.sets_tools)
        self.tools = next(set_last, self._taken) or []
        self._parts.client_names = function_names(self.tools)

    def remember_names(self, event_id: str, tools: Any) -> None:
        """The client gives these tools in an event: names of the server's among them may be quoted in its error."""
        names = function_names(tools) & self._parts.tools.keys()
        if names:
            self._names[event_id] = names
            if len(self._names) > MAX_UPDATES:
                self._names.popitem(last=False)
