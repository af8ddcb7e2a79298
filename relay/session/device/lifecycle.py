"""How a device session becomes ready, is configured again, and ends.

    start ──session.created──► "configuring" ──session.updated──► "in_force": ready ──hello──► "configuring" ─► …
                                     └──error──► "refused": end

Whoever changes the configuration gives the `NegotiationStep` to `follow`. When the session is ready, the client is sent
`AIConnected` once and `ready` for each hello; then what waited is handled in the order in which it came. `tick` gives
up what takes too long, and ends a session that has reached a limit. A session that a tool has requested to end does so
when its last answer was heard. `end` is the only way out, and is taken once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import assert_never

from relay.session.common.close_codes import CloseCode
from relay.session.common.graceful_end import GracefulEnd
from relay.session.common.life import SessionState
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
    """Takes one session from step to step; commands go to `_emit`, and events that waited to `_dispatch`."""

    _session_id: str
    _life: SessionState
    _negotiation: Negotiation
    _turns: TurnController
    _emit: Callable[[Command], None]
    _dispatch: Callable[[ev.Event, float], None]
    graceful_end: GracefulEnd = field(default_factory=GracefulEnd)
    """The end that a tool has requested."""
    _idle_at_bytes: int = 0

    def apply(self, step: NegotiationStep, now: float) -> None:
        """Do what follows from a change of the configuration."""
        match step:
            case "none":
                pass
            case "chosen":
                self._turns.apply_config(self._negotiation.config)
            case "configuring":
                self._turns.user.hold_audio()
                self._life.configure()
            case "in_force":
                self._turns.apply_config(self._negotiation.config)
                self._ready(now)
            case "rolled_back":
                self._turns.apply_config(
                    self._negotiation.config
                )  # it may have been accepted while the refused one was pending
                if self._turns.tts.speaker is not None:
                    self._turns.tts.speaker.cancel_fallback()  # no other voice can speak in its place
                self._ready(now)
            case "refused":
                self.end(SETTINGS_REFUSED)
            case _:
                assert_never(step)

    def _ready(self, now: float) -> None:
        was_ready = self._life.was_ready
        self._life.become_ready()
        if self._turns.tts.speaker is not None:
            self._turns.tts.speaker.stream.preconnect(now)  # before it is needed
        if not was_ready:
            self._emit(SendConnected(self._session_id, self._negotiation.options))
        self._negotiation.answer_hellos()
        for early in self._turns.user.release():
            self._dispatch(early, now)
        self._turns.request_due_response(now)

    def tick(self, now: float) -> None:
        """Do what has become due."""
        if not self._life.was_ready:
            if self._life.has_connect_timed_out(now):
                self.end(NOT_READY)
            return
        self.apply(self._negotiation.tick(now), now)
        self._note_activity(now)
        limit = self._life.limit_reached(now)
        if limit is not None:
            self.end(ending_for_limit(limit, self._life.limits))
            return
        self._turns.tick(now)
        if self._life.is_ready:
            self._turns.request_due_response(now)

    def _note_activity(self, now: float) -> None:
        heard_bytes = self._turns.user.input_position_bytes
        is_active = heard_bytes != self._idle_at_bytes or self._turns.has_pending_work
        self._idle_at_bytes = heard_bytes
        silent_by = self._turns.responses.last_upstream_at + self._turns.playback.unplayed_ms / 1000
        self._life.note_activity(now if is_active else min(silent_by, now))  # even if the client acknowledges nothing

    def end_if_due(self, now: float) -> None:
        """End the session if a tool has requested that, and all has been said and heard."""
        reason = self.graceful_end.reason
        if reason is None or not self._life.is_ready:
            return
        playback = self._turns.playback
        unplayed_ms = None if playback.is_idle else playback.unplayed_ms
        if self.graceful_end.is_due(now, has_pending_output=self._turns.has_pending_output, unplayed_ms=unplayed_ms):
            self.end(Ending(CloseCode.NORMAL_CLOSURE, reason, SendGoodbye(reason)))

    def end(self, ending: Ending) -> None:
        """End the session; nothing that still comes has any effect."""
        if ending.final_message is not None:
            self._emit(ending.final_message)
        if ending.close_code is not None:
            self._emit(CloseClient(ending.close_code, ending.reason))
        self._emit(CancelAllTools())
        self._turns.end()
        self._emit(CloseUpstream())
        self._life.end()
