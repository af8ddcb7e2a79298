"""What the rules send while they handle one event, and the ids of the relay's own events.

Commands are collected in order and taken when the event is handled. Events that the relay adds to the conversation
have ids that no client may use, so an error of the upstream says by its `event_id` whose event it answers. Ids that
the client sees are counted apart: the other count would show how much goes on unseen.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from relay.core.bounded import RecentSet
from relay.core.realtime_events import Obj, RealtimeCommand, TellClient, TellUpstream
from relay.session.common.limits import MAX_EVENT_ID_CHARS, OWN_IDS

MAX_STAND_INS = 256
"""Ids given to a client's events; an error about an older event shows the relay's id."""

BAD_EVENT_ID = f"event_id must be a string of at most {MAX_EVENT_ID_CHARS} characters, not beginning '{OWN_IDS}'."


def may_be_clients(event_id: Any) -> bool:
    """Whether a client may give an event this id; it need not give one."""
    if event_id is None:
        return True
    return isinstance(event_id, str) and len(event_id) <= MAX_EVENT_ID_CHARS and not event_id.startswith(OWN_IDS)


class EventIds:
    """The ids of one session; `next_number` never returns the same text twice."""

    def __init__(self, next_number: Callable[[], str]) -> None:
        self._next_number = next_number
        self._shown_numbers = itertools.count(1)
        self._stand_ins = RecentSet(MAX_STAND_INS)

    def new(self) -> str:
        """The id of an event to the upstream."""
        return OWN_IDS + self._next_number()

    def new_shown(self) -> str:
        """The id of an event to the client."""
        return f"{OWN_IDS}shown_{next(self._shown_numbers)}"

    def new_call(self) -> str:
        """The id of a function call that the client gave none."""
        return f"call_{self.new_shown()}"

    def with_id(self, event: Obj) -> Obj:
        """A client's event with an id by which its error is known: the client's, or else a stand-in of ours."""
        if event.get("event_id") is not None:
            return event
        stand_in = self.new()
        self._stand_ins.add(stand_in)
        return {**event, "event_id": stand_in}

    def is_stand_in(self, event_id: str) -> bool:
        """Whether an id stands in for one that the client did not give."""
        return event_id in self._stand_ins


class Outgoing:
    """The commands of the event at hand."""

    def __init__(self, ids: EventIds) -> None:
        self.ids = ids
        self._commands: list[RealtimeCommand] = []

    def add(self, command: RealtimeCommand) -> None:
        """One more command, after those before it."""
        self._commands.append(command)

    def to_client(self, event: Mapping[str, Any]) -> None:
        """Send an event to the client."""
        self._commands.append(TellClient(event))

    def to_upstream(self, event: Mapping[str, Any]) -> None:
        """Send an event to the upstream."""
        self._commands.append(TellUpstream(event))

    def request(self, kind: str, **members: Any) -> str:
        """Send an event of the relay's own to the upstream; returns its id."""
        event_id = self.ids.new()
        self.to_upstream({"type": kind, "event_id": event_id, **members})
        return event_id

    def take(self) -> list[RealtimeCommand]:
        """All commands, in order; none is left afterwards."""
        commands, self._commands = self._commands, []
        return commands
