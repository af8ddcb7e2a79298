"""A session with a Realtime client: the client owns its turns, the relay adds the server's tools and the policy.

    client ──► policy, server's share ──► upstream      `uplink_rewriter`
    client ◄── without the server's share ◄── upstream  `downlink_rewriter`

`handle(event, now)` is the whole interface: one event in, the commands that follow from it out. What no rule touches
passes as it came, in order and in both directions, also events of unknown types. Audio does not come here: the audio
lines count it in `ledger`, and show deltas to the client by `deltas`. This module dispatches events and leads the
session through its life; `configuration` has its first step, `endings` the last, `turns` what is between.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relay.session.common.close_codes import CloseCode
from relay.session.common.graceful_end import EstimatedGracefulEnd
from relay.session.common.input_control import InputControl
from relay.session.common.life import Phase, SessionState
from relay.session.common.limits import FaultBudget, IgnoredCounts, SessionLimits
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import ToolSpec
from relay.session.common.policy import Principal
from relay.session.common.redact import close_reason
from relay.session.common.turn_timers import TurnTimers
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime import endings
from relay.session.realtime import events as rt
from relay.session.realtime.configuration import (
    ActiveSettings,
    ClientTools,
    DeltaForwarding,
    InitialConfiguration,
    reported_session,
)
from relay.session.realtime.downlink_rewriter import ServerEventRewriter
from relay.session.realtime.hidden_items import HiddenItems
from relay.session.realtime.open_requests import ResponseRequest
from relay.session.realtime.outgoing import INVALID_EVENT_ID, CommandBuffer, is_valid_client_event_id
from relay.session.realtime.policy_rules import PolicyViolation
from relay.session.realtime.response_queue import ResponseQueue
from relay.session.realtime.server_overlay import ServerOverlay
from relay.session.realtime.turns import RealtimeTurns
from relay.session.realtime.uplink_rewriter import ClientEventRewriter

_TOO_FAST = {
    "audio": "Over 16 MB of audio came faster than 2 MB or 600 events a second; it is read no faster.",
    "messages": "Over 2,000 events came faster than 50 a second; they are read no faster.",
}


class RealtimeSession:
    """One Realtime client's session; pure, so that a recording of its events replays it exactly.

    `model` is what the client requested in its URL, `initial` a session that its client secret configures.
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
        self.ledger = ledger or MediaLedger(started_at)
        self.ignored = IgnoredCounts()
        self.state = SessionState(started_at, limits)
        self._faults = FaultBudget()
        self._checked_input_bytes = 0
        self._graceful_end = EstimatedGracefulEnd(self.ledger)
        self._overlay = ServerOverlay(principal.policy.realtime, tools)
        hidden = HiddenItems()
        self.delta_forwarding = DeltaForwarding(hidden)
        self._out = out = CommandBuffer(next_id)
        self._input = InputControl[rt.RealtimeClientEvent](out.add)
        self._settings = ActiveSettings(model, self.delta_forwarding)
        self._client_tools = ClientTools(self._overlay)
        cancellable = {tool.name for tool in tools if tool.cancel_on_interrupt}
        timers = TurnTimers()
        queue = ResponseQueue(out, cancellable, timers, self.ledger)
        self.turns = RealtimeTurns(self._settings, hidden, timers, queue)
        self._client_events = ClientEventRewriter(self._overlay, hidden, self._client_tools, self._settings, out)
        self._server_events = ServerEventRewriter(self._overlay, hidden, queue, self._client_tools, out, self.ignored)
        self._initial_configuration = InitialConfiguration(initial, self._overlay, self._client_tools, out)

    @property
    def deadline(self) -> float | None:
        """When a `DeadlineReached` is wanted; None when nothing is waited for."""
        return self.state.deadline(
            self.turns.timers.deadline, self.turns.queue.stall_deadline, self._graceful_end.deadline
        )

    # -- one event ----------------------------------------------------------------------------------------------------

    def handle(self, event: rt.RealtimeEvent, now: float) -> Sequence[rt.RealtimeCommand]:
        """Take one event at `now` (seconds of a monotonic clock); returns what is to be done, in order."""
        if self.state.has_ended:
            return ()
        if isinstance(event, rt.RealtimeClientEvent | rt.InvalidClientMessage):
            self.state.note_activity(now)
        self._dispatch(event, now)
        if self.state.is_ready and self._graceful_end.reason is not None:
            self._end_if_due(self._graceful_end.reason, now)
        self._input.set_gate("closed" if self.state.has_ended else "open" if self.state.is_ready else "held")
        return self._out.drain()

    def _dispatch(self, event: rt.RealtimeEvent, now: float) -> None:
        match event:
            case rt.RealtimeServerEvent():
                self._on_server_event(event, now)
            case rt.RealtimeClientEvent():
                self._on_client_event(event, now)
            case rt.InvalidClientMessage():
                self.ignored.count("(events refused)")
                self._reject_invalid_message(event, now)
            case ev.ToolCallFinished():
                self.turns.queue.on_tool_finished(event.call_id, event.output, now)
            case ev.EndSessionRequested():
                if self.turns.queue.calls.tool_name(event.call_id) is not None:
                    self._graceful_end.request(event.reason, now)
            case ev.DeadlineReached():
                self._on_deadline(now)
            case ev.MalformedUpstreamMessage():
                self.ignored.count("(malformed)")
            case ev.ClientRateLimited():
                self.ignored.count("(read more slowly)")
                self._out.send_rejection(None, "too_fast", _TOO_FAST[event.limit])
            case ev.ToolCallProgress() | ev.UpstreamOpened():
                pass  # the protocol has no event for progress, and an upstream that is connected speaks first
            case _:
                self._end(endings.ending_for_event(event, self._overlay.redact))

    # -- time ---------------------------------------------------------------------------------------------------------

    def _on_deadline(self, now: float) -> None:
        if self.state.has_connect_timed_out(now):
            self._end(endings.NOT_READY)
        elif self.state.is_ready:
            if self.turns.has_pending_work or self.ledger.input_bytes != self._checked_input_bytes:
                self.state.note_activity(now)
                self._checked_input_bytes = self.ledger.input_bytes
            if (limit := self.state.limit_reached(now)) is not None:
                self._end(endings.ending_for_limit(limit, self.state.limits))
            else:
                self.turns.on_deadline(now)

    # -- the client ---------------------------------------------------------------------------------------------------

    def _on_client_event(self, event: rt.RealtimeClientEvent, now: float) -> None:
        event_id = event.body.get("event_id")
        if not is_valid_client_event_id(event_id):
            self._reject_invalid_message(rt.InvalidClientMessage(INVALID_EVENT_ID, "invalid_value", "event_id"), now)
        elif event.body.get("type") == rt.CONSENT_EVENT_TYPE:
            if type(event.body.get("granted")) is not bool:
                self._out.send_rejection(event_id, "invalid_type", "granted must be true or false.", "granted")
        elif self.state.is_ready:
            self._forward_client_event(event.body, now)
        elif not self._input.hold(event, self.ledger.input_bytes):
            self._out.send_rejection(event_id, "too_many_events", "Too many events before the session is ready; wait.")

    def _forward_client_event(self, body: Mapping[str, Any], now: float) -> None:
        try:
            request = self._client_events.rewrite(body)
        except PolicyViolation as denied:
            self.ignored.count("(events refused)")
            self._out.send_rejection(body.get("event_id"), denied.code, str(denied), denied.param)
            return
        if isinstance(request, ResponseRequest):
            self.turns.queue.request_response(request, now)
            return
        if request["type"] == "conversation.item.truncate":
            self._graceful_end.playback_stopped()
        self._out.add(rt.SendToUpstream(request))
        self.turns.on_client_event(request)

    def _reject_invalid_message(self, fault: rt.InvalidClientMessage, now: float) -> None:
        self._out.send_rejection(fault.event_id, fault.code or "invalid_value", fault.message, fault.param)
        if self._faults.spend(now):
            self._end(endings.TOO_MANY_FAULTS)

    # -- the upstream -------------------------------------------------------------------------------------------------

    def _on_server_event(self, event: rt.RealtimeServerEvent, now: float) -> None:
        kind, was_ready = event.body.get("type"), self.state.is_ready
        if self.state.phase is Phase.CONFIGURING and kind not in ("session.updated", "error"):
            if not self._initial_configuration.hold(event):
                self.ignored.count("(before the session was ready)")
            return
        shown = self._rewrite_server_event(kind, event.body, now)
        if shown is event.body:
            self._out.add(rt.ForwardToClient(event.raw))
        elif shown is not None:
            self._out.add(rt.SendToClient(shown))
        if self.state.is_ready and not was_ready:
            self._release_held_events(now)

    def _rewrite_server_event(self, kind: Any, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        """An event as the client sees it, once the rules have taken it in."""
        if kind == "session.created" and self.state.phase is Phase.CONNECTING:
            return self._on_session_created(body)
        if kind == "session.updated":
            self._settings.update(reported_session(body))
            if not self.state.is_ready:
                self._become_ready()
                return self._initial_configuration.client_session_created(body)
            self._client_tools.confirm_oldest_update()
        elif (
            kind == "error"
            and self.state.phase is Phase.CONFIGURING
            and self._initial_configuration.is_rejected_by(body)
        ):
            text = "The model's end did not take the server's configuration of the session."
            self._end(endings.SESSION_REFUSED._replace(message=text))
            return None
        elif kind == "input_audio_buffer.speech_started":
            self._graceful_end.playback_stopped()
        shown = self._server_events.rewrite(body)
        self.turns.on_server_event(body, now)
        return shown

    def _on_session_created(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        self._settings.update(reported_session(body))
        try:
            is_configured = not self._initial_configuration.begin(body)
        except PolicyViolation as denied:
            self._end(endings.SESSION_REFUSED._replace(message=f"The session of this client secret: {denied}"))
            return None
        if is_configured:
            self._become_ready()
            return body
        self.state.configure()
        self.delta_forwarding.is_suspended = True
        return None

    # -- life ---------------------------------------------------------------------------------------------------------

    def _become_ready(self) -> None:
        self.state.become_ready()
        self.delta_forwarding.is_suspended = False

    def _release_held_events(self, now: float) -> None:
        """The session is ready: what came in the meantime happens now, first the upstream's, then the client's."""
        for denied in self._initial_configuration.violations:
            self._out.send_rejection(None, denied.code, str(denied), denied.param)
        for event in self._initial_configuration.held_events:
            self._on_server_event(event, now)
        if self.ledger.dropped_input_bytes:
            self.ignored["(early audio, bytes)"] = self.ledger.dropped_input_bytes
        for early in self._input.release():
            if self.state.is_ready:
                self._on_client_event(early, now)

    def _end_if_due(self, reason: str, now: float) -> None:
        unplayed_ms = self._graceful_end.unplayed_ms(now)
        if self._graceful_end.is_due(now, has_pending_output=self.turns.has_pending_work, unplayed_ms=unplayed_ms):
            self._end(endings.RealtimeEnding(CloseCode.NORMAL_CLOSURE, reason))

    def _end(self, end: endings.RealtimeEnding) -> None:
        self.state.end()
        self.delta_forwarding.is_suspended = True
        if end.error is not None:
            self._out.send_error(end.error)
        self._out.add(cmd.CancelAllTools())
        if end.close_code is not None:
            self._out.add(cmd.CloseClient(end.close_code, close_reason(end.reason)))
        self._out.add(cmd.CloseUpstream())
