"""The first configuration of a Realtime session, before the client has any influence.

The session that a client secret carries, the policy's limits, and the server's instructions and tools must be active
before the first event of the client's. So `session.created` is held back until the upstream has taken them, and the
client sees one `session.created` that shows the result. Other events of the upstream wait meanwhile, up to `MAX_HELD`.
Without anything to configure, `session.created` goes to the client at once.
"""

from collections.abc import Mapping
from typing import Any

from relay.core.policy_rules import Denied
from relay.core.policy_table import check_session, with_limits
from relay.core.realtime_events import Obj, UpstreamSaid
from relay.core.server_parts import ServerParts
from relay.session.realtime.client_tools import ClientTools
from relay.session.realtime.outgoing import Outgoing
from relay.session.realtime.reserved_names import remove_reserved_names

MAX_HELD = 64
"""Events of the upstream that may come between `session.created` and the answer to the first configuration."""


class FirstConfiguration:
    """The first configuration of one session; `initial` is the session of the client's secret."""

    def __init__(
        self, initial: Mapping[str, Any] | None, parts: ServerParts, tools: ClientTools, out: Outgoing
    ) -> None:
        self._initial = initial
        self._parts = parts
        self._tools = tools
        self._out = out
        self._created: Mapping[str, Any] = {}
        self._request_id: str | None = None
        self._held: list[UpstreamSaid] = []
        self._refusals: list[Denied] = []

    def begin(self, created: Mapping[str, Any]) -> bool:
        """Send what must be active first, after `session.created`; False if that is nothing. Raises Denied."""
        session = session_of(created)
        self._parts.include_examples = session.get("engine") is not None
        settings = self._settings(session)
        if not settings:
            return False
        self._created = created
        self._request_id = self._out.request("session.update", session={"type": "realtime", **settings})
        return True

    def _settings(self, upstream_session: Mapping[str, Any]) -> Obj:
        # The secret's session is checked once more: the policy may have changed since it was made.
        given = check_session(self._initial, self._parts.policy)
        if given:
            self._refusals = remove_reserved_names(given, self._parts, "session")
            self._tools.use(given.get("tools"))
            given.pop("model", None)
        return self._parts.merge(with_limits(given, self._parts.policy, upstream_session), whole=True)

    def hold(self, event: UpstreamSaid) -> bool:
        """Keep an event until the session is ready. Returns False if too many wait already."""
        if len(self._held) >= MAX_HELD:
            return False
        self._held.append(UpstreamSaid(bytes(event.raw), event.body))
        return True

    def is_request(self, event_id: Any) -> bool:
        """Whether this is the id of the configuration's own event."""
        return event_id is not None and event_id == self._request_id

    def created(self, updated: Mapping[str, Any]) -> Obj:
        """The `session.created` for the client, once the upstream has answered with `session.updated`."""
        merged = {**session_of(self._created), **session_of(updated)}
        return {**self._created, "session": self._parts.shown(merged)}

    def take(self) -> tuple[list[Denied], list[UpstreamSaid]]:
        """What of the secret's session was refused, and the events that waited."""
        (refusals, self._refusals), (held, self._held) = (self._refusals, []), (self._held, [])
        return refusals, held


def session_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The session that an event of the upstream's reports, empty if it reports none."""
    session = event.get("session")
    return session if isinstance(session, Mapping) else {}
