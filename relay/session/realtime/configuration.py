"""The configuration of a Realtime session: the first, before the client has any influence, and the active one.

The session that a client secret carries, the policy's limits, and the server's instructions and tools must be active
before the first event of the client's. So `session.created` is held back until the upstream has taken them, and the
client sees one `session.created` that shows the result. Other events of the upstream wait meanwhile, up to
`MAX_HELD_EVENTS`. Without anything to configure, `session.created` goes to the client at once. Each `session.created`
and `session.updated` reports the settings that are active from then on; a setting that is left out stays as it was.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from audio.formats import PCM16_24K, REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.session.realtime.events import RealtimeServerEvent
from relay.session.realtime.hidden_items import HiddenItems
from relay.session.realtime.outgoing import CommandBuffer
from relay.session.realtime.policy_rules import PolicyViolation
from relay.session.realtime.policy_table import apply_limits, check_session
from relay.session.realtime.server_overlay import ServerOverlay, function_names

MAX_HELD_EVENTS = 64
"""Events of the upstream that may come between `session.created` and the answer to the first configuration."""
MAX_PENDING_UPDATES = 256


class DeltaForwarding:
    """How the client is shown deltas: set by the rules, read by the downlink for each of them.

    Deltas of audio and text come many times a second, and no rule looks into them: the downlink forwards them, and
    counts audio in the ledger. While events of the upstream's wait, deltas wait with them, in order. In a response of
    which some output is hidden, a delta's `output_index` is rewritten.
    """

    __slots__ = ("_hidden", "hidden_output_indexes", "is_suspended", "output_bytes_per_ms")

    def __init__(self, hidden: HiddenItems) -> None:
        self._hidden = hidden
        self.hidden_output_indexes: Sized = hidden.output_indexes
        """The responses under way whose deltas have to be rewritten: some output before them is hidden."""
        self.is_suspended = False
        """Whether deltas go to the rules: while events of the upstream's wait there, and after the session's end."""
        self.output_bytes_per_ms = PCM16_24K.bytes_per_ms

    def rewrite(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """A delta's event, given without its text, as the client sees it; the same object if nothing changes."""
        return self._hidden.renumber_output_index(event)


class ActiveSettings:
    """What the rules need of the active settings; `requested_model` is the one of the client's URL."""

    def __init__(self, requested_model: str, deltas: DeltaForwarding) -> None:
        self._requested_model = requested_model
        self._delta_forwarding = deltas
        self._model: Any = None
        self.creates_responses = True
        """Whether the upstream answers a spoken turn without a request."""
        self.has_idle_timeout = False
        """Whether the upstream begins responses when nobody speaks."""

    def is_active_model(self, model: Any) -> bool:
        """Whether this is the session's model, by the upstream's name or the client's."""
        return isinstance(model, str) and model in (self._requested_model, self._model)

    def update(self, session: Mapping[str, Any]) -> None:
        """The upstream reports the session."""
        self._model = session.get("model", self._model)
        match session:
            case {"audio": {"output": {"format": {"type": str(kind)}}}} if kind in REALTIME_FORMATS:
                self._delta_forwarding.output_bytes_per_ms = REALTIME_FORMATS[kind].bytes_per_ms
        match session:
            case {"audio": {"input": {"turn_detection": turn}}}:
                turn = turn if isinstance(turn, Mapping) else {"create_response": False}
                self.creates_responses = turn.get("create_response") is not False
                self.has_idle_timeout = turn.get("idle_timeout_ms") is not None


class _Update(NamedTuple):
    """A `session.update` of the client's that has no answer yet."""

    event_id: str
    sets_tools: bool
    tools: Any


class ClientTools:
    """The tools that the client sets for its session, while the upstream may still refuse them.

    A `session.update` counts when it is sent: calls by a tool's name may come before the answer. If the upstream
    refuses the update, the tools before it are active again, and later updates that set tools keep theirs. The upstream
    answers updates in order. Beyond the bounds the oldest update is forgotten, and counts as taken. The server's tools
    are in `parts`, which needs the client's names.
    """

    def __init__(self, parts: ServerOverlay) -> None:
        self._overlay = parts
        self._confirmed: Any = []
        self._updates: deque[_Update] = deque()
        self._names: OrderedDict[str, frozenset[str]] = OrderedDict()
        self.tools: Any = []
        """Those that are active."""

    def set_initial(self, tools: Any) -> None:
        """The upstream has these tools of the client's, before any update."""
        self._confirmed = tools
        self._activate()

    def record_update(self, event_id: str, session: Mapping[str, Any]) -> None:
        """The client sends a `session.update`, given without the server's tools."""
        if len(self._updates) == MAX_PENDING_UPDATES:
            self.confirm_oldest_update()
        self._updates.append(_Update(event_id, "tools" in session, session.get("tools")))
        self.remember_names(event_id, session.get("tools"))
        self._activate()

    def confirm_oldest_update(self) -> None:
        """The upstream has taken the oldest `session.update` that it has not answered yet."""
        if self._updates and (update := self._updates.popleft()).sets_tools:
            self._confirmed = update.tools

    def reject_update(self, event_id: str) -> frozenset[str]:
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
        self.tools = next(set_last, self._confirmed) or []
        self._overlay.client_tool_names = function_names(self.tools)

    def remember_names(self, event_id: str, tools: Any) -> None:
        """The client gives these tools in an event: names of the server's among them may be quoted in its error."""
        names = function_names(tools) & self._overlay.tools.keys()
        if names:
            self._names[event_id] = names
            if len(self._names) > MAX_PENDING_UPDATES:
                self._names.popitem(last=False)


@dataclass(slots=True)
class InitialConfiguration:
    """The first configuration of one session; `initial` is the session of the client's secret."""

    _initial: Mapping[str, Any] | None
    _overlay: ServerOverlay
    _client_tools: ClientTools
    _out: CommandBuffer
    held_events: list[RealtimeServerEvent] = field(default_factory=list)
    """The events that wait until the session is ready."""
    violations: list[PolicyViolation] = field(default_factory=list)
    """What of the secret's session was refused."""
    _created: Mapping[str, Any] = field(default_factory=dict)
    _request_id: str | None = None

    def begin(self, created: Mapping[str, Any]) -> bool:
        """Send what must be active first, after `session.created`; False if that is nothing. Raises Denied."""
        session = reported_session(created)
        self._overlay.include_examples = session.get("engine") is not None
        settings = self._settings(session)
        if not settings:
            return False
        self._created = created
        self._request_id = self._out.send_relay_event("session.update", session={"type": "realtime", **settings})
        return True

    def _settings(self, upstream_session: Mapping[str, Any]) -> JsonObject:
        # The secret's session is checked once more: the policy may have changed since it was made.
        given = check_session(self._initial, self._overlay.policy)
        if given:
            self.violations = self._overlay.remove_reserved_names(given, "session")
            self._client_tools.set_initial(given.get("tools"))
            given.pop("model", None)
        return self._overlay.merge(apply_limits(given, self._overlay.policy, upstream_session), include_absent=True)

    def hold(self, event: RealtimeServerEvent) -> bool:
        """Keep an event until the session is ready. Returns False if too many wait already."""
        if len(self.held_events) >= MAX_HELD_EVENTS:
            return False
        self.held_events.append(RealtimeServerEvent(bytes(event.raw), event.body))
        return True

    def is_rejected_by(self, event: Mapping[str, Any]) -> bool:
        """Whether an `error` of the upstream's answers the configuration."""
        error = event.get("error")
        event_id = error.get("event_id") if isinstance(error, Mapping) else None
        return event_id is not None and event_id == self._request_id

    def client_session_created(self, updated: Mapping[str, Any]) -> JsonObject:
        """The `session.created` for the client, once the upstream has answered with `session.updated`."""
        merged = {**reported_session(self._created), **reported_session(updated)}
        return {**self._created, "session": self._overlay.strip_session(merged)}


def reported_session(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The session that an event of the upstream's reports, empty if it reports none."""
    session = event.get("session")
    return session if isinstance(session, Mapping) else {}
