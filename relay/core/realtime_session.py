"""A session with a Realtime client: the client owns its turns, the relay owns tools and policy.

`handle(event, now)` is the whole interface: one event in, the commands that follow from it out. What no rule touches
goes on as it came, in order and in both directions, event types that nobody has heard of included. What the client may
say is the business of `relay.core.realtime_requests`, what it is shown that of `relay.core.realtime_view`; here is the
session's own life, from the dial to the close. Everything a rule changes is written anew.
"""

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, assert_never

from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.hidden import HiddenItems
from relay.core.parting import Parting
from relay.core.policy import Principal
from relay.core.policy_table import Denied, check_session, with_limits
from relay.core.realtime_events import (
    CONSENT,
    ClientBabbled,
    ClientSaid,
    Obj,
    PassDown,
    RealtimeCommand,
    RealtimeEvent,
    TellClient,
    TellUpstream,
    UpstreamSaid,
)
from relay.core.realtime_requests import ClientRequests
from relay.core.realtime_turns import RealtimeTurns
from relay.core.realtime_view import ClientView
from relay.core.redact import close_reason
from relay.core.server_parts import ServerParts
from relay.core.values import ToolSpec
from relay.session.common.early_events import EarlyEvents
from relay.session.common.limits import CONNECT_TIMEOUT_S, FAULT_WINDOW_S, KEY_REVOKED, MAX_FAULTS, SessionLimits
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import InputGate
from relay.session.realtime.delta_view import DeltaView

OWN_IDS = "relay_"
"""How the ids of the relay's own events begin; a client may not use such ids, and is not told of their errors."""
MAX_EVENT_ID_CHARS = 512
MAX_HELD = 64
"""Events of the upstream that may come between `session.created` and the answer to the first configuration."""

UNTOUCHED = frozenset(
    {
        "response.output_audio.delta",
        "response.output_audio_transcript.delta",
        "response.output_text.delta",
        "conversation.item.input_audio_transcription.delta",
    }
)
"""What comes many times a second: it goes by the downlink, and no rule looks into it."""

_TOO_FAST = {
    "audio": "Over 16 MB of audio came faster than 2 MB or 600 events a second; it is read no faster.",
    "messages": "Over 2,000 events came faster than 50 a second; they are read no faster.",
}
_STALLED = "This message took too long to arrive while other clients waited for buffer space; send it again later."

PASSED_CLOSES = frozenset({1000, 1001, 1008, 1009, 1012, 1013})
"""Close codes of the upstream that mean the same to the client; those from 3000 are applications' own and pass too."""


class Phase(Enum):
    """Where the session stands."""

    CONNECTING = "connecting"
    CONFIGURING = "configuring"
    READY = "ready"
    ENDED = "ended"


class RealtimeSession:
    """One Realtime client's session; pure, so that a journal of its events replays it exactly.

    `model` is what the client asked for in its URL, `initial` a session that its client secret configures.
    """

    def __init__(
        self,
        session_id: str,
        principal: Principal,
        tools: Sequence[ToolSpec],
        next_id: Callable[[], str],
        *,
        model: str = "",
        initial: Mapping[str, Any] | None = None,
        limits: SessionLimits = SessionLimits(),  # noqa: B008  # frozen
        started_at: float = 0.0,
        ledger: MediaLedger | None = None,
    ) -> None:
        self.session_id = session_id
        self.principal = principal
        self.phase = Phase.CONNECTING
        self.passed_over: dict[str, int] = {}
        self.was_ready = False
        """Whether the client has had a session."""
        self._policy = principal.policy.realtime
        self._numbers = next_id
        self._shown_numbers = itertools.count(1)
        self._initial = initial
        self._limits = limits
        self._started_at = self._active_at = started_at
        self._quiet_bytes = 0
        self._connect_by = started_at + CONNECT_TIMEOUT_S
        self._commands: list[RealtimeCommand] = []
        self._parts = ServerParts(self._policy, tools)
        self._hidden = HiddenItems()
        self.deltas = DeltaView(self._hidden)
        """How the downlink shows deltas to the client."""
        cancellable = {tool.name for tool in tools if tool.cancel_on_interrupt}
        self.ledger = ledger or MediaLedger(started_at)
        self.turns = RealtimeTurns(self._commands.append, self._next_id, self._refuse_create, self.ledger, cancellable)
        self._parting = Parting(self.ledger)
        self._view = ClientView(self._parts, self._hidden, self.turns)
        self._requests = ClientRequests(
            self._policy,
            self._parts,
            self._hidden,
            self.turns,
            self._parting,
            self._commands.append,
            self._next_id,
            lambda: f"call_{self._next_shown_id()}",
            model,
        )
        self._early: EarlyEvents[ClientSaid] = EarlyEvents()
        self._gate: InputGate = "held"
        self._created: Mapping[str, Any] | None = None
        self._held: list[UpstreamSaid] = []
        self._has_become_ready = False
        self._configure_id: str | None = None
        self._early_refusals: list[Denied] = []
        self._faults: deque[float] = deque(maxlen=MAX_FAULTS)

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When a `Tick` is wanted; None when nothing is waited for."""
        if self.phase in (Phase.CONNECTING, Phase.CONFIGURING):
            return self._connect_by
        if self.phase is not Phase.READY:
            return None
        times = (
            self.turns.deadline,
            self._parting.deadline,
            self._limits.ends_at(self._started_at),
            self._limits.idle_at(self._active_at),
        )
        return min((time for time in times if time is not None), default=None)

    # -- one event ----------------------------------------------------------------------------------------------------

    def handle(self, event: RealtimeEvent, now: float) -> Sequence[RealtimeCommand]:
        """Take one event at `now` (seconds of a monotonic clock) and say what is to be done, in order."""
        if self.phase is Phase.ENDED:
            return ()
        if isinstance(event, ClientSaid | ClientBabbled):
            self._active_at = now
        self._dispatch(event, now)
        if self._parting.is_asked and self.phase is Phase.READY and self._parting.is_due(self.turns, now):
            self._end(1000, self._parting.reason)
        self._set_gate()
        commands, self._commands[:] = list(self._commands), ()
        return commands

    def _dispatch(self, event: RealtimeEvent, now: float) -> None:
        match event:
            case UpstreamSaid():
                self.turns.heard = True
                self._upstream(event, now)
            case ClientSaid():
                self._client(event, now)
            case ClientBabbled():
                self._pass_over("(events refused)")
                self._fault(event, now)
            case ev.ToolReturned():
                self.turns.tool_returned(event.call_id, event.output, now)
            case ev.EndAsked():
                if self.turns.calls.name_of(event.call_id) is not None:
                    self._parting.ask(event.reason, now)
            case ev.Tick():
                self._tick(now)
            case ev.MalformedUpstream():
                self._pass_over("(malformed)")
            case ev.ClientTooFast():
                self._pass_over("(read more slowly)")
                self._refuse(None, "too_fast", _TOO_FAST[event.what])
            case ev.ToolProgressed():
                pass  # nothing in the protocol could say it
            case _:
                self._ending(event)

    def _ending(
        self,
        event: ev.ClientClosed
        | ev.ClientStuck
        | ev.MessageStalled
        | ev.UpstreamOpened
        | ev.UpstreamRefused
        | ev.UpstreamClosed
        | ev.UpstreamStuck
        | ev.Draining
        | ev.KeyRevoked
        | ev.Crashed,
    ) -> None:
        match event:
            case ev.UpstreamOpened():
                pass  # it speaks first
            case ev.ClientClosed():
                self._end(None, "")
            case ev.ClientStuck():
                self._end(4003, "the client does not read")
            case ev.MessageStalled():
                self._tell_error({"type": "invalid_request_error", "code": "message_too_slow", "message": _STALLED})
                self._end(1013, "a message took too long to arrive")
            case ev.UpstreamRefused():
                self._give_up("upstream_refused", event.message, "the upstream refused the connection")
            case ev.UpstreamClosed():
                self._upstream_closed(event)
            case ev.UpstreamStuck():
                self._give_up("upstream_stalled", "The model's end does not take what it is sent.", "upstream stalled")
            case ev.Draining():
                self._end(1001, event.reason)
            case ev.KeyRevoked():
                self._tell_error({"type": "invalid_request_error", "code": "key_revoked", "message": KEY_REVOKED})
                self._end(1008, "the key was revoked")
            case ev.Crashed():
                self._give_up("internal_error", "The relay failed in this session; reconnect.", "internal error")
            case _:
                assert_never(event)

    def _tick(self, now: float) -> None:
        if self.phase is Phase.READY:
            if not self._is_over_limit(now):
                self.turns.tick(now)
        elif now >= self._connect_by:
            self._give_up("upstream_timeout", "The model's end did not get ready in time.", "upstream timeout")

    def _is_over_limit(self, now: float) -> bool:
        """End a session that has lasted, or been idle, too long; returns whether it was."""
        if self.turns.is_owed or self.ledger.input_bytes != self._quiet_bytes:
            self._active_at, self._quiet_bytes = now, self.ledger.input_bytes
        if (ends_at := self._limits.ends_at(self._started_at)) is not None and now >= ends_at:
            text = f"A session may last {self._limits.max_duration_s:.0f} s; reconnect to go on."
            self._end_at_limit("session_limit", text, "session too long")
        elif (idle_at := self._limits.idle_at(self._active_at)) is not None and now >= idle_at:
            text = f"No event came and no response ran for {self._limits.max_idle_s:.0f} s; reconnect to go on."
            self._end_at_limit("session_idle", text, "idle")
        return self.phase is Phase.ENDED

    def _end_at_limit(self, code: str, message: str, reason: str) -> None:
        self._tell_error({"type": "invalid_request_error", "code": code, "message": message})
        self._end(4002, reason)

    # -- the client ---------------------------------------------------------------------------------------------------

    def _client(self, event: ClientSaid, now: float) -> None:
        event_id = event.body.get("event_id")
        if event_id is not None and (
            not isinstance(event_id, str) or len(event_id) > MAX_EVENT_ID_CHARS or event_id.startswith(OWN_IDS)
        ):
            text = f"event_id must be a string of at most {MAX_EVENT_ID_CHARS} characters, not beginning '{OWN_IDS}'."
            self._fault(ClientBabbled(text, "invalid_value", "event_id"), now)
            return
        if event.body.get("type") == CONSENT:
            if type(event.body.get("granted")) is not bool:
                self._refuse(event_id, "invalid_type", "granted must be true or false.", "granted")
            return
        if self.phase is not Phase.READY:
            if not self._early.add(event, self.ledger.input_bytes):
                self._refuse(event_id, "too_many_events", "Too many events before the session is ready; wait.")
            return
        try:
            self._requests.take(event.body, now)
        except Denied as denied:
            self._pass_over("(events refused)")
            self._refuse(event_id, denied.code, str(denied), denied.param)

    # -- the upstream -------------------------------------------------------------------------------------------------

    def _upstream(self, event: UpstreamSaid, now: float) -> None:
        body = event.body
        if self.phase is Phase.CONFIGURING and body.get("type") not in ("session.updated", "error"):
            if len(self._held) < MAX_HELD:
                self._held.append(UpstreamSaid(bytes(event.raw), body))
            else:
                self._pass_over("(before the session was ready)")
            return
        kind = body.get("type")
        rule = _DOWN.get(kind) if isinstance(kind, str) else None
        shown = self._view.shown(body, now) if rule is None else rule(self, body, now)
        if kind == "input_audio_buffer.speech_started":
            self._parting.silenced()
        if shown is not None and self._hidden.outputs:
            shown = self._hidden.renumbered(shown)
        if shown is body:
            self._commands.append(PassDown(event.raw))
        elif shown is not None:
            self._commands.append(TellClient(shown))
        if self._has_become_ready:
            self._has_become_ready = False
            self._replay(now)

    def _down_session_created(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        session = body.get("session")
        if self.phase is not Phase.CONNECTING:
            return self._down_session(body, now)
        session = session if isinstance(session, Mapping) else {}
        self._learn(session)
        self._parts.teach = session.get("engine") is not None
        try:
            first = self._first_configuration(session)
        except Denied as denied:
            self._give_up("session_refused", f"The session of this client secret: {denied}", "session refused")
            return None
        if first is None:
            self._become_ready()
            return body
        self.phase = Phase.CONFIGURING
        self.deltas.are_events = True
        self._created = body
        self._configure_id = self._next_id()
        self._commands.append(
            TellUpstream({"type": "session.update", "event_id": self._configure_id, "session": first})
        )
        return None

    def _become_ready(self) -> None:
        self.phase = Phase.READY
        self.deltas.are_events = False
        self._has_become_ready = self.was_ready = True

    def _first_configuration(self, upstream_session: Mapping[str, Any]) -> Obj | None:
        """What must be in force before the client's first word, if anything. Raises Denied.

        What a client secret carries is checked once more: the policy may have changed since it was made.
        """
        given = check_session(self._initial, self._policy)
        if given:
            self._early_refusals = self._requests.remove_reserved_names(given)
            self._requests.uses_tools(given.get("tools"))
            given.pop("model", None)
        first = self._parts.merge(with_limits(given, self._policy, upstream_session), whole=True)
        return {"type": "realtime", **first} if first else None

    def _down_session_updated(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        session = body.get("session")
        if isinstance(session, Mapping):
            self._learn(session)
        if self.phase is Phase.READY:
            self._requests.update_taken()
            return self._down_session(body, now)
        created = self._created or {}
        known = created.get("session")
        merged = {**(known if isinstance(known, Mapping) else {}), **(session if isinstance(session, Mapping) else {})}
        self._become_ready()
        return {**created, "session": self._parts.shown(merged)}

    def _down_session(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any]:
        session = body.get("session")
        if not isinstance(session, Mapping):
            return body
        shown = self._parts.shown(session)
        return body if shown is session else {**body, "session": shown}

    def _learn(self, session: Mapping[str, Any]) -> None:
        """Who answers a spoken turn: turn detection says so, its default is the upstream. And its audio and model."""
        self._requests.model_in_force = session.get("model", self._requests.model_in_force)
        audio = session.get("audio")
        given, taken = (audio.get(way) for way in ("input", "output")) if isinstance(audio, Mapping) else (None, None)
        if isinstance(taken, Mapping):
            self.deltas.learn(taken.get("format"))
        if isinstance(given, Mapping) and "turn_detection" in given:
            turn = given["turn_detection"]
            turn = turn if isinstance(turn, Mapping) else {"create_response": False}
            self.turns.upstream_creates = turn.get("create_response") is not False
            self.turns.upstream_has_idle_timeout = turn.get("idle_timeout_ms") is not None

    def _replay(self, now: float) -> None:
        """The session is ready: what came in the meantime happens now, first the upstream's, then the client's."""
        refusals, self._early_refusals = self._early_refusals, []
        for refusal in refusals:
            self._refuse(None, refusal.code, str(refusal), refusal.param)
        held, self._held = self._held, []
        for event in held:
            self._upstream(event, now)
        if self.ledger.dropped_input_bytes:
            self.passed_over["(early audio, bytes)"] = self.ledger.dropped_input_bytes
        released_bytes = 0
        for input_bytes, early in self._early.take():
            if input_bytes > released_bytes:
                self._commands.append(cmd.ReleaseInput(input_bytes))
                released_bytes = input_bytes
            if self.phase is Phase.READY:
                self._dispatch(early, now)
        self._set_gate()

    def _down_error(self, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        """The upstream's own errors pass; those that answer the relay's events are the relay's to deal with (D7)."""
        error = body.get("error")
        event_id = error.get("event_id") if isinstance(error, Mapping) else None
        if not isinstance(error, Mapping) or not isinstance(event_id, str):
            return self._parts.shown_error(body)
        if event_id == self._configure_id and self.phase is Phase.CONFIGURING:
            text = "The model's end did not take the server's configuration of the session."
            self._give_up("session_refused", text, "session refused")
            return None
        said = self._requests.names_given_in(event_id)
        self._requests.update_refused(event_id)
        self.turns.request_refused(event_id, error.get("code"), now)
        if self._requests.is_stand_in(event_id):
            return self._parts.shown_error({**body, "error": {**error, "event_id": None}}, said)
        if event_id.startswith(OWN_IDS):
            self._pass_over(f"error {error.get('code')!s:.60}")
            return None
        return self._parts.shown_error(body, said)

    # -- errors and ends ----------------------------------------------------------------------------------------------

    def _refuse(self, event_id: Any, code: str, message: str, param: str | None = None) -> None:
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": param}
        self._tell_error({**error, "event_id": event_id if isinstance(event_id, str) else None})

    def _refuse_create(self, event_id: str, code: str, message: str) -> None:
        self._refuse(None if self._requests.is_stand_in(event_id) else event_id, code, message)

    def _next_id(self) -> str:
        return OWN_IDS + self._numbers()

    def _next_shown_id(self) -> str:
        """An id that the client sees: counted apart, or its number would tell how much goes on unseen."""
        return f"{OWN_IDS}shown_{next(self._shown_numbers)}"

    def _tell_error(self, error: Obj) -> None:
        self._commands.append(TellClient({"type": "error", "event_id": self._next_shown_id(), "error": error}))

    def _fault(self, fault: ClientBabbled, now: float) -> None:
        self._refuse(fault.event_id, fault.code or "invalid_value", fault.message, fault.param)
        self._faults.append(now)
        if len(self._faults) == MAX_FAULTS and now - self._faults[0] < FAULT_WINDOW_S:
            self._end(1008, f"{MAX_FAULTS} faults in a minute")

    def _upstream_closed(self, event: ev.UpstreamClosed) -> None:
        if event.code in PASSED_CLOSES or 3000 <= event.code < 5000:
            self._end(event.code, self._parts.cut(event.reason))
            return
        reason = self._parts.cut(event.reason) or "upstream closed"
        self._give_up("upstream_closed", "The model's end broke off the connection.", reason)

    def _give_up(self, code: str, message: str, reason: str) -> None:
        """An end that the client did not bring about: first an `error`, then the close (D6)."""
        self._tell_error({"type": "server_error", "code": code, "message": message, "param": None, "event_id": None})
        self._end(1011, reason)

    def _end(self, code: int | None, reason: str) -> None:
        self.phase = Phase.ENDED
        self.deltas.are_events = True
        self._commands.append(cmd.CancelTools())
        if code is not None:
            self._commands.append(cmd.CloseClient(code, close_reason(reason)))
        self._commands.append(cmd.CloseUpstream())

    def _set_gate(self) -> None:
        """Tell the uplink what becomes of the client's audio, if that has changed."""
        gate: InputGate = "closed" if self.phase is Phase.ENDED else "open" if self.phase is Phase.READY else "held"
        if gate != self._gate:
            self._gate = gate
            self._commands.append(cmd.SetInputGate(gate))

    def _pass_over(self, what: str) -> None:
        if what in self.passed_over or len(self.passed_over) < 64:
            self.passed_over[what] = self.passed_over.get(what, 0) + 1


_Rule = Callable[[RealtimeSession, Mapping[str, Any], float], Mapping[str, Any] | None]
_S = RealtimeSession
_DOWN: dict[str, _Rule] = {
    "session.created": _S._down_session_created,
    "session.updated": _S._down_session_updated,
    "error": _S._down_error,
}
"""What moves the session itself on its way down; `ClientView` has the rest."""
