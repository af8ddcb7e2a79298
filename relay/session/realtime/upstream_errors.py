"""Errors of the upstream, and which of them the client sees (D7).

An error that names no event, or an event of the client's, goes to the client without the server's texts. An error
about an event of the relay's own is dealt with here: the client did not send that event. Where the relay only gave the
id to an event of the client's, the error passes without the id.
"""

from collections.abc import Mapping
from typing import Any

from relay.core.server_parts import ServerParts
from relay.session.common.ignored import IgnoredCounts
from relay.session.common.limits import OWN_IDS
from relay.session.realtime.client_tools import ClientTools
from relay.session.realtime.outgoing import EventIds
from relay.session.realtime.response_queue import ResponseQueue


def refused_event(body: Mapping[str, Any]) -> str | None:
    """The id of the event that an `error` answers, if it names one."""
    error = body.get("error")
    event_id = error.get("event_id") if isinstance(error, Mapping) else None
    return event_id if isinstance(event_id, str) else None


class UpstreamErrors:
    """The errors of one session's upstream; those of the relay's own events are counted in `ignored`."""

    def __init__(
        self, parts: ServerParts, tools: ClientTools, queue: ResponseQueue, ids: EventIds, ignored: IgnoredCounts
    ) -> None:
        self._parts = parts
        self._tools = tools
        self._queue = queue
        self._ids = ids
        self._ignored = ignored

    def rewrite(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        """An `error` as the client sees it, the same object if nothing changes, or None if it is not the client's."""
        error, event_id = body.get("error"), refused_event(body)
        if not isinstance(error, Mapping) or event_id is None:
            return self._parts.shown_error(body)
        names = self._tools.names_given_in(event_id)
        self._tools.update_refused(event_id)
        self._queue.refused(event_id, error.get("code"), now)
        if self._ids.is_stand_in(event_id):
            return self._parts.shown_error({**body, "error": {**error, "event_id": None}}, names)
        if event_id.startswith(OWN_IDS):
            self._ignored.count(f"error {error.get('code')!s:.60}")
            return None
        return self._parts.shown_error(body, names)
