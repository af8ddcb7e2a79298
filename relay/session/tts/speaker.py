"""Joins an external voice to playback, items and responses, and corrects the history after a barge-in (D9, D2.4).

The text of a response goes sentence by sentence to `TtsStream`. The utterance that is first in line is announced with
`SendAudioStart`; its end is `SendAudioEnd`. The end of a response that was not announced yet is held back until then,
so that the client knows that audio follows.

Speech outlives its response: all text has come long before the last of it is played. After a barge-in `hush` closes the
context, the client reports what it played, and `cut` notes what was heard of each item. `rewrite` then deletes each
such item and creates it again as far as it was heard, because an item of text cannot be truncated. An item of the
active response waits until that response is done. What a silenced response writes later is neither spoken nor kept.

When the voice fails, the rest of the turn stays text, and the client is sent one `voice_failed`. `wants_fallback` makes
the turns use the model's own voice from the next turn on, if the settings name one.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, assert_never

from relay.session.common.bounded_set import BoundedSet
from relay.session.common.model import Item
from relay.session.device import events as ev
from relay.session.device.commands import (
    Command,
    CreateItem,
    DeleteItem,
    SendAudioEnd,
    SendAudioStart,
    SendError,
    SendResponseEnd,
)
from relay.session.device.conversation import ConversationLog
from relay.session.device.playback import InterruptedPart, PlaybackLedger
from relay.session.tts.alignment import TtsUtterance
from relay.session.tts.stream import MAX_UTTERANCES, TtsStream


class HistoryCorrection(NamedTuple):
    """An item that is to hold no more than was heard of it, as soon as its response has ended."""

    response_id: str
    heard_text: str


class TtsSpeaker:
    """Joins a `TtsStream` to playback, items and responses of a session; commands go to `emit`."""

    def __init__(
        self,
        stream: TtsStream,
        playback: PlaybackLedger,
        items: ConversationLog,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
    ) -> None:
        self.stream = stream
        self.has_failed = False
        """Whether something of this turn could not be spoken."""
        self.wants_fallback = False
        """Whether another voice is to speak from the next turn on, if there is one."""
        self._playback = playback
        self._items = items
        self._emit = emit
        self._next_id = next_id
        self._finished: dict[tuple[str, int], TtsUtterance] = {}
        self._interrupted: dict[tuple[str, int], TtsUtterance] = {}
        self._corrections: dict[str, HistoryCorrection] = {}
        self._unheard = BoundedSet(MAX_UTTERANCES)
        self._muted = BoundedSet(MAX_UTTERANCES)
        self._deferred_ends: dict[str, SendResponseEnd] = {}

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what has become due."""
        due = self.stream.check_deadline(now)
        if isinstance(due, ev.TtsContextDone):
            self.context_done(due.context_id, now)
        elif due is not None:
            self.failed(due, now)

    def begin_turn(self, now: float) -> None:
        """The user has the word: the voice is going to be needed."""
        if not self.stream.utterances:
            self.has_failed = False
            self.stream.reset_failure()
            self.stream.preconnect(now)

    # -- words --------------------------------------------------------------------------------------------------------

    def text_delta(self, event: ev.TextDelta, now: float) -> None:
        """More of what the model writes."""
        if event.spoken or event.response_id in self._muted:
            return
        self.stream.add(event, now)
        self._proceed(now)

    def part_done(self, response_id: str, now: float) -> None:
        """All text of one item has come."""
        self.stream.part_done(response_id, now)
        self._proceed(now)

    def response_done(self, event: ev.ResponseDone, now: float) -> None:
        """All text of a response has come. What a silenced one wrote without being heard leaves the history."""
        if event.response_id in self._unheard:
            for item in event.output:
                if item.kind == "message" and item.id:
                    self._corrections.setdefault(item.id, HistoryCorrection(event.response_id, ""))
        self.stream.end(event.response_id, now)
        self._proceed(now)

    def defer_end(self, response_id: str, end: SendResponseEnd) -> bool:
        """Keep the end of a response back until its sound is announced: its client must know that there is more."""
        utterance = self.stream.find(response_id)
        if utterance is None or utterance.is_announced:
            return False
        self._deferred_ends[response_id] = end
        return True

    def _proceed(self, now: float) -> None:
        """Announce the utterance that is first now; if it is known that it cannot be spoken, say so."""
        refusal = self.stream.known_failure()
        if self.stream.utterances and not self.stream.utterances[0].is_announced:
            head = self.stream.utterances[0]
            head.is_announced = True
            self._playback.start(*head.key, head.response_id, source="tts")
            self._items.get_or_create(head.key[0])
            self._emit(SendAudioStart(*head.key))
            self._release(head)
        if refusal is not None:
            self._fail(refusal)

    def _release(self, utterance: TtsUtterance) -> None:
        held = self._deferred_ends.pop(utterance.response_id, None)
        if held is not None:
            self._emit(held)

    # -- sound --------------------------------------------------------------------------------------------------------

    def handle(self, event: ev.TtsEvent, now: float) -> TtsUtterance | None:
        """Something that the voice said. Returns the utterance that has new sound."""
        match event:
            case ev.TtsConnected():
                self.stream.connected(now)
            case ev.TtsAudio():
                utterance = self.stream.audio_received(event, now)
                return utterance if event.n_bytes else None
            case ev.TtsContextDone(context_id):
                self.context_done(context_id, now)
            case ev.TtsFailed():
                self.failed(event, now)
            case _:
                assert_never(event)
        return None

    def context_done(self, context_id: str, now: float) -> None:
        """A context is closed: the sound of what it said is complete."""
        ended = self.stream.context_done(context_id)
        if isinstance(ended, ev.TtsFailed):
            self.failed(ended, now)
            return
        if ended is not None:
            self._end_part(ended)
            if ended.audio_bytes:
                if len(self._finished) >= MAX_UTTERANCES:
                    del self._finished[next(iter(self._finished))]
                self._finished[ended.key] = ended
        self._proceed(now)
        self.stream.flush(now)

    def failed(self, event: ev.TtsFailed, now: float) -> None:
        """The voice broke; nothing of that is told while nothing was to be said."""
        failure = self.stream.failed(event, now)
        if failure is not None:
            self._fail(failure)

    def cancel_fallback(self) -> None:
        """No other voice can speak in place of this one."""
        self.wants_fallback = False

    def _fail(self, failure: ev.TtsFailed) -> None:
        """Whatever was to be spoken stays text, and the client is told so once a turn."""
        dropped = self.stream.abandon()
        for utterance in dropped:
            self._muted.add(utterance.response_id)
            if utterance.is_announced:
                self._end_part(utterance)
            self._release(utterance)
        if not self.has_failed:
            self.has_failed = self.wants_fallback = True
            code = f" ({failure.code})" if failure.code else ""
            message = f"The voice failed{code}: {failure.message} The answer goes on as text."
            self._emit(SendError("voice_failed", message, retryable=failure.retryable))

    def _end_part(self, utterance: TtsUtterance) -> None:
        total_ms = self._playback.complete(*utterance.key)
        if not utterance.audio_bytes:
            self._playback.parts.pop(utterance.key, None)  # it has no audio after all
        if total_ms is not None:
            self._emit(SendAudioEnd(*utterance.key, total_ms))

    # -- silence ------------------------------------------------------------------------------------------------------

    def interrupt(self, response_id: str | None) -> None:
        """Nothing more is to be heard: of what is being said, and of a response that is under way."""
        if response_id is not None and response_id not in self._muted:  # what failed was read, if not heard
            self._unheard.add(response_id)
            self._muted.add(response_id)
        for utterance in self.stream.cancel():
            self._muted.add(utterance.response_id)
            self._interrupted[utterance.key] = utterance
            self._release(utterance)

    def response_abandoned(self, response_id: str) -> None:
        """A response that was given up before it began: nothing of it is ever heard."""
        self._unheard.add(response_id)

    def heard_text(self, cut: InterruptedPart) -> str | None:
        """What was heard of a clip; None if it is none of a voice that told its text."""
        key = (cut.item_id, cut.content_index)
        utterance = self._interrupted.get(key) or self._finished.get(key)
        return None if utterance is None else _heard_text(utterance, cut)

    def record_interruption(self, cuts: Iterable[InterruptedPart]) -> None:
        """The client is silent: note what of each item was heard."""
        clips = {(cut.item_id, cut.content_index): cut for cut in cuts}
        for key, utterance in {**self._finished, **self._interrupted}.items():
            cut = clips.get(key)
            if cut is None and key in self._finished:
                continue  # played to its end long ago
            heard = _heard_text(utterance, cut) if cut is not None else ""
            for item_id, whole, told in utterance.heard_by_item(heard):
                self._items.get_or_create(item_id).heard_text = told
                if told != whole or not utterance.is_text_complete:
                    self._corrections[item_id] = HistoryCorrection(utterance.response_id, told)
        self._finished.clear()
        self._interrupted.clear()

    def correct_history(self, active_response_id: str | None) -> None:
        """Make the history say what was heard, but for items of the `active_response_id` response, which may still
        grow.
        """
        for item_id, rewrite in list(self._corrections.items()):
            if rewrite.response_id == active_response_id:
                continue
            del self._corrections[item_id]
            entry = self._items.get_or_create(item_id)
            if not entry.in_conversation:
                continue
            self._emit(DeleteItem(item_id, self._next_id()))
            if rewrite.heard_text:
                event_id, new_id = self._next_id(), self._next_id()
                after = self._items.replace(item_id, new_id, rewrite.heard_text)
                item = Item(new_id, "message", "assistant", text=rewrite.heard_text)
                self._emit(CreateItem(item, event_id, after))
            else:
                entry.in_conversation = False


def _heard_text(utterance: TtsUtterance, cut: InterruptedPart) -> str:
    """What was heard of an utterance; all of it, if its clip was played to its end."""
    if cut.action == "keep":
        return utterance.text
    return utterance.aligned_text.heard_text(cut.played_ms, cut.received_ms, finished=utterance.is_audio_complete)
