"""The configuration of a Realtime session: the initial one, and the settings that are active now.

Some settings must be active before the client can have any influence: the session of its client secret, the limits of
its policy, and the server's overlay. Until the upstream has accepted them, `session.created` is held
back. The client then gets one `session.created` with the result. Other upstream events are held meanwhile, at most
`MAX_HELD_EVENTS`. With nothing to configure, `session.created` is forwarded at once.

Each `session.created` and `session.updated` reports the active settings. A setting that it leaves out is unchanged.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from audio.formats import PCM16_24K, REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.session.common.server_overlay import ServerOverlay, function_names
from relay.session.realtime.command_buffer import CommandBuffer
from relay.session.realtime.events import RealtimeServerEvent
from relay.session.realtime.hidden_items import HiddenItems
from relay.session.realtime.policy_rules import PolicyViolation
from relay.session.realtime.policy_table import apply_limits, check_session

MAX_HELD_EVENTS = 64
"""Upstream events that may arrive between `session.created` and the answer to the initial configuration."""
MAX_PENDING_UPDATES = 256


class DeltaForwarding:
    """How deltas are forwarded to the client: set by the rules, read by the downlink for every delta.

    Deltas of audio and text come many times a second, and no rule looks into them. The downlink forwards them itself
    and counts audio in the ledger. While the rules hold upstream events, deltas are held with them, in order. In a
    response with hidden output, the `output_index` of each delta is rewritten.
    """

    __slots__ = ("_hidden_items", "hidden_output_indexes", "is_suspended", "output_bytes_per_ms")

    def __init__(self, hidden: HiddenItems) -> None:
        self._hidden_items = hidden
        self.hidden_output_indexes: Sized = hidden.output_indexes
        """Active responses whose deltas need a new `output_index`, because an output before them is hidden."""
        self.is_suspended = False
        """Whether deltas are dispatched as events: while upstream events are held, and after the session's end."""
        self.output_bytes_per_ms = PCM16_24K.bytes_per_ms

    def rewrite(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a delta event (without its `delta` text) as the client sees it; the same object if nothing changes."""
        return self._hidden_items.renumber_output_index(event)


class ActiveSettings:
    """The active settings that the rules depend on; `requested_model` is the model in the client's URL."""

    def __init__(self, requested_model: str, delta_forwarding: DeltaForwarding) -> None:
        self._requested_model = requested_model
        self._delta_forwarding = delta_forwarding
        self._model: Any = None
        self.creates_responses = True
        """Whether the upstream responds to a spoken turn without a `response.create`."""
        self.has_idle_timeout = False
        """Whether the upstream creates responses while nobody speaks (`idle_timeout_ms`)."""

    def is_active_model(self, model: Any) -> bool:
        """Return whether this is the session's model, by the upstream's name or by the client's."""
        return isinstance(model, str) and model in (self._requested_model, self._model)

    def update(self, session: Mapping[str, Any]) -> None:
        """Apply the session that the upstream reports."""
        self._model = session.get("model", self._model)
        match session:
            case {"audio": {"output": {"format": {"type": str(format_type)}}}} if format_type in REALTIME_FORMATS:
                self._delta_forwarding.output_bytes_per_ms = REALTIME_FORMATS[format_type].bytes_per_ms
        match session:
            case {"audio": {"input": {"turn_detection": turn}}}:
                turn = turn if isinstance(turn, Mapping) else {"create_response": False}
                self.creates_responses = turn.get("create_response") is not False
                self.has_idle_timeout = turn.get("idle_timeout_ms") is not None


class _Update(NamedTuple):
    """A `session.update` of the client without an answer so far."""

    event_id: str
    sets_tools: bool
    tools: Any


class ClientTools:
    """The tools that the client sets for its session, while the upstream may still reject them.

    A `session.update` takes effect when it is sent, because calls of its tools may arrive before its answer. If the
    upstream rejects the update, the previous tools are active again, and later updates keep theirs. The upstream
    answers updates in order. Beyond `MAX_PENDING_UPDATES` the oldest update counts as accepted.

    The server's tools are in `overlay`, which needs the names of the client's.
    """

    def __init__(self, overlay: ServerOverlay) -> None:
        self._overlay = overlay
        self._confirmed_tools: Any = []
        self._updates: deque[_Update] = deque()
        self._quotable_names: OrderedDict[str, frozenset[str]] = OrderedDict()
        self.tools: Any = []
        """The tools that are active."""

    def set_initial(self, tools: Any) -> None:
        """Set the client's tools that the upstream has before any update."""
        self._confirmed_tools = tools
        self._activate()

    def record_update(self, event_id: str, session: Mapping[str, Any]) -> None:
        """Record a `session.update` of the client, before the server's tools are merged into it."""
        if len(self._updates) == MAX_PENDING_UPDATES:
            self.confirm_oldest_update()
        self._updates.append(_Update(event_id, "tools" in session, session.get("tools")))
        self.remember_names(event_id, session.get("tools"))
        self._activate()

    def confirm_oldest_update(self) -> None:
        """Make the oldest unanswered `session.update` active: the upstream accepted it."""
        if self._updates and (update := self._updates.popleft()).sets_tools:
            self._confirmed_tools = update.tools

    def reject_update(self, event_id: str) -> frozenset[str]:
        """Handle a rejected event; if it was a `session.update`, reactivate the previous tools.

        Returns the names of server tools that the client used for tools of its own in that event.
        """
        update = next((update for update in self._updates if update.event_id == event_id), None)
        if update is not None:
            self._updates.remove(update)
            self._activate()
        return self._quotable_names.get(event_id, frozenset())

    def _activate(self) -> None:
        newest_first = (update.tools for update in reversed(self._updates) if update.sets_tools)
        self.tools = next(newest_first, self._confirmed_tools) or []
        self._overlay.client_tool_names = function_names(self.tools)

    def remember_names(self, event_id: str, tools: Any) -> None:
        """Remember which tool names in a client event are also server tools: its error may quote them."""
        names = function_names(tools) & self._overlay.tools.keys()
        if names:
            self._quotable_names[event_id] = names
            if len(self._quotable_names) > MAX_PENDING_UPDATES:
                self._quotable_names.popitem(last=False)


@dataclass(slots=True)
class InitialConfiguration:
    """The initial configuration of one session; `initial` is the session of the client secret."""

    _initial: Mapping[str, Any] | None
    _overlay: ServerOverlay
    _client_tools: ClientTools
    _command_buffer: CommandBuffer
    held_events: list[RealtimeServerEvent] = field(default_factory=list)
    """Upstream events held until the session is ready."""
    violations: list[PolicyViolation] = field(default_factory=list)
    """What the policy does not allow in the client secret's session."""
    _upstream_session_created: Mapping[str, Any] = field(default_factory=dict)
    _request_id: str | None = None

    def begin(self, session_created: Mapping[str, Any]) -> bool:
        """Send the configuration that must be active first. Returns False if there is none. Raises PolicyViolation."""
        session = reported_session(session_created)
        self._overlay.include_examples = session.get("engine") is not None
        settings = self._initial_settings(session)
        if not settings:
            return False
        self._upstream_session_created = session_created
        self._request_id = self._command_buffer.send_relay_event(
            "session.update", session={"type": "realtime", **settings}
        )
        return True

    def _initial_settings(self, upstream_session: Mapping[str, Any]) -> JsonObject:
        # The secret's session is checked again: the policy may have changed since the secret was issued.
        settings = check_session(self._initial, self._overlay.policy)
        if settings:
            self.violations = self._overlay.remove_reserved_names(settings, "session")
            self._client_tools.set_initial(settings.get("tools"))
            settings.pop("model", None)
        return self._overlay.merge(apply_limits(settings, self._overlay.policy, upstream_session), include_absent=True)

    def hold(self, event: RealtimeServerEvent) -> bool:
        """Hold an event until the session is ready. Returns False if too many are held already."""
        if len(self.held_events) >= MAX_HELD_EVENTS:
            return False
        self.held_events.append(RealtimeServerEvent(bytes(event.raw), event.body))
        return True

    def is_rejected_by(self, event: Mapping[str, Any]) -> bool:
        """Return whether an upstream `error` answers the initial configuration."""
        error = event.get("error")
        event_id = error.get("event_id") if isinstance(error, Mapping) else None
        return event_id is not None and event_id == self._request_id

    def client_session_created(self, session_updated: Mapping[str, Any]) -> JsonObject:
        """Return the client's `session.created`, once the upstream has answered with `session.updated`."""
        merged_session = {**reported_session(self._upstream_session_created), **reported_session(session_updated)}
        return {**self._upstream_session_created, "session": self._overlay.strip_session(merged_session)}


def reported_session(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the session that an upstream event reports, empty if it has none."""
    session = event.get("session")
    return session if isinstance(session, Mapping) else {}
