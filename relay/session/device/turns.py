"""Turn taking in a device session, where the relay decides when a response is requested.

    user speaks ──► Interruption.begin ──► playout cleared ──► Interruption.finish
    user's turn ends ──► Responses.mark_due ───────┐
    tool outputs sent ──► PendingToolCalls is due ─┴─► request_due_response ──► response ──► tool calls ──► tools

`TurnController` joins the parts, and each part has one job. `request_due_response` is the only place that requests a
response. It does so if one is due, the slot is free, the user is not in the middle of a turn, and no change of voice is
pending (D4). Typed turns are sent one by one, each when everything before it is answered. A part has a reference to
another part only where it is passed one here.
"""

from collections.abc import Callable
from typing import assert_never

from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import SessionConfig, TtsOptions
from relay.session.device import events as ev
from relay.session.device.commands import Command, SendSpeechState, SyncPlayout
from relay.session.device.conversation import ConversationLog
from relay.session.device.interruption import Interruption
from relay.session.device.playback import AckResult, PlaybackLedger
from relay.session.device.response_handler import ResponseHandler
from relay.session.device.responses import Responses
from relay.session.device.transcripts import Transcripts
from relay.session.device.tts_switch import TtsSwitch
from relay.session.device.turn_metrics import TurnMetrics, TurnTimer
from relay.session.device.user_turn import UserTurn
from relay.session.tools.dispatcher import ToolDispatcher


class TurnController:
    """The turns of one session; commands go to `emit`, ids come from `next_id`."""

    def __init__(
        self,
        config: SessionConfig,
        tts_options: TtsOptions | None,
        offers_tool: Callable[[str], bool],
        user: UserTurn,
        ledger: MediaLedger,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
        *,
        supports_truncation: bool,
    ) -> None:
        """`offers_tool`: whether a server tool may be run; `supports_truncation`: the upstream truncates on request."""
        self._config = config
        self._emit = emit
        self._ledger = ledger
        self._has_tts_audio = False
        self._conversation = conversation = ConversationLog()
        self.playback = playback = PlaybackLedger(config.output_format, ledger)
        self.timer = TurnTimer()
        self._transcripts = Transcripts(conversation, emit)
        self.user = user
        self.tools = tools = ToolDispatcher(config.tools, offers_tool, emit, next_id)
        self.tts = tts = TtsSwitch(tts_options or TtsOptions(), playback, conversation, emit, next_id)
        self.responses = responses = Responses(tools.calls, user.timers, ledger, emit, next_id)
        self._response_handler = ResponseHandler(
            responses, self._transcripts, conversation, playback, tts, tools, self.timer, emit
        )
        self.text_delta = self._response_handler.on_text_delta
        """Bound here because this event comes several times a second."""
        self._interruption = Interruption(
            responses, playback, conversation, tts, self.timer, emit, next_id, supports_truncation
        )

    def apply_config(self, config: SessionConfig) -> None:
        """Apply the active configuration, which may be unchanged."""
        self._config = config
        self.tools.set_tools(config.tools)
        self.playback.set_format(config.output_format)
        self.tts.apply_config(config)

    def end(self) -> None:
        """End the session: disconnect the voice and forget what is playing."""
        if self.tts.speaker is not None:
            self.tts.speaker.stream.close()
        self.playback.parts.clear()  # so that further audio is discarded

    @property
    def has_output(self) -> bool:
        """Whether any output audio has been received, from the model or an external voice."""
        return self._ledger.output_bytes > 0 or self._has_tts_audio

    @property
    def has_pending_work(self) -> bool:
        """Whether a turn is in progress: the user speaks, or a response is active, requested or due."""
        return self.user.is_pending or self.responses.is_pending

    @property
    def has_pending_output(self) -> bool:
        """Whether a turn, a tool call or speech of the external voice is unfinished."""
        return self.has_pending_work or self.tts.is_speaking or self.tools.calls.n_running > 0

    @property
    def should_fall_back(self) -> bool:
        """Whether to switch to the model's own voice: the external one failed, and nothing is left to speak."""
        return self.tts.needs_fallback and self.responses.slot.is_free and not self.tts.is_speaking

    @property
    def deadline(self) -> float | None:
        """The time for the next call of `tick`; None if no timer is running."""
        parts = (self.user.timers, self.responses, self.timer, self.tools)
        tts_deadline = None if self.tts.speaker is None else self.tts.speaker.stream.deadline
        deadlines = (tts_deadline, *(part.deadline for part in parts))
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def tick(self, now: float) -> None:
        """Handle the deadlines that have passed."""
        self.user.timers.tick(now)
        if self._response_handler.abandon_stalled(now):
            self.request_due_response(now)
        self.tools.tick(now)
        if self.tts.speaker is not None:
            self.tts.speaker.tick(now)
        self._report(self.timer.tick(now))

    def request_due_response(self, now: float) -> None:
        """Request a due response if the slot is free and the user is not in the middle of a turn (D4)."""
        responses, timers = self.responses, self.user.timers
        self.tts.correct_history(responses.slot.response_id)
        if not responses.slot.is_free or timers.is_user_speaking or timers.is_retry_pending or self.tts.needs_fallback:
            return
        if self.user.typed_turns and responses.can_start_turn:
            self.timer.on_turn_ended(now)
            self._begin_turn(now)
            self.user.send_typed_turn()
            responses.mark_due()
        if responses.is_due:
            responses.request(now)

    def _report(self, metrics: TurnMetrics | None) -> None:
        if metrics is not None:
            self._emit(metrics)

    # -- the client ---------------------------------------------------------------------------------------------------

    def add_typed_turn(self, text: str, now: float) -> None:
        """Queue a turn that the user typed."""
        if self.user.add_typed_turn(text):
            self.request_due_response(now)

    def interrupt(self) -> None:
        """Stop playback and cancel responses that are due, also those for tools that are still running."""
        expected_follow_up = self.tools.calls.expects_follow_up
        self.tools.calls.on_user_turn_started()
        self.responses.cancel_due()
        is_free = self.responses.slot.is_free
        if expected_follow_up and is_free:  # the client was sent `more`, and waits for the follow-up
            self._response_handler.end_unstarted("cancelled")
        if not is_free or not self.playback.is_idle:
            self._interruption.begin(cancel_response=True)
        self.tools.cancel_interrupted()

    def acknowledge_playback(self, item_id: str, played_ms: int, now: float) -> AckResult:
        """Handle a playback position that the client reports."""
        ack = self.playback.acknowledge(item_id, played_ms, now)
        if ack == "ok":
            self._report(self.timer.on_playback_acknowledged(item_id, played_ms, now))
            self._emit(SyncPlayout(item_id, self.playback.acknowledged_ms))
        return ack

    def on_client_tool_result(self, event: ev.ToolResult, now: float) -> bool:
        """Handle the result of a tool that the client ran. Returns False if there was no such call."""
        is_known = self.tools.on_client_tool_result(event, now)
        if is_known:
            self.request_due_response(now)
        return is_known

    def on_tool_call_finished(self, event: ev.ToolCallFinished, now: float) -> None:
        """Handle the result of a tool that the relay ran."""
        self.tools.finish(event)
        self.request_due_response(now)

    def on_playout_cleared(self, event: ev.PlayoutCleared, now: float) -> None:
        """Complete the interruption: the playout has discarded its unsent audio."""
        self._interruption.finish(event, now)
        self.request_due_response(now)

    def handle_tts_event(self, event: ev.TtsEvent, now: float) -> None:
        """Handle an event of the external voice."""
        self._has_tts_audio = self._has_tts_audio or type(event) is ev.TtsAudio
        utterance = None if self.tts.speaker is None else self.tts.speaker.handle(event, now)
        if utterance is not None:
            self.timer.on_audio_received(utterance.key[0], now)

    # -- the upstream: the user's turn --------------------------------------------------------------------------------

    def handle_user_event(self, event: ev.UserEvent, now: float) -> None:
        """Handle an event of the user's turn, or of an item."""
        match event:
            case ev.SpeechStarted():
                self._on_speech_started(event, now)
            case ev.SpeechStopped():
                self._on_speech_stopped(event, now)
            case ev.InputCommitted():
                self._on_input_committed(event, now)
            case ev.InputCleared():
                self.user.timers.clear_speech()
                self.request_due_response(now)
            case ev.UserTranscript():
                self._transcripts.on_user_transcript(event)
            case ev.UserTranscriptFailed():
                self._transcripts.on_user_transcript_failed(event)
            case ev.ItemAdded():
                self._transcripts.on_item_added(event)
            case ev.ItemDeleted():
                self._conversation.mark_deleted(event.item_id)
            case _:
                assert_never(event)

    def _on_speech_started(self, event: ev.SpeechStarted, now: float) -> None:
        """Stop the client's playback first, then correct the upstream's history (D2)."""
        self.timer.on_speech_started(self.user.speech_started_at(event.audio_start_ms, self._config.turn, now))
        self.user.timers.on_speech_started(now)
        self._emit(SendSpeechState(started=True))
        self._interruption.begin(cancel_response=not self._config.upstream_turn.upstream_interrupts)
        self.tools.cancel_interrupted()
        self._begin_turn(now)

    def _on_speech_stopped(self, event: ev.SpeechStopped, now: float) -> None:
        self.timer.on_turn_ended(self.user.speech_ended_at(event.audio_end_ms, now), now)
        self.user.timers.on_speech_stopped(now, awaits_response=self._config.upstream_turn.upstream_creates)
        self._emit(SendSpeechState(started=False))
        self.request_due_response(now)

    def _on_input_committed(self, event: ev.InputCommitted, now: float) -> None:
        """Mark a response as due, unless the upstream creates it automatically."""
        self.user.on_input_committed()
        self._conversation.get_or_create(event.item_id)
        if not self._config.upstream_turn.upstream_creates:
            self._begin_turn(now)
            self.responses.mark_due()
            if self._config.turn.kind == "manual":
                self.timer.on_turn_ended(now)
        self.request_due_response(now)

    def _begin_turn(self, now: float) -> None:
        self.tools.calls.on_user_turn_started()
        if self.tts.speaker is not None:
            self.tts.speaker.begin_turn(now)

    # -- the upstream: responses --------------------------------------------------------------------------------------

    def handle_response_event(self, event: ev.ResponseEvent, now: float) -> None:
        """Handle an event of a response."""
        self._response_handler.handle(event, now)
        if isinstance(event, ev.ResponseDone):
            self.request_due_response(now)

    def on_upstream_error(self, event: ev.UpstreamErrorEvent, now: float) -> bool:
        """Handle an error of the upstream. Returns whether it refuses a request for a response."""
        is_ours = self._response_handler.on_upstream_error(event, now)
        if is_ours:
            self.request_due_response(now)
        return is_ours
