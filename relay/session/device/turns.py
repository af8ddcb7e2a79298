"""Whose turn it is in a device session, where the relay owns the turns.

    user speaks ──► Interruption.begin ──► playout silent ──► Interruption.finish
    user's turn over ──► Responses.want ──┐
    tool outputs sent ──► ToolCalls owes ─┴─► settle ──► Responses.request ──► upstream answers ──► calls ──► tools

`TurnController` joins the parts; each has one job. `settle` is the only place that requests a response: when one is
due, the slot is free, the user is not in the middle of a turn, and no change of voice is pending (D4). Typed turns go
one by one, each when everything before it is answered. A part knows another only where that is given to it here.
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
        """`offers_tool`: whether a server tool may be run; `supports_truncation`: the upstream has to be asked to
        truncate items.
        """
        self._config = config
        self._emit = emit
        self._ledger = ledger
        self._has_tts_audio = False  # an external voice
        self._items = items = ConversationLog()
        self.playback = playback = PlaybackLedger(config.output_format, ledger)
        self.timer = TurnTimer()
        self._transcripts = Transcripts(items, emit)
        self.user = user
        self.tools = tools = ToolDispatcher(config.tools, offers_tool, emit, next_id)
        self.tts = tts = TtsSwitch(tts_options or TtsOptions(), playback, items, emit, next_id)
        self.responses = responses = Responses(tools.calls, user.timers, ledger, emit, next_id)
        self._response_handler = ResponseHandler(
            responses, self._transcripts, items, playback, tts, tools, self.timer, emit
        )
        self.text_delta = self._response_handler.text_delta
        """The short way for the one event that comes several times a second."""
        self._interruption = Interruption(
            responses, playback, items, tts, self.timer, emit, next_id, supports_truncation
        )

    def apply_config(self, config: SessionConfig) -> None:
        """A configuration is active, perhaps the same as before."""
        self._config = config
        self.tools.set_tools(config.tools)
        self.playback.set_format(config.output_format)
        self.tts.apply_config(config)

    def end(self) -> None:
        """The session ends."""
        if self.tts.speaker is not None:
            self.tts.speaker.stream.close()
        self.playback.parts.clear()  # what still comes is for nobody

    @property
    def has_output(self) -> bool:
        """Whether any audio has come, from the model or an external voice."""
        return self._ledger.output_bytes > 0 or self._has_tts_audio

    @property
    def has_pending_work(self) -> bool:
        """Whether user or model have the turn: one speaks, or a response is requested or due."""
        return self.user.is_pending or self.responses.is_pending

    @property
    def has_pending_output(self) -> bool:
        """Whether anything is still to be answered or spoken."""
        return self.has_pending_work or self.tts.is_speaking or self.tools.calls.n_running > 0

    @property
    def should_fall_back(self) -> bool:
        """Whether the model is to speak from now on: the external voice failed, and nothing is left to be said."""
        return self.tts.needs_fallback and self.responses.slot.is_free and not self.tts.is_speaking

    @property
    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        parts = (self.user.timers, self.responses, self.timer, self.tools)
        voice_at = None if self.tts.speaker is None else self.tts.speaker.stream.deadline
        times = (voice_at, *(part.deadline for part in parts))
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what has become due."""
        self.user.timers.tick(now)
        if self._response_handler.abandon_stalled(now):
            self.request_due_response(now)
        self.tools.tick(now)
        if self.tts.speaker is not None:
            self.tts.speaker.tick(now)
        self._report(self.timer.tick(now))

    def request_due_response(self, now: float) -> None:
        """Request the response that is due, if the slot is free and the user is not in the middle of a turn (D4)."""
        responses, timers = self.responses, self.user.timers
        self.tts.correct_history(responses.slot.response_id)
        if not responses.slot.is_free or timers.is_user_speaking or timers.is_retry_pending or self.tts.needs_fallback:
            return
        if self.user.typed_turns and responses.can_start_turn:
            self.timer.turn_ended(now)
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
        """The user typed a turn."""
        if self.user.add_typed_turn(text):
            self.request_due_response(now)

    def interrupt(self) -> None:
        """The client wants silence: nothing that was due is any more, for tools that still run either."""
        was_owed = self.tools.calls.expects_follow_up
        self.tools.calls.user_turn_started()
        self.responses.cancel_due()
        is_free = self.responses.slot.is_free
        if was_owed and is_free:  # the client was sent that there is more to come
            self._response_handler.end_unstarted("cancelled")
        if not is_free or not self.playback.is_idle:
            self._interruption.begin(cancel=True)
        self.tools.cancel_interrupted()

    def acknowledge_playback(self, item_id: str, played_ms: int, now: float) -> AckResult:
        """The client reports its position in an item."""
        ack = self.playback.acknowledge(item_id, played_ms, now)
        if ack == "ok":
            self._report(self.timer.playback_acknowledged(item_id, played_ms, now))
            self._emit(SyncPlayout(item_id, self.playback.acknowledged_ms))
        return ack

    def client_tool_result(self, event: ev.ToolResult, now: float) -> bool:
        """The client ran a tool of its own. Returns False if no such call was ever made."""
        is_known = self.tools.client_tool_result(event, now)
        if is_known:
            self.request_due_response(now)
        return is_known

    def tool_call_finished(self, event: ev.ToolCallFinished, now: float) -> None:
        """A tool that the relay ran has ended."""
        self.tools.finish(event)
        self.request_due_response(now)

    def playout_cleared(self, event: ev.PlayoutCleared, now: float) -> None:
        """The playout has let go of its audio."""
        self._interruption.finish(event, now)
        self.request_due_response(now)

    def handle_tts_event(self, event: ev.TtsEvent, now: float) -> None:
        """Something came from an external voice."""
        self._has_tts_audio = self._has_tts_audio or type(event) is ev.TtsAudio
        utterance = None if self.tts.speaker is None else self.tts.speaker.handle(event, now)
        if utterance is not None:
            self.timer.audio_received(utterance.key[0], now)

    # -- the upstream: the user's turn --------------------------------------------------------------------------------

    def handle_user_event(self, event: ev.UserEvent, now: float) -> None:
        """The upstream reports something of the user's turn, or of an item."""
        match event:
            case ev.SpeechStarted():
                self._speech_started(event, now)
            case ev.SpeechStopped():
                self._speech_stopped(event, now)
            case ev.InputCommitted():
                self._input_committed(event, now)
            case ev.InputCleared():
                self.user.timers.clear_speech()
                self.request_due_response(now)
            case ev.UserTranscript():
                self._transcripts.user_transcript(event)
            case ev.UserTranscriptFailed():
                self._transcripts.user_transcript_failed(event)
            case ev.ItemAdded():
                self._transcripts.item_added(event)
            case ev.ItemDeleted():
                self._items.mark_deleted(event.item_id)
            case _:
                assert_never(event)

    def _speech_started(self, event: ev.SpeechStarted, now: float) -> None:
        """Silence the client first, then report upstream what was heard (D2)."""
        self.timer.speech_started(self.user.speech_started_at(event.audio_start_ms, self._config.turn, now))
        self.user.timers.speech_started(now)
        self._emit(SendSpeechState(started=True))
        self._interruption.begin(cancel=not self._config.upstream_turn.upstream_interrupts)
        self.tools.cancel_interrupted()
        self._begin_turn(now)

    def _speech_stopped(self, event: ev.SpeechStopped, now: float) -> None:
        self.timer.turn_ended(self.user.speech_ended_at(event.audio_end_ms, now), now)
        self.user.timers.speech_stopped(now, awaits_response=self._config.upstream_turn.upstream_creates)
        self._emit(SendSpeechState(started=False))
        self.request_due_response(now)

    def _input_committed(self, event: ev.InputCommitted, now: float) -> None:
        """The user's audio is an item: answer it, if the upstream does not by itself."""
        self.user.input_committed()
        self._items.get_or_create(event.item_id)
        if not self._config.upstream_turn.upstream_creates:
            self._begin_turn(now)
            self.responses.mark_due()
            if self._config.turn.kind == "manual":
                self.timer.turn_ended(now)
        self.request_due_response(now)

    def _begin_turn(self, now: float) -> None:
        self.tools.calls.user_turn_started()
        if self.tts.speaker is not None:
            self.tts.speaker.begin_turn(now)

    # -- the upstream: responses --------------------------------------------------------------------------------------

    def handle_response_event(self, event: ev.ResponseEvent, now: float) -> None:
        """The upstream reports something of a response."""
        self._response_handler.handle(event, now)
        if isinstance(event, ev.ResponseDone):
            self.request_due_response(now)

    def request_refused(self, event: ev.UpstreamErrorEvent, now: float) -> bool:
        """The upstream sent an error. Returns whether it was the answer to a request for a response."""
        is_ours = self._response_handler.request_refused(event, now)
        if is_ours:
            self.request_due_response(now)
        return is_ours
