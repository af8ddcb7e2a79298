"""Whose turn it is: responses, playback, barge-in and tool calls of a session in which the relay owns the turns.

The only place that asks for a response is `settle`; the only place that silences the client is `stop_speaking`.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from relay.core import events as ev
from relay.core.bounded import RecentSet
from relay.core.commands import (
    CancelResponse,
    Command,
    CreateItem,
    CreateResponse,
    DeleteItem,
    DropAudio,
    PlayEnd,
    PlayStart,
    TellError,
    TellInterrupted,
    TellResponseEnd,
    TellResponseStart,
    TellSpeech,
    TellText,
    TellTranscript,
    TellUsage,
    TruncateItem,
)
from relay.core.external_speech import ExternalSpeech
from relay.core.items import MAX_TEXT_CHARS, ItemLog
from relay.core.playback import Ack, Cut, Playback
from relay.core.response import ResponseSlot
from relay.core.tool_calls import ToolCalls
from relay.core.tool_turns import ToolTurns
from relay.core.usage import add_usage
from relay.core.values import Item, ResponseStatus, SessionConfig, SpeechRules, Usage
from relay.core.voice import Voice
from relay.session.common.media_ledger import MediaLedger
from relay.session.device.turn_metrics import TurnMetrics, TurnTimer

MAX_TYPED_TURNS = 16
MAX_RESPONSES = 32
RESPONSE_AFTER_SPEECH_S = 3.0
"""How long after the user's speech the upstream's own response is waited for before an owed one is asked for."""
MAX_SPEECH_S = 120.0
"""How long the user is held to be speaking if the upstream never says that it ended."""
MAX_SPEECH_LAG_MS = 5000
"""How far back a start or an end of speech that the upstream reports may lie."""
PREFIX_PADDING_MS = 300
"""Audio before the speech that server VAD counts in by default. What semantic VAD counts in is not documented."""
REFUSED_RETRY_S = 1.0
STALL_S = 30.0
"""How long a response may go without any event of the upstream before it is given up."""


@dataclass(slots=True)
class ResponseText:
    """What the client was told of one response."""

    started: bool = False
    text: str = ""


class Turns:
    """The turns of one session; commands go to `emit`, ids come from `next_id`."""

    def __init__(
        self,
        config: SessionConfig,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
        ledger: MediaLedger,
        rules: SpeechRules | None = None,
        offers: Callable[[str], bool] = lambda name: True,
        heard_since_ms: Callable[[int], int] = lambda audio_ms: 0,
    ) -> None:
        """`offers`: whether a server tool may be run; `heard_since_ms`: how much input came after a position in it."""
        self.config = config
        self.speech: ExternalSpeech | None = None
        """What an external voice says, while one speaks."""
        self._past_speech: ExternalSpeech | None = None
        """What one said that speaks no more: some of it may still be played, and be cut."""
        self.slot = ResponseSlot()
        self.ledger = ledger
        self.playback = Playback(config.output_format, ledger)
        self.tools = ToolTurns(config.tools, emit, next_id, offers)
        self.items = ItemLog()
        self.usage = Usage()
        self.refused = RecentSet(64)
        self._billed = RecentSet(64)
        self.typed: deque[str] = deque()
        self.upstream_event_at = 0.0
        """When the upstream last sent an event, or was last asked for a response."""
        self.silence_ms = 0
        self._rules = rules or SpeechRules()
        self._heard_since_ms = heard_since_ms
        self._emit = emit
        self._next_id = next_id
        self._responses: dict[str, ResponseText] = {}
        self._wants_response = False
        self._asked_for = (False, False)
        self._user_speaking = False
        self._speech_ends_by = 0.0
        self._retry_at: float | None = None
        self._cancel_after_drop: str | None = None
        self._timer = TurnTimer()

    @property
    def calls(self) -> ToolCalls:
        """The tool calls under way."""
        return self.tools.calls

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `tick` is wanted next."""
        times = []
        if self._user_speaking:
            times.append(self._speech_ends_by)
        if self._retry_at is not None:
            times.append(self._retry_at)
        if not self.slot.is_free:
            times.append(self.last_upstream_at + STALL_S)
        if self._timer.deadline is not None:
            times.append(self._timer.deadline)
        if self.tools.deadline is not None:
            times.append(self.tools.deadline)
        if self.speech is not None and self.speech.deadline is not None:
            times.append(self.speech.deadline)
        return min(times, default=None)

    @property
    def last_upstream_at(self) -> float:
        """When the upstream last sent an event or audio."""
        return max(self.upstream_event_at, self.ledger.output_at)

    @property
    def silent_by(self) -> float:
        """When all that was received must have been played, though a client that acknowledges nothing never says so."""
        return self.last_upstream_at + self.playback.unplayed_ms / 1000

    @property
    def is_owed(self) -> bool:
        """Whether somebody speaks to the other, or a response is asked for or due."""
        waits = self._wants_response or self._user_speaking or bool(self.typed)
        return waits or not self.slot.is_free or self.calls.owes_follow_up

    @property
    def is_voice_owed(self) -> bool:
        """Whether an external voice still has something to say."""
        return self.speech is not None and bool(self.speech.voice.utterances)

    def tick(self, now: float) -> None:
        """Do what has become due."""
        if self._user_speaking and now >= self._speech_ends_by:
            self._user_speaking = False
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
        if not self.slot.is_free and now >= self.last_upstream_at + STALL_S:
            self._give_up_stalled(now)
        self.tools.tick(now)
        if self.speech is not None:
            self.speech.tick(now)
        self._report(self._timer.tick(now))

    def settle(self, now: float) -> None:
        """Ask for the response that is due, if the slot is free and the user is not in the middle of a turn (D4)."""
        for speech in self._speeches():
            speech.rewrite(self.slot.response_id)
        if not self.slot.is_free or self._user_speaking or self._retry_at is not None or self._falls_back:
            return
        if not self.calls.owes_follow_up and not self._wants_response and self.typed:
            self._timer.turn_ended(now)
            self._begin_turn(now)
            text = self.typed.popleft()
            self._emit(
                CreateItem(Item(id="", kind="message", role="user", text=text), self._next_id()),
            )
            self._wants_response = True
        if self._wants_response or self.calls.owes_response:
            request_id = self._next_id()
            self.slot.request(request_id)
            self._asked_for = (self._wants_response, self.calls.owes_response)
            self.upstream_event_at = now
            self._emit(CreateResponse(request_id, allow_tools=not self.calls.at_round_limit))

    def _report(self, metrics: TurnMetrics | None) -> None:
        if metrics is not None:
            self._emit(metrics)

    # -- the user -----------------------------------------------------------------------------------------------------

    def user_speech(self, event: ev.SpeechStarted | ev.SpeechStopped, now: float) -> None:
        """The upstream reports where in the input the user began or ended to speak."""
        if isinstance(event, ev.SpeechStarted):
            self._timer.speech_started(self._speech_start(event.audio_start_ms, now))
            self._speech_started(now)
        else:
            self._speech_stopped(event, now)
            self.settle(now)

    def _speech_start(self, audio_start_ms: int, now: float) -> float | None:
        """When the user began to speak, by what the upstream reports; None if that is too long ago to be believed."""
        turn = self.config.turn
        padding_ms = PREFIX_PADDING_MS if turn.prefix_padding_ms is None else turn.prefix_padding_ms
        lag_ms = self._heard_since_ms(audio_start_ms + (padding_ms if turn.kind == "server_vad" else 0))
        return now - lag_ms / 1000 if lag_ms <= MAX_SPEECH_LAG_MS else None

    def _speech_started(self, now: float) -> None:
        """The user speaks: silence the client first, then tell the upstream what was heard (D2)."""
        self._user_speaking = True
        self._speech_ends_by = now + MAX_SPEECH_S
        self._emit(TellSpeech(started=True))
        self.stop_speaking(cancel=not self.config.upstream_turn.upstream_interrupts)
        self.tools.cancel_interrupted()
        self._begin_turn(now)

    def _speech_stopped(self, event: ev.SpeechStopped, now: float) -> None:
        """The user's speech ended where the upstream reports, less the silence that proved it."""
        lag_s = min(self._heard_since_ms(event.audio_end_ms) + self.silence_ms, MAX_SPEECH_LAG_MS) / 1000
        self._timer.turn_ended(now - lag_s, now)
        self._speech_ends_by = now + RESPONSE_AFTER_SPEECH_S
        self._user_speaking = self.config.upstream_turn.upstream_creates
        self._emit(TellSpeech(started=False))

    def input_committed(self, item_id: str, now: float) -> None:
        """The user's audio is an item; answer it, if the upstream does not by itself."""
        self.items.entry(item_id)
        if not self.config.upstream_turn.upstream_creates:
            self._begin_turn(now)
            self._wants_response = True
            if self.config.turn.kind == "manual":
                self._timer.turn_ended(now)

    def _begin_turn(self, now: float) -> None:
        self.calls.user_went_on()
        if self.speech is not None:
            self.speech.new_turn(now)

    def input_cleared(self) -> None:
        """There is no turn of the user any more."""
        self._user_speaking = False

    def item_added(self, event: ev.ItemAdded) -> None:
        """An item has its place. What the user typed is told at once; what was spoken, by its transcript."""
        item = event.item
        entry = self.items.added(item.id, item.role, event.previous_item_id)
        if item.kind == "message" and item.role == "user" and item.text:
            self.items.set_text(item.id, item.text)
            self._emit(TellTranscript("user", item.id, entry.order, item.text, final=True))

    def user_transcript(self, event: ev.UserTranscript) -> None:
        """What the user said, whenever it comes: the place in the conversation goes with it (D12)."""
        entry = self.items.entry(event.item_id)
        entry.role = "user"
        if event.final:
            self.items.set_text(event.item_id, event.text)
        self._emit(TellTranscript("user", event.item_id, entry.order, event.text, event.final))

    def acknowledged(self, item_id: str, played_ms: int, now: float) -> Ack:
        """The client told its position in an item."""
        verdict = self.playback.acknowledge(item_id, played_ms, now)
        if verdict == "ok":
            self._report(self._timer.played(item_id, played_ms, now))
        return verdict

    # -- silence ------------------------------------------------------------------------------------------------------

    def stop_speaking(self, *, cancel: bool) -> None:
        """Let nothing more be heard of what is being said; `cancel` if the upstream will not stop by itself (D2.2)."""
        if self.slot.response_id is not None:
            self.refused.add(self.slot.response_id)
        speaking_id = self.slot.response_id
        response_id = self.slot.cancel()
        self._cancel_after_drop = response_id if cancel else None
        is_idle = self.playback.is_idle
        if not is_idle:
            self._emit(DropAudio())
        if self.speech is not None:
            self.speech.hush(speaking_id)
        if is_idle:
            self._cancel()

    def interrupt(self) -> None:
        """The client wants silence: nothing that was asked for is owed any more, also not for tools that still run."""
        owed = self.calls.owes_follow_up
        self.calls.user_went_on()
        self._wants_response = self.calls.owes_response = False
        if owed and self.slot.is_free:  # the client was told of more to come
            self._end(ResponseText(), "cancelled")
        if not self.slot.is_free or not self.playback.is_idle:
            self.stop_speaking(cancel=True)
        self.tools.cancel_interrupted()

    def audio_dropped(self, event: ev.AudioDropped, now: float) -> None:
        """The client is silent: tell it where, then cancel, truncate what was cut and delete what was never heard."""
        cuts = self.playback.cut(event.clips, now)
        stopped = next((cut for cut in cuts if cut.action != "keep"), None)
        if stopped is not None:
            told = (speech.heard(stopped) for speech in self._speeches())
            heard = next((text for text in told if text is not None), None)
            if heard is None:
                heard = self.items.cut_to_heard(stopped.item_id, stopped.played_ms, stopped.received_ms)
            self._timer.client_silenced(now)
            self._emit(TellInterrupted(stopped.item_id, stopped.played_ms, heard, stopped.estimated))
        self._cancel()
        for speech in self._speeches():
            speech.cut(cuts)
        cuts = [cut for cut in cuts if cut.source == "model"]
        heard_items = {cut.item_id for cut in cuts if cut.action != "delete"}
        deleted: set[str] = set()
        for cut in cuts:
            if cut.action == "truncate":
                self._truncate(cut)
            elif cut.action == "delete" and cut.item_id not in heard_items | deleted:
                deleted.add(cut.item_id)
                self._delete(cut.item_id)

    def _cancel(self) -> None:
        if self._cancel_after_drop is not None:
            self._emit(CancelResponse(self._cancel_after_drop, self._next_id()))
            self._cancel_after_drop = None

    def _truncate(self, cut: Cut) -> None:
        self.items.cut_to_heard(cut.item_id, cut.played_ms, cut.received_ms)
        self._emit(TruncateItem(cut.item_id, cut.content_index, cut.played_ms, self._next_id()))

    def _delete(self, item_id: str) -> None:
        entry = self.items.entry(item_id)
        entry.heard = ""
        if entry.in_conversation:
            self._emit(DeleteItem(item_id, self._next_id()))

    # -- responses ----------------------------------------------------------------------------------------------------

    def response_created(self, event: ev.ResponseCreated) -> None:
        """A response began, ours or the upstream's own; it covers every output that has landed (D4)."""
        self._retry_at = None
        doomed = self.slot.created(event.response_id, event.request_id)
        self._response(event.response_id)
        self._billed.pop(event.response_id, None)
        if doomed:
            self.refused.add(event.response_id)
            if self.speech is not None:
                self.speech.doomed(event.response_id)
            self._emit(CancelResponse(event.response_id, self._next_id()))
            return
        self._user_speaking = False
        self._wants_response = False
        self.calls.response_created()

    def output_started(self, event: ev.OutputStarted, now: float) -> None:
        """The first audio of a content part has come: announce the part, unless its response was given up."""
        if event.response_id in self.refused:
            return
        self.playback.start(event.item_id, event.content_index, event.response_id)
        self._start(event.response_id)
        self.items.entry(event.item_id)
        self._timer.audio_came(event.item_id, now)
        self._emit(PlayStart(event.item_id, event.content_index))

    def audio_done(self, event: ev.AudioDone) -> None:
        """All audio of an item has come."""
        if event.response_id not in self.refused:
            total_ms = self.playback.completed(event.item_id, event.content_index)
            if total_ms is not None:
                self._emit(PlayEnd(event.item_id, event.content_index, total_ms))

    def audio_handed(self, item_id: str, now: float) -> None:
        """The first audio of an item went to the client's socket."""
        self._timer.audio_sent(item_id, now)

    def text_delta(self, event: ev.TextDelta, now: float) -> None:
        """More of the assistant's text."""
        self.upstream_event_at = now
        if event.response_id in self.refused:
            return
        response = self._responses.get(event.response_id)
        if response is None or not response.started:
            response = self._start(event.response_id)
        if len(response.text) < MAX_TEXT_CHARS:
            response.text = (response.text + event.text)[:MAX_TEXT_CHARS]
        self.items.append_text(event.item_id, event.text)
        if self.speech is not None:
            self._timer.text_came(now)
            self.speech.text(event, now)
        self._emit(TellText(event.text))

    def voice_said(self, event: ev.VoiceEvent, now: float) -> None:
        """Sound of an external voice, or how it goes."""
        utterance = self.speech.handle(event, now) if self.speech is not None else None
        if utterance is not None:
            self._timer.audio_came(utterance.key[0], now)

    def text_done(self, event: ev.TextDone, now: float) -> None:
        """All of the assistant's words in one part."""
        if event.response_id in self.refused:
            return
        entry = self.items.entry(event.item_id)
        entry.role = "assistant"
        self.items.set_text(event.item_id, event.text)
        self._emit(TellTranscript("assistant", event.item_id, entry.order, event.text, final=True))
        if self.speech is not None:
            self.speech.part_done(event.response_id, now)

    def response_done(self, event: ev.ResponseDone, now: float) -> None:
        """A response ended: run its tool calls if it completed (D4), tell the client, free the slot."""
        known = event.response_id in self._responses
        own = self.slot.done(event.response_id, event.request_id)
        response = self._responses.pop(event.response_id, ResponseText())
        self._retry_at = None
        self._complete_clips(event.response_id)
        if self.speech is not None:
            self.speech.response_done(event, now)
        if event.usage != Usage() and event.response_id not in self._billed:  # an end that comes twice costs once (D11)
            self._billed.add(event.response_id)
            self.usage = add_usage(self.usage, event.usage)
            self._emit(TellUsage(event.usage))
        fresh = self.tools.take(event, interrupted=event.response_id in self.refused or self._user_speaking)
        if event.status == "failed":
            self._emit(TellError("response_failed", _failure(event), retryable=True))
            self.calls.owes_response = False
        silent = event.status == "completed" and fresh and not response.started  # the follow-up ends the turn
        if (known or own) and not silent:
            self._end(response, event.status, event.response_id)
        for call in fresh:
            self.tools.run(call, now)
        self.settle(now)

    def request_refused(self, event: ev.UpstreamError, now: float) -> bool:
        """An error that answers our own `response.create`. Returns whether it was one."""
        if event.event_id is None or not self.slot.refused(event.event_id):
            return False
        if event.code == "conversation_already_has_active_response":
            # Somebody else's response is under way: what was asked for is asked for again after its end, unless a
            # response that begins after this covers it.
            if self.slot.is_free:
                self._retry_at = now + REFUSED_RETRY_S
            elif not self._user_speaking:
                wanted, owed = self._asked_for
                self._wants_response = self._wants_response or wanted
                self.calls.owes_response = self.calls.owes_response or owed
            return True
        self._wants_response = False
        self.calls.owes_response = False
        self._emit(TellError("response_failed", event.message, retryable=True))
        self._end(ResponseText(), "failed")
        return True

    def _complete_clips(self, response_id: str) -> None:
        # An upstream that never said audio.done must not leave the client waiting for the end of an item.
        for item_id, content_index in self.playback.incomplete(response_id):
            self.audio_done(ev.AudioDone(response_id, item_id, content_index))

    def _response(self, response_id: str) -> ResponseText:
        response = self._responses.get(response_id)
        if response is None:
            if len(self._responses) >= MAX_RESPONSES:
                del self._responses[next(iter(self._responses))]
            response = self._responses[response_id] = ResponseText()
        return response

    def _start(self, response_id: str) -> ResponseText:
        response = self._response(response_id)
        if not response.started:
            response.started = True
            self._emit(TellResponseStart())
        return response

    def _end(self, response: ResponseText, status: ResponseStatus, response_id: str = "") -> None:
        if not response.started:
            self._emit(TellResponseStart())
        end = TellResponseEnd(response.text, status, more=self.calls.owes_follow_up)
        if self.speech is None or not self.speech.holds(response_id, end):
            self._emit(end)

    def _give_up_stalled(self, now: float) -> None:
        response_id = self.slot.give_up()
        self.calls.owes_response = self._wants_response = False
        self._emit(
            TellError(
                "upstream_stalled",
                f"The model has not said anything for {STALL_S:.0f} seconds; its answer was given up. Ask again.",
                retryable=True,
            )
        )
        if response_id is None:
            self._end(ResponseText(), "failed")
            return
        self._complete_clips(response_id)
        self.refused.add(response_id)
        self._emit(CancelResponse(response_id, self._next_id()))
        if self.speech is not None:
            self.speech.voice.end(response_id, now)
        self._end(self._responses.pop(response_id, ResponseText()), "failed", response_id)
        self.settle(now)

    # -- what is in force ----------------------------------------------------------------------------------------------

    def reconfigured(self, config: SessionConfig) -> None:
        """Another configuration is in force."""
        self.config = replace(config)
        self.tools.specs = config.tools
        self.playback.format = config.output_format
        self._use_voice(config)

    def warm_up(self, now: float) -> None:
        """The session is ready: have the voice ready too."""
        if self.speech is not None:
            self.speech.voice.warm(now)

    def _use_voice(self, config: SessionConfig) -> None:
        voice_id, known = config.external_voice, self.speech
        if known is not None:
            if (known.voice.voice_id, known.voice.output) == (voice_id, config.output_format):
                return
            known.close()
            self.speech, self._past_speech = None, known
        if voice_id is not None:
            voice = Voice(voice_id, config.output_format, self._rules, self._emit, self._next_id)
            self.speech = ExternalSpeech(voice, self.playback, self.items, self._emit, self._next_id)

    def _speeches(self) -> Iterator[ExternalSpeech]:
        """What external voices have said, this one and the one before."""
        if self.speech is not None:
            yield self.speech
        if self._past_speech is not None:
            yield self._past_speech

    @property
    def _falls_back(self) -> bool:
        """Whether the external voice has failed and the model is to speak itself; no turn begins before that."""
        return self.speech is not None and self.speech.is_given_up and self._rules.fallback_voice is not None

    @property
    def wants_model_voice(self) -> bool:
        """Whether now is the time for that: no response is under way, and nothing waits to be spoken."""
        return self._falls_back and self.slot.is_free and not self.is_voice_owed

    def keep_voice(self) -> None:
        """There is no falling back: the external voice is tried again."""
        if self.speech is not None:
            self.speech.is_given_up = False


def _failure(event: ev.ResponseDone) -> str:
    code = f" ({event.error_code})" if event.error_code else ""
    return f"The model could not answer{code}: {event.error_message or 'it gave no reason'}"
