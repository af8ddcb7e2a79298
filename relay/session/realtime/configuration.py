"""The configuration of a Realtime session: the first, before the client has any influence, and the active one.

The session that a client secret carries, the policy's limits, and the server's instructions and tools must be active
before the first event of the client's. So `session.created` is held back until the upstream has taken them, and the
client sees one `session.created` that shows the result. Other events of the upstream wait meanwhile, up to `MAX_HELD`.
Without anything to configure, `session.created` goes to the client at once. Each `session.created` and
`session.updated` reports the settings that are active from then on; a setting that is left out stays as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.core.policy_rules import Denied
from relay.core.policy_table import check_session, with_limits
from relay.core.realtime_events import UpstreamSaid
from relay.core.server_parts import ServerParts
from relay.json_types import JsonObject
from relay.session.realtime.client_tools import ClientTools
from relay.session.realtime.delta_view import DeltaView
from relay.session.realtime.outgoing import Outgoing

MAX_HELD = 64
"""Events of the upstream that may come between `session.created` and the answer to the first configuration."""


class ActiveSession:
    """What the rules need of the active settings; `requested_model` is the one of the client's URL."""

    def __init__(self, requested_model: str, deltas: DeltaView) -> None:
        self._requested_model = requested_model
        self._deltas = deltas
        self._model: Any = None
        self.creates_responses = True
        """Whether the upstream answers a spoken turn without a request."""
        self.has_idle_timeout = False
        """Whether the upstream begins responses when nobody speaks."""

    def is_active_model(self, model: Any) -> bool:
        """Whether this is the session's model, by the upstream's name or the client's."""
        return isinstance(model, str) and model in (self._requested_model, self._model)

    def learn(self, session: Mapping[str, Any]) -> None:
        """The upstream reports the session."""
        self._model = session.get("model", self._model)
        audio = session.get("audio")
        if not isinstance(audio, Mapping):
            return
        output_settings, input_settings = audio.get("output"), audio.get("input")
        if isinstance(output_settings, Mapping):
            self._deltas.learn(output_settings.get("format"))
        if isinstance(input_settings, Mapping) and "turn_detection" in input_settings:
            turn = input_settings["turn_detection"]
            turn = turn if isinstance(turn, Mapping) else {"create_response": False}
            self.creates_responses = turn.get("create_response") is not False
            self.has_idle_timeout = turn.get("idle_timeout_ms") is not None


@dataclass(slots=True)
class FirstConfiguration:
    """The first configuration of one session; `initial` is the session of the client's secret."""

    _initial: Mapping[str, Any] | None
    _parts: ServerParts
    _tools: ClientTools
    _out: Outgoing
    held: list[UpstreamSaid] = field(default_factory=list)
    """The events that wait until the session is ready."""
    refusals: list[Denied] = field(default_factory=list)
    """What of the secret's session was refused."""
    _created: Mapping[str, Any] = field(default_factory=dict)
    _request_id: str | None = None

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

    def _settings(self, upstream_session: Mapping[str, Any]) -> JsonObject:
        # The secret's session is checked once more: the policy may have changed since it was made.
        given = check_session(self._initial, self._parts.policy)
        if given:
            self.refusals = self._parts.remove_reserved_names(given, "session")
            self._tools.use(given.get("tools"))
            given.pop("model", None)
        return self._parts.merge(with_limits(given, self._parts.policy, upstream_session), whole=True)

    def hold(self, event: UpstreamSaid) -> bool:
        """Keep an event until the session is ready. Returns False if too many wait already."""
        if len(self.held) >= MAX_HELD:
            return False
        self.held.append(UpstreamSaid(bytes(event.raw), event.body))
        return True

    def is_refused_by(self, event: Mapping[str, Any]) -> bool:
        """Whether an `error` of the upstream's answers the configuration."""
        error = event.get("error")
        event_id = error.get("event_id") if isinstance(error, Mapping) else None
        return event_id is not None and event_id == self._request_id

    def created(self, updated: Mapping[str, Any]) -> JsonObject:
        """The `session.created` for the client, once the upstream has answered with `session.updated`."""
        merged = {**session_of(self._created), **session_of(updated)}
        return {**self._created, "session": self._parts.shown(merged)}


def session_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The session that an event of the upstream's reports, empty if it reports none."""
    session = event.get("session")
    return session if isinstance(session, Mapping) else {}
