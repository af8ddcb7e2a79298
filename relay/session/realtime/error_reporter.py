"""The `error` events that the relay itself sends to a Realtime client.

An error names the client's event by `event_id`, if that event had one. Ids that the relay gave to events without an id
are left out, because the client does not know them.
"""

from typing import Any, Literal

from relay.core.policy_rules import Denied
from relay.core.realtime_events import Obj
from relay.session.realtime.outgoing import Outgoing

_TOO_FAST = {
    "audio": "Over 16 MB of audio came faster than 2 MB or 600 events a second; it is read no faster.",
    "messages": "Over 2,000 events came faster than 50 a second; they are read no faster.",
}


class ErrorReporter:
    """Sends `error` events through `out`."""

    def __init__(self, out: Outgoing) -> None:
        self._out = out

    def refuse(self, event_id: Any, code: str, message: str, param: str | None = None) -> None:
        """An event of the client's has no effect; `param` is the path of the field that is wrong."""
        is_known = isinstance(event_id, str) and not self._out.ids.is_stand_in(event_id)
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": param}
        self.report({**error, "event_id": event_id if is_known else None})

    def deny(self, event_id: Any, denied: Denied) -> None:
        """The policy does not allow an event of the client's."""
        self.refuse(event_id, denied.code, str(denied), denied.param)

    def too_fast(self, what: Literal["audio", "messages"]) -> None:
        """The client sends faster than it is read."""
        self.refuse(None, "too_fast", _TOO_FAST[what])

    def report(self, error: Obj) -> None:
        """Send an error object as it is."""
        self._out.to_client({"type": "error", "event_id": self._out.ids.new_shown(), "error": error})
