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
from relay.session.common.model import SessionConfig, SpeechRules
from relay.session.device.commands import Command
from relay.session.device.conversation import ItemLog
from relay.session.device.playback import Cut, Playback
from relay.session.tts.speaker import ExternalSpeech
from relay.session.tts.stream import Voice


@dataclass(slots=True)
class TtsSwitch:
    """The external voice that speaks now, if one does, and the one before; `_rules` say how they speak."""

    _rules: SpeechRules
    _playback: Playback
    _items: ItemLog
    _emit: Callable[[Command], None]
    _next_id: Callable[[], str]
    speech: ExternalSpeech | None = None
    """What the external voice says; None while the model itself speaks."""
    _past: ExternalSpeech | None = None

    def use(self, config: SessionConfig) -> None:
        """A configuration is active: its voice speaks from here on."""
        voice_id, known = config.external_voice, self.speech
        if known is not None:
            if (known.voice.voice_id, known.voice.output) == (voice_id, config.output_format):
                return
            known.voice.close()  # what was said can still be cut
            self.speech, self._past = None, known
        if voice_id is not None:
            voice = Voice(voice_id, config.output_format, self._rules, self._emit, self._next_id)
            self.speech = ExternalSpeech(voice, self._playback, self._items, self._emit, self._next_id)

    @property
    def falls_back(self) -> bool:
        """Whether the voice has failed and the model itself is to speak; no turn begins before that."""
        return self.speech is not None and self.speech.is_given_up and self._rules.fallback_voice is not None

    @property
    def is_speaking(self) -> bool:
        """Whether the voice has something to say that it has not said to its end."""
        return self.speech is not None and bool(self.speech.voice.utterances)

    def spoken_part(self, context_id: str) -> PartKey | None:
        """The content part that a context speaks; None if nobody waits for it."""
        utterance = None if self.speech is None else self.speech.voice.speaking(context_id)
        return None if utterance is None else utterance.key

    def heard(self, cut: Cut) -> str | None:
        """What was heard of a part that was cut; None if no voice spoke it."""
        heard = (speech.heard(cut) for speech in self._speeches())
        return next((text for text in heard if text is not None), None)

    def cut(self, cuts: Iterable[Cut]) -> None:
        """The client is silent: note what of each item was heard."""
        for speech in self._speeches():
            speech.cut(cuts)

    def rewrite(self, active: str | None) -> None:
        """Make the history say what was heard, except in items of the `active` response."""
        for speech in self._speeches():
            speech.rewrite(active)

    def _speeches(self) -> Iterator[ExternalSpeech]:
        return (speech for speech in (self.speech, self._past) if speech is not None)
