"""Whose voice a session has: the model's own, or an external one that speaks what the model writes (D9).

    model's voice ──use──► external voice ──fails──► given up ──no response, nothing to say──► the fallback asked for
          ▲                      ▲                                                                     │
          └──────────use─────────┼──────────────────in force───────────────────────────────────────────┤
                                 └──keep───────────────────────────────refused─────────────────────────┘

A voice that was switched off may still be played, and be cut by a barge-in: the one before is kept for that.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from relay.session.common.media_types import PartKey
from relay.session.common.model import SessionConfig, TtsOptions
from relay.session.device.commands import Command
from relay.session.device.conversation import ConversationLog
from relay.session.device.playback import InterruptedPart, PlaybackLedger
from relay.session.tts.speaker import TtsSpeaker
from relay.session.tts.stream import TtsStream


@dataclass(slots=True)
class TtsSwitch:
    """The external voice that speaks now, if one does, and the one before; `_options` say how they speak."""

    _options: TtsOptions
    _playback: PlaybackLedger
    _items: ConversationLog
    _emit: Callable[[Command], None]
    _next_id: Callable[[], str]
    speaker: TtsSpeaker | None = None
    """What the external voice says; None while the model itself speaks."""
    _previous: TtsSpeaker | None = None

    def apply_config(self, config: SessionConfig) -> None:
        """A configuration is active: its voice speaks from here on."""
        voice_id, known = config.external_voice, self.speaker
        if known is not None:
            if (known.stream.voice_id, known.stream.output_format) == (voice_id, config.output_format):
                return
            known.stream.close()  # what was said can still be cut
            self.speaker, self._previous = None, known
        if voice_id is not None:
            voice = TtsStream(voice_id, config.output_format, self._options, self._emit, self._next_id)
            self.speaker = TtsSpeaker(voice, self._playback, self._items, self._emit, self._next_id)

    @property
    def needs_fallback(self) -> bool:
        """Whether the voice has failed and the model itself is to speak; no turn begins before that."""
        return self.speaker is not None and self.speaker.wants_fallback and self._options.fallback_voice is not None

    @property
    def is_speaking(self) -> bool:
        """Whether the voice has something to say that it has not said to its end."""
        return self.speaker is not None and bool(self.speaker.stream.utterances)

    def part_for_context(self, context_id: str) -> PartKey | None:
        """The content part that a context speaks; None if nobody waits for it."""
        utterance = None if self.speaker is None else self.speaker.stream.utterance_for_context(context_id)
        return None if utterance is None else utterance.key

    def heard_text(self, cut: InterruptedPart) -> str | None:
        """What was heard of a part that was cut; None if no voice spoke it."""
        heard = (speech.heard_text(cut) for speech in self._speakers())
        return next((text for text in heard if text is not None), None)

    def record_interruption(self, cuts: Iterable[InterruptedPart]) -> None:
        """The client is silent: note what of each item was heard."""
        for speech in self._speakers():
            speech.record_interruption(cuts)

    def correct_history(self, active_response_id: str | None) -> None:
        """Make the history say what was heard, except in items of the `active_response_id` response."""
        for speech in self._speakers():
            speech.correct_history(active_response_id)

    def _speakers(self) -> Iterator[TtsSpeaker]:
        return (speech for speech in (self.speaker, self._previous) if speech is not None)
