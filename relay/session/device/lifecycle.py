"""The lifecycle of a device session: it becomes ready, is configured again, and ends.

    start ──session.created──► "configuring" ──session.updated──► "active": ready ──hello──► "configuring" ─► …
                                     └──error──► "refused": end

A change of the configuration is a `NegotiationStep`, which `apply` executes. When the session is ready, the client is
sent `AIConnected` once and `ready` for each hello. Then the held events are handled in the order in which they came.
`tick` applies the timeouts, and ends a session that has reached a limit. If a tool has requested the end, the session
ends when its last answer was played. `end` is the only way to end a session, and happens once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from relay.session.common.close_codes import CloseCode
from relay.session.common.graceful_end import GracefulEnd
from relay.session.common.session_state import SessionState
from relay.session.device import events as ev
from relay.session.device.commands import (
    CancelAllTools,
    CloseClient,
    CloseUpstream,
    Command,
    SendConnected,
    SendGoodbye,
)
from relay.session.device.endings import NOT_READY, SETTINGS_REFUSED, Ending, ending_for_limit
from relay.session.device.negotiation import Negotiation, NegotiationStep
from relay.session.device.turns import TurnController


@dataclass(slots=True)
class Lifecycle:
    """Moves one session from phase to phase. Commands go to `_emit`, and held events to `_dispatch`."""

    _session_id: str
    _state: SessionState
    _negotiation: Negotiation
    _turns: TurnController
    _emit: Callable[[Command], None]
    _dispatch: Callable[[ev.Event, float], None]
    graceful_end: GracefulEnd = field(default_factory=GracefulEnd)
    """The end that a tool has requested."""
    _idle_at_bytes: int = 0

    def apply(self, step: NegotiationStep, now: float) -> None:
        """Execute a step of the negotiation."""
        match step:
            case "none":
                pass
            case "chosen":
                self._turns.apply_config(self._negotiation.config)
            case "configuring":
                self._turns.user.hold_audio()
                self._state.configure()
            case "active":
                self._turns.apply_config(self._negotiation.config)
                self._become_ready(now)
            case "rolled_back":
                self._turns.apply_config(
                    self._negotiation.config
                )  # it may have been accepted while another was pending
                if self._turns.tts.speaker is not None:
                    self._turns.tts.speaker.cancel_fallback()  # the model's voice was refused
                self._become_ready(now)
            case "refused":
                self.end(SETTINGS_REFUSED)
            case _:
                assert_never(step)

    def _become_ready(self, now: float) -> None:
        was_ready = self._state.was_ready
        self._state.become_ready()
        if self._turns.tts.speaker is not None:
            self._turns.tts.speaker.stream.preconnect(now)  # before it is needed
        if not was_ready:
            self._emit(SendConnected(self._session_id, self._negotiation.options))
        self._negotiation.answer_hellos()
        for early in self._turns.user.release():
            self._dispatch(early, now)
        self._turns.request_due_response(now)

    def tick(self, now: float) -> None:
        """Handle the deadlines that have passed."""
        if not self._state.was_ready:
            if self._state.has_connect_timed_out(now):
                self.end(NOT_READY)
            return
        self.apply(self._negotiation.tick(now), now)
        self._note_activity(now)
        limit = self._state.limit_reached(now)
        if limit is not None:
            self.end(ending_for_limit(limit, self._state.limits))
            return
        self._turns.tick(now)
        if self._state.is_ready:
            self._turns.request_due_response(now)

    def _note_activity(self, now: float) -> None:
        position_bytes = self._turns.user.input_position_bytes
        is_active = position_bytes != self._idle_at_bytes or self._turns.has_pending_work
        self._idle_at_bytes = position_bytes
        quiet_since = self._turns.responses.last_upstream_at + self._turns.playback.unplayed_ms / 1000
        self._state.note_activity(now if is_active else min(quiet_since, now))  # also without acknowledgements

    def end_if_due(self, now: float) -> None:
        """End the session if a tool has requested that and all output has been played."""
        reason = self.graceful_end.reason
        if reason is None or not self._state.is_ready:
            return
        playback = self._turns.playback
        unplayed_ms = None if playback.is_idle else playback.unplayed_ms
        if self.graceful_end.is_due(now, has_pending_output=self._turns.has_pending_output, unplayed_ms=unplayed_ms):
            self.end(Ending(CloseCode.NORMAL_CLOSURE, reason, SendGoodbye(reason)))

    def end(self, ending: Ending) -> None:
        """End the session; further events have no effect."""
        if ending.final_message is not None:
            self._emit(ending.final_message)
        if ending.close_code is not None:
            self._emit(CloseClient(ending.close_code, ending.reason))
        self._emit(CancelAllTools())
        self._turns.end()
        self._emit(CloseUpstream())
        self._state.end()
