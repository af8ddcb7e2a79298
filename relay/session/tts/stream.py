"""The stream of one external voice: which context speaks, what it is sent, and when it is given up (D9).

`utterances` is a queue of which only the first speaks. `link` is the connection: down, opening, up. The voice is
connected when a turn begins (`warm`), so that the first sentence does not wait for it. In the mode `final` there is no
connection, and each utterance is sent whole, once all of its text has come.

The voice allows five contexts on a connection. A closed context counts until the voice confirms its end; with all five
taken a new one waits. Audio of a context that no longer speaks is ignored.

`deadline` and `due` serve two timers. A voice that owes audio, or a connection that does not open, fails after
`STALL_S`. A context that has nothing to say is kept open every `KEEP_S`. A retryable failure, but no timeout, leads to
one more attempt for an utterance of which no audio came. One that is not retryable is
remembered until the next turn (`refused`, `forgive`).
"""

from collections import deque
from collections.abc import Callable
from typing import Literal

from audio.formats import AudioFormat
from relay.session.common.model import SpeechRules
from relay.session.device import events as ev
from relay.session.device.commands import (
    CloseVoice,
    Command,
    EndSpeech,
    HushSpeech,
    KeepSpeech,
    OpenVoice,
    SpeakText,
    SpeakWhole,
)
from relay.session.tts.alignment import Utterance

MAX_CONTEXTS = 5
MAX_UTTERANCES = 64
STALL_S = 10.0
"""How long the voice may take for the sound of what it was sent, and for opening its connection."""
KEEP_S = 10.0
"""How often a context without new text is kept open; the voice closes one after 20 s by default."""
LOST = "The voice has said nothing for {:.0f} seconds."


class Voice:
    """The voice of one session; `voice_id` speaks in the format `output`. Commands go to `emit`."""

    def __init__(
        self,
        voice_id: str,
        output: AudioFormat,
        rules: SpeechRules,
        emit: Callable[[Command], None],
        next_id: Callable[[], str],
    ) -> None:
        self.voice_id = voice_id
        self.output = output
        self.utterances: deque[Utterance] = deque()
        """The first one speaks; the others wait for it."""
        self.link: Literal["down", "opening", "up"] = "down"
        self._rules = rules
        self._emit = emit
        self._next_id = next_id
        self._contexts: dict[str, None] = {}
        self._refusal: ev.VoiceFailed | None = None
        self._sent_at = 0.0
        self._heard_at = 0.0
        self._kept_at = 0.0
        self._is_unanswered = False

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float | None:
        """When `due` is wanted next."""
        if not self.utterances:
            return None
        since = max(self._sent_at, self._heard_at)
        return since + STALL_S if self._is_owed else max(since, self._kept_at) + KEEP_S

    @property
    def _is_owed(self) -> bool:
        """Whether the voice has been asked for something that has not come."""
        head = self.utterances[0]
        if not head.context_id:
            return self._rules.mode == "streaming" and bool(head.waiting)
        told = head.spoken.told_letters
        return head.ended or (self._is_unanswered if told is None else told < head.sent_letters)

    def due(self, now: float) -> ev.VoiceFailed | ev.VoiceFinished | None:
        """Do what the time asks for. Returns what is to be taken as said by a voice that has been silent too long."""
        if self.deadline is None or now < self.deadline:
            return None
        head = self.utterances[0]
        if not self._is_owed:
            self._kept_at = now
            if head.context_id:
                self._emit(KeepSpeech(head.context_id))
            return None
        if head.ended and head.spoken.told_letters == head.spoken.n_letters:
            return ev.VoiceFinished(head.context_id)  # all of it came, but for the word that it was all
        return ev.VoiceFailed(LOST.format(STALL_S), "timeout")

    # -- words --------------------------------------------------------------------------------------------------------

    def warm(self, now: float) -> None:
        """Have a connection before it is needed; one that was refused for good is not tried over and over."""
        if self._rules.mode == "streaming" and self.link == "down" and self._refusal is None:
            self.link = "opening"
            self._sent_at = now
            self._emit(OpenVoice(self.voice_id, self.output))

    def add(self, event: ev.TextDelta, now: float) -> None:
        """More text of a response."""
        utterance = self.find(event.response_id)
        if utterance is None:
            if not event.text.strip():
                return
            if len(self.utterances) >= MAX_UTTERANCES:
                return  # an upstream that begins and begins: what it says is text only
            utterance = Utterance(event.response_id, event.item_id, event.content_index)
            self.utterances.append(utterance)
            if len(self.utterances) == 1:
                self._sent_at = now
        if not utterance.complete:
            utterance.add(event.item_id, event.content_index, event.text)
            self.pump(now)

    def part_done(self, response_id: str, now: float) -> None:
        """No more text of one item comes."""
        utterance = self.find(response_id)
        if utterance is not None and not utterance.complete:
            utterance.part_done()
            self.pump(now)

    def end(self, response_id: str, now: float) -> None:
        """No more text of a response comes."""
        utterance = self.find(response_id)
        if utterance is not None and not utterance.complete:
            utterance.end()
            self.pump(now)

    def find(self, response_id: str) -> Utterance | None:
        """What is being said of a response, or waits to be."""
        return next((one for one in self.utterances if one.response_id == response_id), None)

    def pump(self, now: float) -> None:
        """Send what can be sent: only the first utterance speaks, and only over a connection that stands."""
        if not self.utterances:
            return
        head = self.utterances[0]
        if self._rules.mode == "final":
            self._pump_whole(head, now)
            return
        if not head.waiting and not (head.complete and head.context_id and not head.ended):
            return
        if self.link != "up":
            self.warm(now)
            return
        if not head.context_id:
            if len(self._contexts) >= MAX_CONTEXTS:
                return
            head.context_id = self._next_id()
            self._contexts[head.context_id] = None
        for sentence in head.take():
            self._emit(SpeakText(head.context_id, sentence))
        if head.complete and not head.ended:
            head.ended = True
            self._emit(EndSpeech(head.context_id))
        self._sent_at, self._is_unanswered = now, True

    def _pump_whole(self, head: Utterance, now: float) -> None:
        if head.complete and not head.context_id:
            head.context_id = self._next_id()
            head.take()
            head.ended = True
            self._sent_at = now
            self._emit(SpeakWhole(head.context_id, self.voice_id, self.output, head.text.strip()))

    # -- silence ------------------------------------------------------------------------------------------------------

    def hush(self) -> list[Utterance]:
        """Close the context that speaks, at once, and let nothing follow. Returns what is no longer said."""
        hushed = list(self.utterances)
        self.utterances.clear()
        for utterance in hushed:
            if utterance.context_id:
                self._emit(HushSpeech(utterance.context_id))
        return hushed

    def give_up(self) -> list[Utterance]:
        """Nothing of what waits can be said. Returns it; a context that may still speak goes with its connection."""
        dropped = list(self.utterances)
        self.utterances.clear()
        if dropped and dropped[0].context_id:
            if self._rules.mode == "final":
                self._emit(HushSpeech(dropped[0].context_id))
            elif self.link != "down":
                self.close()
        elif self.link == "opening":
            self.close()
        return dropped

    def close(self) -> None:
        """The session needs this voice no more."""
        self.utterances.clear()
        self._contexts.clear()
        self.link = "down"
        self._emit(CloseVoice())

    # -- what the voice says ------------------------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """The connection stands."""
        if self.link == "opening":
            self.link = "up"
            self.pump(now)

    def speaking(self, context_id: str) -> Utterance | None:
        """What a context speaks; None if nobody wants to hear it any more."""
        head = self.utterances[0] if self.utterances else None
        return head if head is not None and head.context_id and head.context_id == context_id else None

    def spoke(self, event: ev.VoiceSpoke, now: float) -> Utterance | None:
        """Audio came. Returns whose it is; None if nobody wants to hear it any more."""
        head = self.speaking(event.context_id)
        if head is None:
            return None
        head.spoken.align(event.alignment, head.audio_bytes // self.output.bytes_per_ms)
        head.audio_bytes += event.n_bytes
        self._heard_at, self._is_unanswered = now, False
        return head

    def finished(self, context_id: str) -> Utterance | ev.VoiceFailed | None:
        """A context is closed. Returns the utterance whose sound is complete by it; then call `pump`."""
        self._contexts.pop(context_id, None)
        head = self.speaking(context_id)
        if head is None:
            return None
        if not head.ended:
            return ev.VoiceFailed("The voice ended before its text did.", "ended_early", context_id=context_id)
        head.finished = True
        return self.utterances.popleft()

    def failed(self, event: ev.VoiceFailed, now: float) -> ev.VoiceFailed | None:
        """The voice broke. Returns the failure, if something was to be said by it that can't be said any more."""
        if event.context_id:
            self._contexts.pop(event.context_id, None)
            if not self.utterances or self.utterances[0].context_id != event.context_id:
                return None  # nobody waits for it any more
        elif self._rules.mode == "streaming":
            self._lose(event)
        if not self.utterances:
            return None
        head = self.utterances[0]
        if event.retryable and event.code != "timeout" and head.attempts == 0 and head.audio_bytes == 0:
            # A connection that was dropped while nobody spoke is found out by the first word.
            head.restart()
            self.pump(now)
            return None
        return event

    def refused(self) -> ev.VoiceFailed | None:
        """Why there will be no sound for what is to be said now, if that is known already."""
        return self._refusal if self.utterances else None

    def forgive(self) -> None:
        """A new turn: what was refused before may work now, if somebody has seen to it."""
        self._refusal = None

    def _lose(self, event: ev.VoiceFailed) -> None:
        if self.link != "down":
            self._emit(CloseVoice())
        self.link = "down"
        self._contexts.clear()
        if not event.retryable:
            self._refusal = event
