"""The rules of a session with a device client: dispatches each event to the part that handles it.

`handle(event, now)` is the whole interface: it takes one event and returns the commands to execute. `deadline` is the
time for the next `DeadlineReached`. Audio does not come here: the downlink reads `discarded_responses`,
`started_parts` and `part_for_context`.

    client ────► Negotiation (hello), UserTurn, TurnController
    upstream ──► TurnController (the user's turn, responses); Negotiation and Lifecycle (everything else)
    voice ─────► TurnController
    relay ─────► TurnController, Lifecycle

Each event has its case in one `match`, and each `match` is complete: mypy finds an event without a case. Before the
session is ready, `UserTurn` holds the client's requests that concern the conversation.
"""

from collections.abc import Callable, Container, Sequence
from typing import assert_never, cast

from relay.session.common.limits import FaultBudget, IgnoredCounts, SessionLimits
from relay.session.common.media_ledger import MediaLedger
from relay.session.common.media_types import PartKey
from relay.session.common.model import DeviceOptions, ErrorCode, SessionConfig, TtsOptions
from relay.session.common.policy import Principal
from relay.session.common.server_overlay import ServerOverlay
from relay.session.common.session_state import SessionState
from relay.session.device import events as ev
from relay.session.device.commands import Command, SendError
from relay.session.device.endings import (
    BENIGN_ERROR_CODES,
    FATAL_ERROR_CODES,
    TOO_MANY_FAULTS,
    ending_for_event,
    strip_server_parts,
)
from relay.session.device.lifecycle import Lifecycle
from relay.session.device.negotiation import Negotiation
from relay.session.device.turns import TurnController
from relay.session.device.user_turn import EarlyEvent, UserTurn

_RATE_LIMITED_MESSAGES = {
    "audio": "Audio is sent faster than real time; the relay reads at most 1.2 × real time.",
    "messages": "Messages are sent too fast; the relay reads at most 50 a second.",
}


class DeviceSession:
    """The session of one device client. It does no I/O, so replaying the recorded events repeats it exactly."""

    def __init__(
        self,
        session_id: str,
        config: SessionConfig,
        options: DeviceOptions,
        next_id: Callable[[], str],
        *,
        principal: Principal | None = None,
        limits: SessionLimits | None = None,
        started_at: float = 0.0,
        tts_options: TtsOptions | None = None,
        ledger: MediaLedger | None = None,
    ) -> None:
        """`tts_options`: None if the relay has no external voices. `ledger`: the counts of uplink and downlink."""
        self.session_id = session_id
        self.principal = principal or Principal()
        policy = self.principal.policy
        self.ledger = ledger = ledger or MediaLedger(started_at)
        self.ignored = IgnoredCounts()
        self._commands: list[Command] = []
        emit = self._emit = self._commands.append
        self.state = state = SessionState(started_at, limits or SessionLimits())
        self._negotiation = negotiation = Negotiation(
            config, options, policy, tts_options, state, self.ignored, emit, next_id
        )
        user = UserTurn(state, negotiation, ledger, emit, next_id)
        self.turns = turns = TurnController(
            negotiation.config,
            tts_options,
            policy.allows_tool,
            user,
            ledger,
            emit,
            next_id,
            supports_truncation=options.capabilities.supports_truncation,
        )
        """Public for inspection only."""
        self._parts = ServerOverlay(policy.realtime, config.tools)
        self._faults = FaultBudget()
        self._lifecycle = Lifecycle(session_id, state, negotiation, turns, emit, self._dispatch)

    @property
    def options(self) -> DeviceOptions:
        """The active options of the client's side."""
        return self._negotiation.options

    @property
    def config(self) -> SessionConfig:
        """The configuration that is active upstream."""
        return self._negotiation.config

    @property
    def deadline(self) -> float | None:
        """The time for the next `DeadlineReached`; None if no timer is running."""
        graceful_end = self._lifecycle.graceful_end
        return self.state.deadline(self.turns.deadline, self._negotiation.deadline, graceful_end.deadline)

    @property
    def discarded_responses(self) -> Container[str]:
        """The responses whose audio is discarded; always the same object."""
        return self.turns.responses.discarded

    @property
    def started_parts(self) -> Container[PartKey]:
        """The content parts that have been started and may still be playing; always the same object."""
        return self.turns.playback.parts

    def part_for_context(self, context_id: str) -> PartKey | None:
        """Return the content part that a context of the external voice speaks; None if its audio is discarded."""
        return None if self.state.has_ended else self.turns.tts.part_for_context(context_id)

    def handle(self, event: ev.Event, now: float) -> Sequence[Command]:
        """Handle one event at `now`, in seconds of a monotonic clock. Returns the commands to execute, in order."""
        if self.state.has_ended:
            return ()
        if type(event) is ev.TextDelta:  # several a second, and they change nothing else
            self.turns.text_delta(event, now)
            return self._take_commands()
        self._dispatch(event, now)
        self._lifecycle.end_if_due(now)
        self.turns.user.set_gate()
        return self._take_commands()

    def _take_commands(self) -> Sequence[Command]:
        commands, self._commands[:] = list(self._commands), ()
        return commands

    def _dispatch(self, event: ev.Event, now: float) -> None:
        kind = type(event)
        if kind in ev.UPSTREAM_EVENTS:
            self._handle_upstream_event(strip_server_parts(cast(ev.UpstreamEvent, event), self._parts), now)
        elif kind in ev.CLIENT_EVENTS:
            self._handle_client_event(cast(ev.ClientEvent, event), now)
        elif kind in ev.TTS_EVENTS:
            self.turns.handle_tts_event(cast(ev.TtsEvent, event), now)
        else:
            self._handle_relay_event(cast(ev.RelayInternalEvent, event), now)
        if self.turns.should_fall_back and self.state.is_ready:
            self._lifecycle.apply(self._negotiation.fall_back(now), now)

    # -- the client ---------------------------------------------------------------------------------------------------

    def _handle_client_event(self, event: ev.ClientEvent, now: float) -> None:
        self.state.note_activity(now)
        if isinstance(event, EarlyEvent) and not self.state.is_ready:
            if not self.turns.user.hold_event(event):
                self._count_fault("too_many_turns", "Too many messages before AIConnected; wait for it.", None, now)
            return
        match event:
            case ev.Hello():
                self._on_hello(event, now)
            case ev.Playback():
                if self.turns.acknowledge_playback(event.item_id, event.played_ms, now) == "unknown":
                    self._count_fault("unknown_item", f"There is no audio item {event.item_id!r:.80}.", "itemId", now)
            case ev.ToolResult():
                if not self.turns.on_client_tool_result(event, now):
                    self._count_fault("unknown_call", f"There is no tool call {event.call_id!r:.80}.", "callId", now)
            case ev.UserText():
                self.turns.add_typed_turn(event.text, now)
            case ev.Commit():
                self.turns.user.commit()
            case ev.Clear():
                self.turns.user.clear()
            case ev.Interrupt():
                self.turns.interrupt()
            case ev.Consent():
                pass  # only the recorder uses it
            case ev.ClientProtocolError():
                self._count_fault(event.code, event.message, event.field, now)
            case ev.ClientRateLimited():
                self.ignored.count("(read more slowly)")
                self._send_error("too_fast", _RATE_LIMITED_MESSAGES[event.limit])
            case ev.Bye() | ev.ClientClosed() | ev.ClientBackpressure():
                self._lifecycle.end(ending_for_event(event))
            case _:
                assert_never(event)

    def _on_hello(self, event: ev.Hello, now: float) -> None:
        if self.ledger.input_bytes or self.turns.has_output:
            self._count_fault("hello_too_late", "Send hello before the first audio.", None, now)
        elif self._negotiation.is_full:
            self._count_fault("hello_refused", "Wait for ready before the next hello.", None, now)
        else:
            self._lifecycle.apply(self._negotiation.handle_hello(event, now), now)

    def _count_fault(self, code: ErrorCode, message: str, field: str | None, now: float) -> None:
        self._send_error(code, message, field)
        if self._faults.spend(now):
            self._lifecycle.end(TOO_MANY_FAULTS)

    # -- the upstream -------------------------------------------------------------------------------------------------

    def _handle_upstream_event(self, event: ev.UpstreamEvent, now: float) -> None:
        self.turns.responses.note_upstream_event(now)
        if isinstance(event, ev.UserEvent):
            self.turns.handle_user_event(event, now)
        elif isinstance(event, ev.ResponseEvent):
            self.turns.handle_response_event(event, now)
        else:
            self._handle_control_event(event, now)

    def _handle_control_event(self, event: ev.UpstreamControlEvent, now: float) -> None:
        match event:
            case ev.SessionCreated():
                self._lifecycle.apply(self._negotiation.on_session_created(event, now), now)
            case ev.SessionUpdated():
                self.turns.user.set_silence_duration(event.silence_ms or 0)
                self._lifecycle.apply(self._negotiation.on_session_updated(), now)
            case ev.UpstreamErrorEvent():
                self._on_upstream_error(event, now)
            case ev.UpstreamBackpressure(fatal=False):
                self._send_error("audio_backlog", "The upstream reads too slowly: some input audio was dropped.")
            case ev.UpstreamBackpressure() | ev.UpstreamRefused() | ev.UpstreamClosed():
                self._lifecycle.end(ending_for_event(event))
            case ev.IgnoredUpstreamEvent():
                if not event.is_known:
                    self.ignored.count(event.type)
            case ev.MalformedUpstreamMessage():
                self.ignored.count("(malformed)")
            case ev.UpstreamOpened() | ev.OutputItemAdded() | ev.ItemTruncated():
                pass  # nothing new: `session.created`, the item's events and our own truncation cover it
            case _:
                assert_never(event)

    def _on_upstream_error(self, event: ev.UpstreamErrorEvent, now: float) -> None:
        if event.code in FATAL_ERROR_CODES:
            self._lifecycle.end(ending_for_event(event))
        elif self.turns.on_upstream_error(event, now):
            pass
        elif (step := self._negotiation.on_upstream_error(event)) is not None:
            self._lifecycle.apply(step, now)
        elif self.turns.user.on_event_refused(event.event_id, event.message):
            pass
        elif event.code in BENIGN_ERROR_CODES:
            self.ignored.count(f"error {event.code}")
        else:
            self._send_error("upstream_error", event.message, event.param, retryable=True)

    # -- the relay ----------------------------------------------------------------------------------------------------

    def _handle_relay_event(self, event: ev.RelayInternalEvent, now: float) -> None:
        turns = self.turns
        match event:
            case ev.DeadlineReached():
                self._lifecycle.tick(now)
            case ev.FirstAudioSent():
                self.turns.user.mute()
                turns.timer.on_audio_sent(event.item_id, now)
            case ev.PlayoutFinished():
                self.turns.user.unmute()
            case ev.PlayoutCleared():
                self.turns.user.unmute()
                turns.on_playout_cleared(event, now)
            case ev.PlayoutOverflow():
                text = f"The client plays too slowly: {event.dropped_ms} ms of {event.item_id} were dropped."
                self._send_error("audio_backlog", text)
            case ev.ToolCallFinished():
                turns.on_tool_call_finished(event, now)
            case ev.ToolCallProgress():
                turns.tools.send_progress(event)
            case ev.EndSessionRequested():
                if turns.tools.calls.tool_name(event.call_id) is not None:
                    self._lifecycle.graceful_end.request(event.reason, now)
            case ev.ServerDraining() | ev.KeyRevoked() | ev.InternalFailure():
                self._lifecycle.end(ending_for_event(event))
            case _:
                assert_never(event)

    def _send_error(self, code: ErrorCode, message: str, field: str | None = None, *, retryable: bool = False) -> None:
        self._emit(SendError(code, message, field, retryable))
