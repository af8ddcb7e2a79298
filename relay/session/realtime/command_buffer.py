"""The commands that the rules emit while they handle one event, the ids of the relay's own events, and its errors.

Commands are collected in order and drained once the event is handled. The relay's own upstream events have ids with a
prefix that no client may use. An upstream error therefore shows by its `event_id` whose event it answers.

Ids that the client can see are numbered separately: a shared counter would reveal how many hidden events there are. An
error names the client's event by the id that the client chose. An event without an id gets a synthetic one, which is
never shown to the client.
"""

import itertools
from collections.abc import Callable
from typing import Any

from relay.json_types import JsonObject
from relay.session.common.bounded_set import BoundedSet
from relay.session.common.limits import MAX_EVENT_ID_CHARS, RELAY_EVENT_ID_PREFIX
from relay.session.realtime.events import RealtimeCommand, SendToClient, SendToUpstream

MAX_SYNTHETIC_IDS = 256
"""Synthetic ids that are remembered. An error about an older event shows the synthetic id."""

INVALID_EVENT_ID_MESSAGE = (
    f"event_id must be a string of at most {MAX_EVENT_ID_CHARS} characters and must not begin with "
    f"'{RELAY_EVENT_ID_PREFIX}'."
)


def is_valid_client_event_id(event_id: Any) -> bool:
    """Return whether a client may use this `event_id`; None, no id at all, is allowed."""
    if event_id is None:
        return True
    is_short = isinstance(event_id, str) and len(event_id) <= MAX_EVENT_ID_CHARS
    return is_short and not event_id.startswith(RELAY_EVENT_ID_PREFIX)


class CommandBuffer:
    """Collects the commands for the current event; `next_number` never returns the same string twice."""

    def __init__(self, next_number: Callable[[], str]) -> None:
        self._next_number = next_number
        self._client_visible_numbers = itertools.count(1)
        self._synthetic_ids = BoundedSet(MAX_SYNTHETIC_IDS)
        self._commands: list[RealtimeCommand] = []

    def add(self, command: RealtimeCommand) -> None:
        """Add a command after those before it."""
        self._commands.append(command)

    def drain(self) -> list[RealtimeCommand]:
        """Return all commands in order and empty the buffer."""
        commands, self._commands = self._commands, []
        return commands

    def send_relay_event(self, event_type: str, **members: Any) -> str:
        """Send an event of the relay's own to the upstream; returns its `event_id`."""
        event_id = RELAY_EVENT_ID_PREFIX + self._next_number()
        self.add(SendToUpstream({"type": event_type, "event_id": event_id, **members}))
        return event_id

    def send_rejection(self, event_id: Any, code: str, message: str, param: str | None = None) -> None:
        """Tell the client that its event was rejected; `param` is the path of the invalid field."""
        is_known = isinstance(event_id, str) and not self.is_synthetic_id(event_id)
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": param}
        self.send_error({**error, "event_id": event_id if is_known else None})

    def send_error(self, error: JsonObject) -> None:
        """Send an error object to the client unchanged."""
        self.add(SendToClient({"type": "error", "event_id": self.new_client_visible_id(), "error": error}))

    def new_client_visible_id(self) -> str:
        """Return a new id that the client may see."""
        return f"{RELAY_EVENT_ID_PREFIX}shown_{next(self._client_visible_numbers)}"

    def ensure_event_id(self, event: JsonObject) -> JsonObject:
        """Return the client event with an `event_id`, adding a synthetic one if the client set none."""
        if event.get("event_id") is not None:
            return event
        synthetic_id = RELAY_EVENT_ID_PREFIX + self._next_number()
        self._synthetic_ids.add(synthetic_id)
        return {**event, "event_id": synthetic_id}

    def is_synthetic_id(self, event_id: str) -> bool:
        """Return whether the relay generated this id for a client event without one."""
        return event_id in self._synthetic_ids
