"""Joins an external voice to playback, conversation and responses; corrects the history after a barge-in (D9, D2.4).

The text of a response goes sentence by sentence to `TtsStream`. The first utterance in the queue is announced by
`SendAudioStart` and ended by `SendAudioEnd`. If a response ends before it was announced, its end is deferred until
then, so that the client knows that audio follows.

Speech outlasts its response: the text is complete long before all of its audio is played. On a barge-in `interrupt`
cancels the context, and the client reports what it played. `record_interruption` records the heard text of each item.
An item of text cannot be truncated, so `correct_history` deletes it and creates it again with its heard text. Items of
the active response are corrected when it is done. Further text of an interrupted response is neither spoken nor kept.

When the voice fails, the rest of the turn is text only, and the client is sent one `voice_failed`. `wants_fallback`
makes the session use the model's own voice from the next turn on, if the settings name one.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, assert_never

from relay.session.common.bounded_set import BoundedSet
from relay.session.common.media_types import PartKey
from relay.session.common.model import Item
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
from relay.session.device.upstream_events import ResponseDone, TextDelta
from relay.session.tts.alignment import TtsUtterance
from relay.session.tts.events import TtsAudio, TtsConnected, TtsContextDone, TtsEvent, TtsFailed
from relay.session.tts.stream import MAX_UTTERANCES, TtsStream


class HistoryCorrection(NamedTuple):
    """The heard text of an item, to which it is corrected as soon as its response has ended."""

    response_id: str
    heard_text: str


class TtsSpeaker:
    """Speaks a session's responses with an external voice. Commands go to `emit`, ids come from `next_id`."""

    def __init__(
        self,
        stream: TtsStream,
        playback: PlaybackLedger,
        conversation: ConversationLog,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
    ) -> None:
        self.stream = stream
        self.has_failed = False
        """Whether text of this turn could not be spoken."""
        self.wants_fallback = False
        """Whether the model's own voice is to speak from the next turn on, if the settings name one."""
        self._playback = playback
        self._conversation = conversation
        self._emit = emit
        self._next_id = next_id
        self._finished_utterances: dict[PartKey, TtsUtterance] = {}
        self._interrupted_utterances: dict[PartKey, TtsUtterance] = {}
        self._corrections: dict[str, HistoryCorrection] = {}
        self._unheard_response_ids = BoundedSet(MAX_UTTERANCES)
        self._muted_response_ids = BoundedSet(MAX_UTTERANCES)
        self._deferred_ends: dict[str, SendResponseEnd] = {}

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Handle the stream's deadline."""
        overdue_event = self.stream.check_deadline(now)
        if isinstance(overdue_event, TtsContextDone):
            self.on_context_done(overdue_event.context_id, now)
        elif overdue_event is not None:
            self.on_failed(overdue_event, now)

    def begin_turn(self, now: float) -> None:
        """Connect to the voice for a new turn, also after a failure."""
        if not self.stream.utterances:
            self.has_failed = False
            self.stream.reset_failure()
            self.stream.preconnect(now)

    # -- text ---------------------------------------------------------------------------------------------------------

    def on_text_delta(self, event: TextDelta, now: float) -> None:
        """Queue a delta of the model's text to be spoken."""
        if event.spoken or event.response_id in self._muted_response_ids:
            return
        self.stream.add(event, now)
        self._announce_next(now)

    def on_part_done(self, response_id: str, now: float) -> None:
        """Complete the text of one item."""
        self.stream.end_part(response_id, now)
        self._announce_next(now)

    def on_response_done(self, event: ResponseDone, now: float) -> None:
        """Complete the text of a response. Items of an unheard response are to be deleted from the history."""
        if event.response_id in self._unheard_response_ids:
            for item in event.output:
                if item.kind == "message" and item.id:
                    self._corrections.setdefault(item.id, HistoryCorrection(event.response_id, ""))
        self.stream.end(event.response_id, now)
        self._announce_next(now)

    def defer_end(self, response_id: str, end: SendResponseEnd) -> bool:
        """Defer the end of a response until its audio is announced. Returns False if it can end now."""
        utterance = self.stream.find(response_id)
        if utterance is None or utterance.is_announced:
            return False
        self._deferred_ends[response_id] = end
        return True

    def _announce_next(self, now: float) -> None:
        """Announce the first utterance; if the voice is known to have failed, report that."""
        failure = self.stream.known_failure()
        if self.stream.utterances and not self.stream.utterances[0].is_announced:
            head = self.stream.utterances[0]
            head.is_announced = True
            self._playback.start(*head.key, head.response_id, source="tts")
            self._conversation.get_or_create(head.key[0])
            self._emit(SendAudioStart(*head.key))
            self._send_deferred_end(head)
        if failure is not None:
            self._drop_speech(failure)

    def _send_deferred_end(self, utterance: TtsUtterance) -> None:
        end = self._deferred_ends.pop(utterance.response_id, None)
        if end is not None:
            self._emit(end)

    # -- audio --------------------------------------------------------------------------------------------------------

    def handle(self, event: TtsEvent, now: float) -> TtsUtterance | None:
        """Handle an event of the voice. Returns the utterance that has new audio."""
        match event:
            case TtsConnected():
                self.stream.on_connected(now)
            case TtsAudio():
                utterance = self.stream.on_audio_received(event, now)
                return utterance if event.n_bytes else None
            case TtsContextDone(context_id):
                self.on_context_done(context_id, now)
            case TtsFailed():
                self.on_failed(event, now)
            case _:
                assert_never(event)
        return None

    def on_context_done(self, context_id: str, now: float) -> None:
        """Complete the audio of a context."""
        result = self.stream.on_context_done(context_id)
        if isinstance(result, TtsFailed):
            self.on_failed(result, now)
            return
        if result is not None:
            self._end_part(result)
            if result.audio_bytes:
                if len(self._finished_utterances) >= MAX_UTTERANCES:
                    del self._finished_utterances[next(iter(self._finished_utterances))]
                self._finished_utterances[result.key] = result
        self._announce_next(now)
        self.stream.flush(now)

    def on_failed(self, event: TtsFailed, now: float) -> None:
        """Handle a failure of the voice; it is reported only if text could not be spoken."""
        failure = self.stream.on_failed(event, now)
        if failure is not None:
            self._drop_speech(failure)

    def cancel_fallback(self) -> None:
        """Keep this voice: the model's own voice was refused."""
        self.wants_fallback = False

    def _drop_speech(self, failure: TtsFailed) -> None:
        """Drop what was to be spoken, and send the client one error a turn."""
        for utterance in self.stream.abandon():
            self._muted_response_ids.add(utterance.response_id)
            if utterance.is_announced:
                self._end_part(utterance)
            self._send_deferred_end(utterance)
        if not self.has_failed:
            self.has_failed = self.wants_fallback = True
            code = f" ({failure.code})" if failure.code else ""
            message = f"The voice failed{code}: {failure.message} The answer continues as text."
            self._emit(SendError("voice_failed", message, retryable=failure.retryable))

    def _end_part(self, utterance: TtsUtterance) -> None:
        total_ms = self._playback.complete(*utterance.key)
        if not utterance.audio_bytes:
            self._playback.parts.pop(utterance.key, None)  # it has no audio
        if total_ms is not None:
            self._emit(SendAudioEnd(*utterance.key, total_ms))

    # -- interruption -------------------------------------------------------------------------------------------------

    def interrupt(self, response_id: str | None) -> None:
        """Cancel all speech, and discard further text of the active response."""
        if (
            response_id is not None and response_id not in self._muted_response_ids
        ):  # after a failure the client got it as text
            self._unheard_response_ids.add(response_id)
            self._muted_response_ids.add(response_id)
        for utterance in self.stream.cancel():
            self._muted_response_ids.add(utterance.response_id)
            self._interrupted_utterances[utterance.key] = utterance
            self._send_deferred_end(utterance)

    def on_response_abandoned(self, response_id: str) -> None:
        """Record that a response was cancelled before it began: none of it is heard."""
        self._unheard_response_ids.add(response_id)

    def heard_text(self, part: InterruptedPart) -> str | None:
        """Return the heard text of an interrupted part; None if this voice did not speak it."""
        key = (part.item_id, part.content_index)
        utterance = self._interrupted_utterances.get(key) or self._finished_utterances.get(key)
        return None if utterance is None else _heard_text(utterance, part)

    def record_interruption(self, parts: Iterable[InterruptedPart]) -> None:
        """Record what was heard of each item; the items that need a correction are corrected later."""
        parts_by_key = {(part.item_id, part.content_index): part for part in parts}
        for key, utterance in {**self._finished_utterances, **self._interrupted_utterances}.items():
            part = parts_by_key.get(key)
            if part is None and key in self._finished_utterances:
                continue  # it was played completely long ago
            heard_text = _heard_text(utterance, part) if part is not None else ""
            for item_id, whole_text, heard_of_item in utterance.heard_by_item(heard_text):
                self._conversation.get_or_create(item_id).heard_text = heard_of_item
                if heard_of_item != whole_text or not utterance.is_text_complete:
                    self._corrections[item_id] = HistoryCorrection(utterance.response_id, heard_of_item)
        self._finished_utterances.clear()
        self._interrupted_utterances.clear()

    def correct_history(self, active_response_id: str | None) -> None:
        """Correct the items to what was heard, except those of the active response, which may still grow."""
        for item_id, correction in list(self._corrections.items()):
            if correction.response_id != active_response_id:
                del self._corrections[item_id]
                self._correct_item(item_id, correction.heard_text)

    def _correct_item(self, item_id: str, heard_text: str) -> None:
        entry = self._conversation.get_or_create(item_id)
        if not entry.in_conversation:
            return
        self._emit(DeleteItem(item_id, self._next_id()))
        if heard_text:
            event_id, new_id = self._next_id(), self._next_id()
            after_id = self._conversation.replace(item_id, new_id, heard_text)
            item = Item(new_id, "message", "assistant", text=heard_text)
            self._emit(CreateItem(item, event_id, after_id))
        else:
            entry.in_conversation = False


def _heard_text(utterance: TtsUtterance, part: InterruptedPart) -> str:
    if part.action == "keep":
        return utterance.text
    return utterance.aligned_text.heard_text(
        part.played_ms, part.received_ms, is_audio_complete=utterance.is_audio_complete
    )
