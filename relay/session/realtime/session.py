"""A session with a Realtime client. The client owns its turns; the relay adds the server's tools and the policy.

    client ──► policy, server overlay ──► upstream       `uplink_rewriter`
    client ◄── server overlay stripped ◄── upstream      `downlink_rewriter`

`handle(event, now)` is the whole interface: one event in, the resulting commands out. Events that no rule touches are
forwarded unchanged and in order, in both directions, including those of unknown types. Audio is not an event: uplink
and downlink count it in `ledger`, and forward deltas as `delta_forwarding` says.

This module dispatches events and runs the session's life cycle. `configuration` has its first step, `endings` its last,
and `turns` what lies between.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relay.session.common.close_codes import CloseCode
from relay.session.common.graceful_end import EstimatedGracefulEnd
from relay.session.common.input_control import InputControl
from relay.session.common.limits import FaultBudget, IgnoredCounts, SessionLimits
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import ToolSpec
from relay.session.common.policy import Principal
from relay.session.common.redact import close_reason
from relay.session.common.server_overlay import ServerOverlay
from relay.session.common.session_state import Phase, SessionState
from relay.session.common.turn_timers import TurnTimers
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime import endings
from relay.session.realtime import events as rt
from relay.session.realtime.command_buffer import INVALID_EVENT_ID_MESSAGE, CommandBuffer, is_valid_client_event_id
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
from relay.session.realtime.policy_rules import PolicyViolation
from relay.session.realtime.response_queue import ResponseQueue
from relay.session.realtime.turns import RealtimeTurns
from relay.session.realtime.uplink_rewriter import ClientEventRewriter

_TOO_FAST = {
    "audio": "The audio exceeds 2 MB or 600 events per second after a burst of 16 MB; the relay reads it more slowly.",
    "messages": "The events exceed 50 per second after a burst of 2,000; the relay reads them more slowly.",
}


class RealtimeSession:
    """One Realtime client's session. It is pure, so replaying the recorded events reproduces it exactly.

    `model` is the model in the client's URL, `initial` the session configured by its client secret.
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
        self._command_buffer = command_buffer = CommandBuffer(next_id)
        self._input_control = InputControl[rt.RealtimeClientEvent](command_buffer.add)
        self._settings = ActiveSettings(model, self.delta_forwarding)
        self._client_tools = ClientTools(self._overlay)
        cancellable = {tool.name for tool in tools if tool.cancel_on_interrupt}
        timers = TurnTimers()
        queue = ResponseQueue(command_buffer, cancellable, timers, self.ledger)
        self.turns = RealtimeTurns(self._settings, hidden, timers, queue)
        self._client_events = ClientEventRewriter(
            self._overlay, hidden, self._client_tools, self._settings, command_buffer
        )
        self._server_events = ServerEventRewriter(
            self._overlay, hidden, queue, self._client_tools, command_buffer, self.ignored
        )
        self._initial_configuration = InitialConfiguration(initial, self._overlay, self._client_tools, command_buffer)

    @property
    def deadline(self) -> float | None:
        """The time at which `DeadlineReached` must be dispatched; None if no timer is running."""
        return self.state.deadline(
            self.turns.timers.deadline, self.turns.queue.stall_deadline, self._graceful_end.deadline
        )

    # -- dispatch -----------------------------------------------------------------------------------------------------

    def handle(self, event: rt.RealtimeEvent, now: float) -> Sequence[rt.RealtimeCommand]:
        """Handle one event at `now` (seconds, monotonic clock) and return the resulting commands in order."""
        if self.state.has_ended:
            return ()
        if isinstance(event, rt.RealtimeClientEvent | rt.InvalidClientMessage):
            self.state.note_activity(now)
        self._dispatch(event, now)
        if self.state.is_ready and self._graceful_end.reason is not None:
            self._end_if_due(self._graceful_end.reason, now)
        self._input_control.set_gate("closed" if self.state.has_ended else "open" if self.state.is_ready else "held")
        return self._command_buffer.drain()

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
                self._command_buffer.send_rejection(None, "too_fast", _TOO_FAST[event.limit])
            case ev.ToolCallProgress() | ev.UpstreamOpened():
                pass  # no event reports progress, and an open upstream sends session.created
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
            self._reject_invalid_message(
                rt.InvalidClientMessage(INVALID_EVENT_ID_MESSAGE, "invalid_value", "event_id"), now
            )
        elif event.body.get("type") == rt.CONSENT_EVENT_TYPE:
            if type(event.body.get("granted")) is not bool:
                self._command_buffer.send_rejection(
                    event_id, "invalid_type", "granted must be true or false.", "granted"
                )
        elif self.state.is_ready:
            self._forward_client_event(event.body, now)
        elif not self._input_control.hold(event, self.ledger.input_bytes):
            message = "Too many events before the session is ready; wait for session.created."
            self._command_buffer.send_rejection(event_id, "too_many_events", message)

    def _forward_client_event(self, body: Mapping[str, Any], now: float) -> None:
        try:
            request = self._client_events.rewrite(body)
        except PolicyViolation as violation:
            self.ignored.count("(events refused)")
            self._command_buffer.send_rejection(body.get("event_id"), violation.code, str(violation), violation.param)
            return
        if isinstance(request, ResponseRequest):
            self.turns.queue.request_response(request, now)
            return
        if request["type"] == "conversation.item.truncate":
            self._graceful_end.on_playback_stopped()
        self._command_buffer.add(rt.SendToUpstream(request))
        self.turns.on_client_event(request)

    def _reject_invalid_message(self, message: rt.InvalidClientMessage, now: float) -> None:
        self._command_buffer.send_rejection(
            message.event_id, message.code or "invalid_value", message.message, message.param
        )
        if self._faults.spend(now):
            self._end(endings.TOO_MANY_FAULTS)

    # -- the upstream -------------------------------------------------------------------------------------------------

    def _on_server_event(self, event: rt.RealtimeServerEvent, now: float) -> None:
        event_type, was_ready = event.body.get("type"), self.state.is_ready
        if self.state.phase is Phase.CONFIGURING and event_type not in ("session.updated", "error"):
            if not self._initial_configuration.hold(event):
                self.ignored.count("(before the session was ready)")
            return
        rewritten = self._rewrite_server_event(event_type, event.body, now)
        if rewritten is event.body:
            self._command_buffer.add(rt.ForwardToClient(event.raw))
        elif rewritten is not None:
            self._command_buffer.add(rt.SendToClient(rewritten))
        if self.state.is_ready and not was_ready:
            self._release_held_events(now)

    def _rewrite_server_event(self, event_type: Any, body: Mapping[str, Any], now: float) -> Mapping[str, Any] | None:
        """Let the rules process a server event; returns the client's version, or None if it is hidden."""
        if event_type == "session.created" and self.state.phase is Phase.CONNECTING:
            return self._on_session_created(body)
        if event_type == "session.updated":
            self._settings.update(reported_session(body))
            if not self.state.is_ready:
                self._become_ready()
                return self._initial_configuration.client_session_created(body)
            self._client_tools.confirm_oldest_update()
        elif event_type == "error" and self._is_configuration_rejected(body):
            message = "The upstream rejected the server's session configuration."
            self._end(endings.SESSION_REFUSED._replace(message=message))
            return None
        elif event_type == "input_audio_buffer.speech_started":
            self._graceful_end.on_playback_stopped()
        rewritten = self._server_events.rewrite(body)
        self.turns.on_server_event(body, now)
        return rewritten

    def _is_configuration_rejected(self, error: Mapping[str, Any]) -> bool:
        return self.state.phase is Phase.CONFIGURING and self._initial_configuration.is_rejected_by(error)

    def _on_session_created(self, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        self._settings.update(reported_session(body))
        try:
            is_configured = not self._initial_configuration.begin(body)
        except PolicyViolation as violation:
            message = f"The session of the client secret is not allowed: {violation}"
            self._end(endings.SESSION_REFUSED._replace(message=message))
            return None
        if is_configured:
            self._become_ready()
            return body
        self.state.configure()
        self.delta_forwarding.is_suspended = True
        return None

    # -- life cycle ---------------------------------------------------------------------------------------------------

    def _become_ready(self) -> None:
        self.state.become_ready()
        self.delta_forwarding.is_suspended = False

    def _release_held_events(self, now: float) -> None:
        """Process the events held until the session was ready: the upstream's first, then the client's."""
        for violation in self._initial_configuration.violations:
            self._command_buffer.send_rejection(None, violation.code, str(violation), violation.param)
        for event in self._initial_configuration.held_events:
            self._on_server_event(event, now)
        if self.ledger.dropped_input_bytes:
            self.ignored["(early audio, bytes)"] = self.ledger.dropped_input_bytes
        for client_event in self._input_control.release():
            if self.state.is_ready:
                self._on_client_event(client_event, now)

    def _end_if_due(self, reason: str, now: float) -> None:
        unplayed_ms = self._graceful_end.unplayed_ms(now)
        if self._graceful_end.is_due(now, has_pending_output=self.turns.has_pending_work, unplayed_ms=unplayed_ms):
            self._end(endings.RealtimeEnding(CloseCode.NORMAL_CLOSURE, reason))

    def _end(self, ending: endings.RealtimeEnding) -> None:
        self.state.end()
        self.delta_forwarding.is_suspended = True
        if ending.error is not None:
            self._command_buffer.send_error(ending.error)
        self._command_buffer.add(cmd.CancelAllTools())
        if ending.close_code is not None:
            self._command_buffer.add(cmd.CloseClient(ending.close_code, close_reason(ending.reason)))
        self._command_buffer.add(cmd.CloseUpstream())
