"""Whose turn it is in a device session, where the relay owns the turns.

    user speaks ──► Interruption.begin ──► playout silent ──► Interruption.finish
    user's turn over ──► Responses.want ──┐
    tool outputs sent ──► ToolCalls owes ─┴─► settle ──► Responses.request ──► upstream answers ──► calls ──► tools

`Turns` joins the parts; each has one job. `settle` is the only place that requests a response: when one is due, the
slot is free, the user is not in the middle of a turn, and no change of voice is pending (D4). Typed turns go one by
one, each when everything before it is answered. A part knows another only where that is given to it here.
"""

from collections.abc import Callable
from typing import assert_never

from relay.session.common.media_ledger import MediaLedger
from relay.session.common.model import SessionConfig, SpeechRules
from relay.session.device import events as ev
from relay.session.device.commands import Command, SyncPlayhead, TellSpeech
from relay.session.device.conversation import ItemLog
from relay.session.device.interruption import Interruption
from relay.session.device.playback import Ack, Playback
from relay.session.device.response_handler import ResponseHandler
from relay.session.device.responses import Responses
from relay.session.device.transcripts import Transcripts
from relay.session.device.tts_switch import TtsSwitch
from relay.session.device.turn_metrics import TurnMetrics, TurnTimer
from relay.session.device.user_turn import UserTurn
from relay.session.tools.dispatcher import ToolDispatcher


class Turns:
    """The turns of one session; commands go to `emit`, ids come from `next_id`."""

    def __init__(
        self,
        config: SessionConfig,
        speech: SpeechRules | None,
        offers: Callable[[str], bool],
        user: UserTurn,
        ledger: MediaLedger,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
        *,
        truncates: bool,
    ) -> None:
        """`offers`: whether a server tool may be run; `truncates`: the upstream has to be asked to truncate items."""
        self._config = config
        self._emit = emit
        self._ledger = ledger
        self._has_spoken = False  # an external voice
        self._items = items = ItemLog()
        self.playback = playback = Playback(config.output_format, ledger)
        self.timer = TurnTimer()
        self._transcripts = Transcripts(items, emit)
        self.user = user
        self.tools = tools = ToolDispatcher(config.tools, offers, emit, next_id)
        self.tts = tts = TtsSwitch(speech or SpeechRules(), playback, items, emit, next_id)
        self.responses = responses = Responses(tools.calls, user.timers, ledger, emit, next_id)
        self._response_handler = ResponseHandler(
            responses, self._transcripts, items, playback, tts, tools, self.timer, emit
        )
        self.text_delta = self._response_handler.text_delta
        """The short way for the one event that comes several times a second."""
        self._interruption = Interruption(responses, playback, items, tts, self.timer, emit, next_id, truncates)

    def use(self, config: SessionConfig) -> None:
        """A configuration is active, perhaps the same as before."""
        self._config = config
        self.tools.use(config.tools)
        self.playback.use(config.output_format)
        self.tts.use(config)

    def end(self) -> None:
        """The session ends."""
        if self.tts.speech is not None:
            self.tts.speech.voice.close()
        self.playback.clips.clear()  # what still comes is for nobody

    @property
    def has_output(self) -> bool:
        """Whether any audio has come, from the model or an external voice."""
        return self._ledger.output_bytes > 0 or self._has_spoken

    @property
    def is_owed(self) -> bool:
        """Whether user or model have the turn: one speaks, or a response is requested or due."""
        return self.user.is_pending or self.responses.is_owed

    @property
    def has_more_to_say(self) -> bool:
        """Whether anything is still to be answered or spoken."""
        return self.is_owed or self.tts.is_speaking or self.tools.calls.running > 0

    @property
    def wants_model_voice(self) -> bool:
        """Whether the model is to speak from now on: the external voice failed, and nothing is left to be said."""
        return self.tts.falls_back and self.responses.slot.is_free and not self.tts.is_speaking

    @property
    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        parts = (self.user.timers, self.responses, self.timer, self.tools)
        voice_at = None if self.tts.speech is None else self.tts.speech.voice.deadline
        times = (voice_at, *(part.deadline for part in parts))
        return min((time for time in times if time is not None), default=None)

    def tick(self, now: float) -> None:
        """Do what has become due."""
        self.user.timers.tick(now)
        if self._response_handler.give_up_stalled(now):
            self.settle(now)
        self.tools.tick(now)
        if self.tts.speech is not None:
            self.tts.speech.tick(now)
        self._report(self.timer.tick(now))

    def settle(self, now: float) -> None:
        """Request the response that is due, if the slot is free and the user is not in the middle of a turn (D4)."""
        responses, timers = self.responses, self.user.timers
        self.tts.rewrite(responses.slot.response_id)
        if not responses.slot.is_free or timers.is_user_speaking or timers.is_retry_pending or self.tts.falls_back:
            return
        if self.user.typed and responses.is_turn_next:
            self.timer.turn_ended(now)
            self._begin_turn(now)
            self.user.send_typed()
            responses.want()
        if responses.is_due:
            responses.request(now)

    def _report(self, metrics: TurnMetrics | None) -> None:
        if metrics is not None:
            self._emit(metrics)

    # -- the client ---------------------------------------------------------------------------------------------------

    def type(self, text: str, now: float) -> None:
        """The user typed a turn."""
        if self.user.type(text):
            self.settle(now)

    def interrupt(self) -> None:
        """The client wants silence: nothing that was due is any more, for tools that still run either."""
        was_owed = self.tools.calls.owes_follow_up
        self.tools.calls.user_went_on()
        self.responses.drop_due()
        is_free = self.responses.slot.is_free
        if was_owed and is_free:  # the client was sent that there is more to come
            self._response_handler.end_unknown("cancelled")
        if not is_free or not self.playback.is_idle:
            self._interruption.begin(cancel=True)
        self.tools.cancel_interrupted()

    def acknowledged(self, item_id: str, played_ms: int, now: float) -> Ack:
        """The client reports its position in an item."""
        ack = self.playback.acknowledge(item_id, played_ms, now)
        if ack == "ok":
            self._report(self.timer.played(item_id, played_ms, now))
            self._emit(SyncPlayhead(item_id, self.playback.acknowledged_ms))
        return ack

    def client_result(self, event: ev.ToolResult, now: float) -> bool:
        """The client ran a tool of its own. Returns False if no such call was ever made."""
        is_known = self.tools.client_result(event, now)
        if is_known:
            self.settle(now)
        return is_known

    def tool_returned(self, event: ev.ToolReturned, now: float) -> None:
        """A tool that the relay ran has ended."""
        self.tools.returned(event)
        self.settle(now)

    def audio_dropped(self, event: ev.AudioDropped, now: float) -> None:
        """The playout has let go of its audio."""
        self._interruption.finish(event, now)
        self.settle(now)

    def voice_event(self, event: ev.VoiceEvent, now: float) -> None:
        """Something came from an external voice."""
        self._has_spoken = self._has_spoken or type(event) is ev.VoiceSpoke
        utterance = None if self.tts.speech is None else self.tts.speech.handle(event, now)
        if utterance is not None:
            self.timer.audio_came(utterance.key[0], now)

    # -- the upstream: the user's turn --------------------------------------------------------------------------------

    def user_event(self, event: ev.UserEvent, now: float) -> None:
        """The upstream reports something of the user's turn, or of an item."""
        match event:
            case ev.SpeechStarted():
                self._speech_started(event, now)
            case ev.SpeechStopped():
                self._speech_stopped(event, now)
            case ev.InputCommitted():
                self._input_committed(event, now)
            case ev.InputCleared():
                self.user.timers.speech_over()
                self.settle(now)
            case ev.UserTranscript():
                self._transcripts.user(event)
            case ev.UserTranscriptFailed():
                self._transcripts.user_failed(event)
            case ev.ItemAdded():
                self._transcripts.item_added(event)
            case ev.ItemDeleted():
                self._items.deleted(event.item_id)
            case _:
                assert_never(event)

    def _speech_started(self, event: ev.SpeechStarted, now: float) -> None:
        """Silence the client first, then report upstream what was heard (D2)."""
        self.timer.speech_started(self.user.speech_start(event.audio_start_ms, self._config.turn, now))
        self.user.timers.speech_started(now)
        self._emit(TellSpeech(started=True))
        self._interruption.begin(cancel=not self._config.upstream_turn.upstream_interrupts)
        self.tools.cancel_interrupted()
        self._begin_turn(now)

    def _speech_stopped(self, event: ev.SpeechStopped, now: float) -> None:
        self.timer.turn_ended(self.user.speech_end(event.audio_end_ms, now), now)
        self.user.timers.speech_stopped(now, awaits_response=self._config.upstream_turn.upstream_creates)
        self._emit(TellSpeech(started=False))
        self.settle(now)

    def _input_committed(self, event: ev.InputCommitted, now: float) -> None:
        """The user's audio is an item: answer it, if the upstream does not by itself."""
        self.user.committed()
        self._items.entry(event.item_id)
        if not self._config.upstream_turn.upstream_creates:
            self._begin_turn(now)
            self.responses.want()
            if self._config.turn.kind == "manual":
                self.timer.turn_ended(now)
        self.settle(now)

    def _begin_turn(self, now: float) -> None:
        self.tools.calls.user_went_on()
        if self.tts.speech is not None:
            self.tts.speech.new_turn(now)

    # -- the upstream: responses --------------------------------------------------------------------------------------

    def response_event(self, event: ev.ResponseEvent, now: float) -> None:
        """The upstream reports something of a response."""
        self._response_handler.handle(event, now)
        if isinstance(event, ev.ResponseDone):
            self.settle(now)

    def request_refused(self, event: ev.UpstreamError, now: float) -> bool:
        """The upstream sent an error. Returns whether it was the answer to a request for a response."""
        is_ours = self._response_handler.request_refused(event, now)
        if is_ours:
            self.settle(now)
        return is_ours
