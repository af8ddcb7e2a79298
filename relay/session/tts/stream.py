"""The stream of one external voice: what it is sent, which context speaks, and how failures are handled (D9).

`utterances` is a queue of which only the first one speaks. The voice is connected when a turn begins (`preconnect`), so
that the first sentence does not wait for the connection. In the mode `final` there is no connection, and each utterance
is sent in one request when its text is complete.

The voice allows five contexts on a connection. A closed context counts until the voice confirms its end; meanwhile a
sixth one waits. Audio of a context that no longer speaks is ignored.

`deadline` and `check_deadline` serve two timers. A voice whose audio is pending, or a connection that does not open,
fails after `STALL_TIMEOUT_S`. A context without new text is kept alive every `KEEP_ALIVE_S`. After a retryable failure
other than a timeout, an utterance without any audio is sent once more. A failure that is not retryable is remembered
until the next turn (`known_failure`, `reset_failure`).
"""

from collections import deque
from collections.abc import Callable
from typing import Literal

from audio.formats import AudioFormat
from relay.session.common.model import TtsOptions
from relay.session.device.upstream_events import TextDelta
from relay.session.tts.alignment import TtsUtterance
from relay.session.tts.commands import (
    CancelTtsContext,
    ConnectTts,
    DisconnectTts,
    FinishTtsContext,
    KeepTtsContextAlive,
    SynthesizeSentence,
    SynthesizeText,
    TtsCommand,
)
from relay.session.tts.events import TtsAudio, TtsContextDone, TtsFailed

MAX_CONTEXTS = 5
MAX_UTTERANCES = 64
STALL_TIMEOUT_S = 10.0
"""How long the voice may take for the audio of text that it was sent, or for opening its connection."""
KEEP_ALIVE_S = 10.0
"""How often a context without new text is kept alive; the voice closes one after 20 s by default."""
STALLED_MESSAGE = "The voice sent no audio for {:.0f} seconds."


class TtsStream:
    """The stream of one external voice for one session. Commands go to `emit`, ids come from `next_id`."""

    def __init__(
        self,
        voice_id: str,
        output_format: AudioFormat,
        options: TtsOptions,
        emit: Callable[[TtsCommand], None],
        next_id: Callable[[], str],
    ) -> None:
        self.voice_id = voice_id
        self.output_format = output_format
        self.utterances: deque[TtsUtterance] = deque()
        """The current utterance, then the queued ones."""
        self.connection: Literal["down", "opening", "up"] = "down"
        self._options = options
        self._emit = emit
        self._next_id = next_id
        self._contexts: dict[str, None] = {}
        self._refusal: TtsFailed | None = None
        self._sent_at = 0.0
        self._last_audio_at = 0.0
        self._kept_alive_at = 0.0
        self._is_unanswered = False

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """The time for the next call of `check_deadline`; None if nothing is spoken or queued."""
        if not self.utterances:
            return None
        since = max(self._sent_at, self._last_audio_at)
        return since + STALL_TIMEOUT_S if self._is_audio_pending else max(since, self._kept_alive_at) + KEEP_ALIVE_S

    @property
    def _is_audio_pending(self) -> bool:
        """Whether the voice was sent text whose audio has not come, or is still connecting."""
        head = self.utterances[0]
        if not head.context_id:
            return self._options.mode == "streaming" and bool(head.unsent_sentences)
        aligned_chars = head.aligned_text.aligned_chars
        return head.is_end_sent or (self._is_unanswered if aligned_chars is None else aligned_chars < head.sent_chars)

    def check_deadline(self, now: float) -> TtsFailed | TtsContextDone | None:
        """Keep the context alive if it is time. Returns the event to assume if the voice has stalled."""
        if self.deadline is None or now < self.deadline:
            return None
        head = self.utterances[0]
        if not self._is_audio_pending:
            self._kept_alive_at = now
            if head.context_id:
                self._emit(KeepTtsContextAlive(head.context_id))
            return None
        if head.is_end_sent and head.aligned_text.aligned_chars == head.aligned_text.n_chars:
            return TtsContextDone(head.context_id)  # all audio came; only the confirmation is missing
        return TtsFailed(STALLED_MESSAGE.format(STALL_TIMEOUT_S), "timeout")

    # -- text ---------------------------------------------------------------------------------------------------------

    def preconnect(self, now: float) -> None:
        """Connect before the voice is needed, unless it has failed in a way that is not retryable."""
        if self._options.mode == "streaming" and self.connection == "down" and self._refusal is None:
            self.connection = "opening"
            self._sent_at = now
            self._emit(ConnectTts(self.voice_id, self.output_format))

    def add(self, event: TextDelta, now: float) -> None:
        """Add text of a response. If `MAX_UTTERANCES` are queued, a further response is not spoken."""
        utterance = self.find(event.response_id)
        if utterance is None:
            if not event.text.strip() or len(self.utterances) >= MAX_UTTERANCES:
                return
            utterance = TtsUtterance(event.response_id, event.item_id, event.content_index)
            self.utterances.append(utterance)
            if len(self.utterances) == 1:
                self._sent_at = now
        if not utterance.is_text_complete:
            utterance.add(event.item_id, event.content_index, event.text)
            self.flush(now)

    def end_part(self, response_id: str, now: float) -> None:
        """Complete the text of one item."""
        utterance = self.find(response_id)
        if utterance is not None and not utterance.is_text_complete:
            utterance.end_part()
            self.flush(now)

    def end(self, response_id: str, now: float) -> None:
        """Complete the text of a response."""
        utterance = self.find(response_id)
        if utterance is not None and not utterance.is_text_complete:
            utterance.end_text()
            self.flush(now)

    def find(self, response_id: str) -> TtsUtterance | None:
        """Return the unfinished utterance of a response; None if there is none."""
        return next((utterance for utterance in self.utterances if utterance.response_id == response_id), None)

    def flush(self, now: float) -> None:
        """Send what can be sent: text of the first utterance, and only over an open connection."""
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

    # -- interruption and failure -------------------------------------------------------------------------------------

    def cancel(self) -> list[TtsUtterance]:
        """Cancel the current context and all queued utterances. Returns the cancelled utterances."""
        cancelled_utterances = list(self.utterances)
        self.utterances.clear()
        for utterance in cancelled_utterances:
            if utterance.context_id:
                self._emit(CancelTtsContext(utterance.context_id))
        return cancelled_utterances

    def abandon(self) -> list[TtsUtterance]:
        """Drop all utterances, which cannot be spoken. Returns them. The connection of an open context is closed."""
        dropped_utterances = list(self.utterances)
        self.utterances.clear()
        if dropped_utterances and dropped_utterances[0].context_id:
            if self._options.mode == "final":
                self._emit(CancelTtsContext(dropped_utterances[0].context_id))
            elif self.connection != "down":
                self.close()
        elif self.connection == "opening":
            self.close()
        return dropped_utterances

    def close(self) -> None:
        """Disconnect from the voice."""
        self.utterances.clear()
        self._contexts.clear()
        self.connection = "down"
        self._emit(DisconnectTts())

    # -- events of the voice ------------------------------------------------------------------------------------------

    def on_connected(self, now: float) -> None:
        """Send what was waiting for the connection."""
        if self.connection == "opening":
            self.connection = "up"
            self.flush(now)

    def utterance_for_context(self, context_id: str) -> TtsUtterance | None:
        """Return the utterance that a context speaks; None if its audio is discarded."""
        head = self.utterances[0] if self.utterances else None
        return head if head is not None and head.context_id and head.context_id == context_id else None

    def on_audio_received(self, event: TtsAudio, now: float) -> TtsUtterance | None:
        """Count audio of a context. Returns its utterance; None if the audio is discarded."""
        head = self.utterance_for_context(event.context_id)
        if head is None:
            return None
        head.aligned_text.align(event.alignment, head.audio_bytes // self.output_format.bytes_per_ms)
        head.audio_bytes += event.n_bytes
        self._last_audio_at, self._is_unanswered = now, False
        return head

    def on_context_done(self, context_id: str) -> TtsUtterance | TtsFailed | None:
        """Handle the end of a context. Returns the utterance whose audio is complete now; then call `flush`."""
        self._contexts.pop(context_id, None)
        head = self.utterance_for_context(context_id)
        if head is None:
            return None
        if not head.is_end_sent:
            return TtsFailed("The voice ended before the text was complete.", "ended_early", context_id=context_id)
        head.is_audio_complete = True
        return self.utterances.popleft()

    def on_failed(self, event: TtsFailed, now: float) -> TtsFailed | None:
        """Handle a failure of the voice. Returns the failure if it prevents an utterance from being spoken."""
        if event.context_id:
            self._contexts.pop(event.context_id, None)
            if not self.utterances or self.utterances[0].context_id != event.context_id:
                return None  # its audio was discarded anyway
        elif self._options.mode == "streaming":
            self._on_connection_lost(event)
        if not self.utterances:
            return None
        head = self.utterances[0]
        if event.retryable and event.code != "timeout" and head.attempts == 0 and head.audio_bytes == 0:
            # The loss of an idle connection may be noticed only when the first sentence is sent.
            head.reset_for_retry()
            self.flush(now)
            return None
        return event

    def known_failure(self) -> TtsFailed | None:
        """Return a known failure that prevents the first utterance from being spoken; None if there is none."""
        return self._refusal if self.utterances else None

    def reset_failure(self) -> None:
        """Forget the known failure: its cause may have been fixed."""
        self._refusal = None

    def _on_connection_lost(self, event: TtsFailed) -> None:
        if self.connection != "down":
            self._emit(DisconnectTts())
        self.connection = "down"
        self._contexts.clear()
        if not event.retryable:
            self._refusal = event
