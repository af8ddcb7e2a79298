"""Tracks the progress of one turn from the relay's events. Pure: the time is an argument."""

from dataclasses import dataclass
from typing import Literal

from relay.client import (
    AudioEndEvent,
    AudioStartEvent,
    InterruptedEvent,
    LatencyEvent,
    RelayEvent,
    ResponseEndedEvent,
    ResponseStartedEvent,
    SpeechEndedEvent,
    SpeechStartedEvent,
    TranscriptEvent,
)

TAIL_S = 1.0
"""The silence after a file, because speech at its end may not be detected yet."""
NO_SPEECH_S = 5.0
"""The silence after which a file counts as one without speech."""
SETTLE_S = 1.0
"""The wait for the audio of an item after its text, which may arrive earlier because audio is paced."""
LINGER_S = 1.5
"""The wait for the user's transcript and the latency after the answer."""
MAX_ITEMS = 1024
"""The limit of tracked items; the turn does not wait for the end of further ones."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a turn. `until` is the time at which "wait" changes without an event (None: never)."""

    state: Literal["wait", "over", "no_speech", "timeout"]
    until: float | None = None


class TurnTracker:
    """One turn, spoken or typed; `input_ends_at` is the time in seconds at which its last audio or text is sent.

    A turn is over when a response without a follow-up has ended, and all announced audio has arrived.
    """

    def __init__(self, *, spoken: bool, input_ends_at: float, timeout_s: float) -> None:
        self._spoken = spoken
        self._input_ends_at = input_ends_at
        self._timeout_s = timeout_s
        self._last_event_at = input_ends_at
        self._over_at: float | None = None
        self._response_pending = not spoken  # a response that has not begun
        self._ended = False  # a response without follow-up has ended
        self._user_speaking = False
        self._playing: set[str] = set()
        self._items_with_text: set[str] = set()
        self._items_with_audio: set[str] = set()
        self._has_text = False
        self._transcript_pending = False
        self._latency_pending = False
        self.answer_started = False
        self.speech_detected = False
        self.user_text = ""
        self.status = ""

    def feed(self, event: RelayEvent, now: float) -> None:
        """Handle an event."""
        self._last_event_at = now
        match event:
            case SpeechStartedEvent():
                self.speech_detected = self._user_speaking = self._response_pending = True
            case SpeechEndedEvent():
                self._user_speaking = False
                self._transcript_pending = True
            case ResponseStartedEvent():
                # A response that begins while the user speaks is of an earlier turn.
                self._response_pending = self._user_speaking
                self.answer_started = True
                self._ended = False
            case ResponseEndedEvent(final_text=text, status=status, more=more):
                self.status = status
                self._ended = not more
                self._has_text = bool(text)
            case AudioStartEvent(item_id=item_id):
                self._latency_pending = self._latency_pending or not self._items_with_audio
                if item_id and len(self._items_with_audio) < MAX_ITEMS:
                    self._playing.add(item_id)
                    self._items_with_audio.add(item_id)
            case AudioEndEvent(item_id=item_id) | InterruptedEvent(item_id=item_id):
                self._playing.discard(item_id)
                if len(self._items_with_audio) < MAX_ITEMS:
                    self._items_with_audio.add(item_id)
            case TranscriptEvent():
                self._feed_transcript(event)
            case LatencyEvent():
                self._latency_pending = False

    def _feed_transcript(self, event: TranscriptEvent) -> None:
        if event.role == "user":
            self.user_text = event.text if event.final else (self.user_text + event.text)[:1000]
            self._transcript_pending = self._transcript_pending and not event.final
        elif event.final and event.text and event.item_id and len(self._items_with_text) < MAX_ITEMS:
            self._items_with_text.add(event.item_id)

    def verdict(self, now: float) -> Verdict:
        """Return the state of the turn at `now`."""
        if self._ended and not self._response_pending and not self._user_speaking and not self._playing:
            return self._verdict_after_answer(now)
        self._over_at = None
        if now < self._input_ends_at:
            return Verdict("wait", self._input_ends_at)
        if self._spoken and not self.speech_detected and not self.answer_started:
            until = self._input_ends_at + min(NO_SPEECH_S, self._timeout_s)
            return Verdict("no_speech" if now >= until else "wait", until)
        until = max(self._last_event_at, self._input_ends_at) + self._timeout_s
        return Verdict("timeout" if now >= until else "wait", until)

    def _verdict_after_answer(self, now: float) -> Verdict:
        """Return the state after the answer: wait briefly for events that may still follow."""
        until = self._input_ends_at + (TAIL_S if self._spoken else 0)
        if self._items_with_text - self._items_with_audio or (self._has_text and not self._items_with_audio):
            until = max(until, self._last_event_at + SETTLE_S)
        if now < until:
            return Verdict("wait", until)
        if self._over_at is None:
            self._over_at = now
        linger = self._transcript_pending or self._latency_pending
        if linger and now < self._over_at + LINGER_S:
            return Verdict("wait", self._over_at + LINGER_S)
        return Verdict("over")
