"""The configuration of a Realtime session: the first, before the client has any influence, and the active one.

The session that a client secret carries, the policy's limits, and the server's instructions and tools must be active
before the first event of the client's. So `session.created` is held back until the upstream has taken them, and the
client sees one `session.created` that shows the result. Other events of the upstream wait meanwhile, up to `MAX_HELD`.
Without anything to configure, `session.created` goes to the client at once. Each `session.created` and
`session.updated` reports the settings that are active from then on; a setting that is left out stays as it was.
"""

from collections import OrderedDict, deque
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from audio.formats import PCM16_24K, REALTIME_FORMATS
from relay.json_types import JsonObject
from relay.session.realtime.events import UpstreamSaid
from relay.session.realtime.hidden_items import HiddenItems
from relay.session.realtime.outgoing import Outgoing
from relay.session.realtime.policy_rules import Denied
from relay.session.realtime.policy_table import check_session, with_limits
from relay.session.realtime.server_overlay import ServerParts, function_names

MAX_HELD = 64
"""Events of the upstream that may come between `session.created` and the answer to the first configuration."""
MAX_UPDATES = 256


class DeltaView:
    """How the client is shown deltas: set by the rules, read by the downlink for each of them.

    Deltas of audio and text come many times a second, and no rule looks into them: the downlink forwards them, and
    counts audio in the ledger. While events of the upstream's wait, deltas wait with them, in order. In a response of
    which some output is hidden, a delta's `output_index` is rewritten.
    """

    __slots__ = ("_hidden", "are_events", "bytes_per_ms", "hidden_outputs")

    def __init__(self, hidden: HiddenItems) -> None:
        self._hidden = hidden
        self.hidden_outputs: Sized = hidden.outputs
        """The responses under way whose deltas have to be rewritten: some output before them is hidden."""
        self.are_events = False
        """Whether deltas go to the rules: while events of the upstream's wait there, and after the session's end."""
        self.bytes_per_ms = PCM16_24K.bytes_per_ms

    def rewrite(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """A delta's event, given without its text, as the client sees it; the same object if nothing changes."""
        return self._hidden.renumbered(event)


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
        match session:
            case {"audio": {"output": {"format": {"type": str(kind)}}}} if kind in REALTIME_FORMATS:
                self._deltas.bytes_per_ms = REALTIME_FORMATS[kind].bytes_per_ms
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
