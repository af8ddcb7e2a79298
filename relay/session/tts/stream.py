"""The stream of one external voice: which context speaks, what it is sent, and when it is given up (D9).

`utterances` is a queue of which only the first speaks. `link` is the connection: down, opening, up. The voice is
connected when a turn begins (`warm`), so that the first sentence does not wait for it. In the mode `final` there is no
connection, and each utterance is sent whole, once all of its text has come.

The voice allows five contexts on a connection. A closed context counts until the voice confirms its end; with all five
taken a new one waits. Audio of a context that no longer speaks is ignored.

`deadline` and `due` serve two timers. A voice that owes audio, or a connection that does not open, fails after
`STALL_TIMEOUT_S`. A context that has nothing to say is kept open every `KEEP_ALIVE_S`. A retryable failure, but no
timeout, leads to one more attempt for an utterance of which no audio came. One that is not retryable is remembered
until the next turn (`refused`, `reset_failure`).
"""

from collections import deque
from collections.abc import Callable
from typing import Literal

from audio.formats import AudioFormat
from relay.session.common.model import TtsOptions
from relay.session.device import events as ev
from relay.session.device.commands import (
    CancelTtsContext,
    Command,
    ConnectTts,
    DisconnectTts,
    FinishTtsContext,
    KeepTtsContextAlive,
    SynthesizeSentence,
    SynthesizeText,
)
from relay.session.tts.alignment import TtsUtterance

MAX_CONTEXTS = 5
MAX_UTTERANCES = 64
STALL_TIMEOUT_S = 10.0
"""How long the voice may take for the sound of what it was sent, and for opening its connection."""
KEEP_ALIVE_S = 10.0
"""How often a context without new text is kept open; the voice closes one after 20 s by default."""
STALLED_MESSAGE = "The voice has said nothing for {:.0f} seconds."


class TtsStream:
    """The voice of one session; `voice_id` speaks in the format `output_format`. Commands go to `emit`."""

    def __init__(
        self,
        voice_id: str,
        output_format: AudioFormat,
        options: TtsOptions,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
    ) -> None:
        self.voice_id = voice_id
        self.output_format = output_format
        self.utterances: deque[TtsUtterance] = deque()
        """The first one speaks; the others wait for it."""
        self.connection: Literal["down", "opening", "up"] = "down"
        self._options = options
        self._emit = emit
        self._next_id = next_id
        self._contexts: dict[str, None] = {}
        self._refusal: ev.TtsFailed | None = None
        self._sent_at = 0.0
        self._last_audio_at = 0.0
        self._kept_alive_at = 0.0
        self._is_unanswered = False

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `check_deadline` is wanted next."""
        if not self.utterances:
            return None
        since = max(self._sent_at, self._last_audio_at)
        return since + STALL_TIMEOUT_S if self._is_audio_pending else max(since, self._kept_alive_at) + KEEP_ALIVE_S

    @property
    def _is_audio_pending(self) -> bool:
        """Whether the voice has been asked for something that has not come."""
        head = self.utterances[0]
        if not head.context_id:
            return self._options.mode == "streaming" and bool(head.unsent_sentences)
        told = head.aligned_text.aligned_chars
        return head.is_end_sent or (self._is_unanswered if told is None else told < head.sent_chars)

    def check_deadline(self, now: float) -> ev.TtsFailed | ev.TtsContextDone | None:
        """Do what the time asks for. Returns what is to be taken as said by a voice that has been silent too long."""
        if self.deadline is None or now < self.deadline:
            return None
        head = self.utterances[0]
        if not self._is_audio_pending:
            self._kept_alive_at = now
            if head.context_id:
                self._emit(KeepTtsContextAlive(head.context_id))
            return None
        if head.is_end_sent and head.aligned_text.aligned_chars == head.aligned_text.n_chars:
            return ev.TtsContextDone(head.context_id)  # all of it came, but for the word that it was all
        return ev.TtsFailed(STALLED_MESSAGE.format(STALL_TIMEOUT_S), "timeout")

    # -- words --------------------------------------------------------------------------------------------------------

    def preconnect(self, now: float) -> None:
        """Have a connection before it is needed; one that was refused for good is not tried over and over."""
        if self._options.mode == "streaming" and self.connection == "down" and self._refusal is None:
            self.connection = "opening"
            self._sent_at = now
            self._emit(ConnectTts(self.voice_id, self.output_format))

    def add(self, event: ev.TextDelta, now: float) -> None:
        """More text of a response."""
        utterance = self.find(event.response_id)
        if utterance is None:
            if not event.text.strip():
                return
            if len(self.utterances) >= MAX_UTTERANCES:
                return  # an upstream that begins and begins: what it says is text only
            utterance = TtsUtterance(event.response_id, event.item_id, event.content_index)
            self.utterances.append(utterance)
            if len(self.utterances) == 1:
                self._sent_at = now
        if not utterance.is_text_complete:
            utterance.add(event.item_id, event.content_index, event.text)
            self.flush(now)

    def part_done(self, response_id: str, now: float) -> None:
        """No more text of one item comes."""
        utterance = self.find(response_id)
        if utterance is not None and not utterance.is_text_complete:
            utterance.part_done()
            self.flush(now)

    def end(self, response_id: str, now: float) -> None:
        """No more text of a response comes."""
        utterance = self.find(response_id)
        if utterance is not None and not utterance.is_text_complete:
            utterance.end_text()
            self.flush(now)

    def find(self, response_id: str) -> TtsUtterance | None:
        """What is being said of a response, or waits to be."""
        return next((one for one in self.utterances if one.response_id == response_id), None)

    def flush(self, now: float) -> None:
        """Send what can be sent: only the first utterance speaks, and only over a connection that stands."""
        if not self.utterances:
            return
        head = self.utterances[0]
        if self._options.mode == "final":
            self._flush_text(head, now)
            return
        if not head.unsent_sentences and not (head.is_text_complete and head.context_id and not head.is_end_sent):
            return
        if self.connection != "up":
            self.preconnect(now)
            return
        if not head.context_id:
            if len(self._contexts) >= MAX_CONTEXTS:
                return
            head.context_id = self._next_id()
            self._contexts[head.context_id] = None
        for sentence in head.take_sentences():
            self._emit(SynthesizeSentence(head.context_id, sentence))
        if head.is_text_complete and not head.is_end_sent:
            head.is_end_sent = True
            self._emit(FinishTtsContext(head.context_id))
        self._sent_at, self._is_unanswered = now, True

    def _flush_text(self, head: TtsUtterance, now: float) -> None:
        if head.is_text_complete and not head.context_id:
            head.context_id = self._next_id()
            head.take_sentences()
            head.is_end_sent = True
            self._sent_at = now
            self._emit(SynthesizeText(head.context_id, self.voice_id, self.output_format, head.text.strip()))

    # -- silence ------------------------------------------------------------------------------------------------------

    def cancel(self) -> list[TtsUtterance]:
        """Close the context that speaks, at once, and let nothing follow. Returns what is no longer said."""
        hushed = list(self.utterances)
        self.utterances.clear()
        for utterance in hushed:
            if utterance.context_id:
                self._emit(CancelTtsContext(utterance.context_id))
        return hushed

    def abandon(self) -> list[TtsUtterance]:
        """Nothing of what waits can be said. Returns it; a context that may still speak goes with its connection."""
        dropped = list(self.utterances)
        self.utterances.clear()
        if dropped and dropped[0].context_id:
            if self._options.mode == "final":
                self._emit(CancelTtsContext(dropped[0].context_id))
            elif self.connection != "down":
                self.close()
        elif self.connection == "opening":
            self.close()
        return dropped

    def close(self) -> None:
        """The session needs this voice no more."""
        self.utterances.clear()
        self._contexts.clear()
        self.connection = "down"
        self._emit(DisconnectTts())

    # -- what the voice says ------------------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """The connection stands."""
        if self.connection == "opening":
            self.connection = "up"
            self.flush(now)

    def utterance_for_context(self, context_id: str) -> TtsUtterance | None:
        """What a context speaks; None if nobody wants to hear it any more."""
        head = self.utterances[0] if self.utterances else None
        return head if head is not None and head.context_id and head.context_id == context_id else None

    def audio_received(self, event: ev.TtsAudio, now: float) -> TtsUtterance | None:
        """Audio came. Returns whose it is; None if nobody wants to hear it any more."""
        head = self.utterance_for_context(event.context_id)
        if head is None:
            return None
        head.aligned_text.align(event.alignment, head.audio_bytes // self.output_format.bytes_per_ms)
        head.audio_bytes += event.n_bytes
        self._last_audio_at, self._is_unanswered = now, False
        return head

    def context_done(self, context_id: str) -> TtsUtterance | ev.TtsFailed | None:
        """A context is closed. Returns the utterance whose sound is complete by it; then call `flush`."""
        self._contexts.pop(context_id, None)
        head = self.utterance_for_context(context_id)
        if head is None:
            return None
        if not head.is_end_sent:
            return ev.TtsFailed("The voice ended before its text did.", "ended_early", context_id=context_id)
        head.is_audio_complete = True
        return self.utterances.popleft()

    def failed(self, event: ev.TtsFailed, now: float) -> ev.TtsFailed | None:
        """The voice broke. Returns the failure, if something was to be said by it that can't be said any more."""
        if event.context_id:
            self._contexts.pop(event.context_id, None)
            if not self.utterances or self.utterances[0].context_id != event.context_id:
                return None  # nobody waits for it any more
        elif self._options.mode == "streaming":
            self._connection_lost(event)
        if not self.utterances:
            return None
        head = self.utterances[0]
        if event.retryable and event.code != "timeout" and head.attempts == 0 and head.audio_bytes == 0:
            # A connection that was dropped while nobody spoke is found out by the first word.
            head.reset_for_retry()
            self.flush(now)
            return None
        return event

    def known_failure(self) -> ev.TtsFailed | None:
        """Why there will be no sound for what is to be said now, if that is known already."""
        return self._refusal if self.utterances else None

    def reset_failure(self) -> None:
        """A new turn: what was refused before may work now, if somebody has seen to it."""
        self._refusal = None

    def _connection_lost(self, event: ev.TtsFailed) -> None:
        if self.connection != "down":
            self._emit(DisconnectTts())
        self.connection = "down"
        self._contexts.clear()
        if not event.retryable:
            self._refusal = event
