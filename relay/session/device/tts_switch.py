"""Selects the voice of a session: the model itself, or an external voice that speaks the model's text (D9).

    model's voice ──apply_config──► external voice ──fails──► no response, nothing to speak ──► fallback requested
          ▲                               ▲                                                            │
          └─────────apply_config──────────┼───────────────accepted─────────────────────────────────────┤
                                          └──cancel_fallback────────────────refused────────────────────┘

A voice that was switched off may still be playing, and a barge-in may interrupt it: the previous one is kept for that.
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
    """The current external voice, if any, and the previous one."""

    _options: TtsOptions
    _playback: PlaybackLedger
    _conversation: ConversationLog
    _emit: Callable[[Command], None]
    _next_id: Callable[[], str]
    speaker: TtsSpeaker | None = None
    """The current external voice; None while the model itself speaks."""
    _previous: TtsSpeaker | None = None

    def apply_config(self, config: SessionConfig) -> None:
        """Use the voice of a configuration from here on."""
        voice_id, previous = config.external_voice, self.speaker
        if previous is not None:
            if (previous.stream.voice_id, previous.stream.output_format) == (voice_id, config.output_format):
                return
            previous.stream.close()  # its audio may still be playing, and be interrupted
            self.speaker, self._previous = None, previous
        if voice_id is not None:
            stream = TtsStream(voice_id, config.output_format, self._options, self._emit, self._next_id)
            self.speaker = TtsSpeaker(stream, self._playback, self._conversation, self._emit, self._next_id)

    @property
    def needs_fallback(self) -> bool:
        """Whether the voice failed and the model's own voice is needed; no turn begins before the switch."""
        return self.speaker is not None and self.speaker.wants_fallback and self._options.fallback_voice is not None

    @property
    def is_speaking(self) -> bool:
        """Whether the voice has unfinished utterances."""
        return self.speaker is not None and bool(self.speaker.stream.utterances)

    def part_for_context(self, context_id: str) -> PartKey | None:
        """Return the content part that a context speaks; None if its audio is discarded."""
        utterance = None if self.speaker is None else self.speaker.stream.utterance_for_context(context_id)
        return None if utterance is None else utterance.key

    def heard_text(self, part: InterruptedPart) -> str | None:
        """Return the heard text of an interrupted part; None if no external voice spoke it."""
        texts = (speaker.heard_text(part) for speaker in self._speakers())
        return next((text for text in texts if text is not None), None)

    def record_interruption(self, parts: Iterable[InterruptedPart]) -> None:
        """Record what was heard of each item."""
        for speaker in self._speakers():
            speaker.record_interruption(parts)

    def correct_history(self, active_response_id: str | None) -> None:
        """Correct the history to what was heard, except for items of the active response."""
        for speaker in self._speakers():
            speaker.correct_history(active_response_id)

    def _speakers(self) -> Iterator[TtsSpeaker]:
        return (speaker for speaker in (self.speaker, self._previous) if speaker is not None)
