"""What the rules send while they handle one event, the ids of the relay's own events, and the relay's own errors.

Commands are collected in order and taken when the event is handled. Events that the relay adds to the conversation
have ids that no client may use, so an error of the upstream says by its `event_id` whose event it answers. Ids that
the client sees are counted apart: the other count would show how much goes on unseen. An error of the relay's names
the client's event by the id that the client gave. An event without an id gets a stand-in, which the client never sees.
"""

import itertools
from collections.abc import Callable
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.bounded_set import BoundedSet
from relay.session.common.limits import MAX_EVENT_ID_CHARS, RELAY_EVENT_ID_PREFIX
from relay.session.realtime.events import RealtimeCommand, SendToClient, SendToUpstream

MAX_SYNTHETIC_IDS = 256
"""Ids given to a client's events; an error about an older event shows the relay's id."""

INVALID_EVENT_ID = (
    f"event_id must be a string of at most {MAX_EVENT_ID_CHARS} characters, not beginning '{RELAY_EVENT_ID_PREFIX}'."
)


def is_valid_client_event_id(event_id: Any) -> bool:
    """Whether a client may give an event this id; it need not give one."""
    if event_id is None:
        return True
    return (
        isinstance(event_id, str)
        and len(event_id) <= MAX_EVENT_ID_CHARS
        and not event_id.startswith(RELAY_EVENT_ID_PREFIX)
    )


class CommandBuffer:
    """The commands of the event at hand; `next_number` never returns the same text twice."""

    def __init__(self, next_number: Callable[[], str]) -> None:
        self._next_number = next_number
        self._client_visible_numbers = itertools.count(1)
        self._synthetic_ids = BoundedSet(MAX_SYNTHETIC_IDS)
        self._commands: list[RealtimeCommand] = []

    def add(self, command: RealtimeCommand) -> None:
        """One more command, after those before it."""
        self._commands.append(command)

    def drain(self) -> list[RealtimeCommand]:
        """All commands, in order; none is left afterwards."""
        commands, self._commands = self._commands, []
        return commands

    def send_relay_event(self, event_type: str, **members: Any) -> str:
        """Send an event of the relay's own to the upstream; returns its id."""
        event_id = RELAY_EVENT_ID_PREFIX + self._next_number()
        self.add(SendToUpstream({"type": event_type, "event_id": event_id, **members}))
        return event_id

    def send_rejection(self, event_id: Any, code: str, message: str, param: str | None = None) -> None:
        """An event of the client's has no effect; `param` is the path of the field that is wrong."""
        is_known = isinstance(event_id, str) and not self.is_synthetic_id(event_id)
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": param}
        self.send_error({**error, "event_id": event_id if is_known else None})

    def send_error(self, error: JsonObject) -> None:
        """Send an error object to the client as it is."""
        self.add(SendToClient({"type": "error", "event_id": self.new_client_visible_id(), "error": error}))

    def new_client_visible_id(self) -> str:
        """An id that the client sees."""
        return f"{RELAY_EVENT_ID_PREFIX}shown_{next(self._client_visible_numbers)}"

    def ensure_event_id(self, event: JsonObject) -> JsonObject:
        """A client's event with an id by which its error is known: the client's, or else a stand-in."""
        if event.get("event_id") is not None:
            return event
        stand_in = RELAY_EVENT_ID_PREFIX + self._next_number()
        self._synthetic_ids.add(stand_in)
        return {**event, "event_id": stand_in}

    def is_synthetic_id(self, event_id: str) -> bool:
        """Whether an id was generated because the client gave none."""
        return event_id in self._synthetic_ids
