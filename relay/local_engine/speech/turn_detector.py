"""Turn detection: the rules of `server_vad` and `semantic_vad`, applied to probabilities of speech.

A frame is 512 samples of 16 kHz PCM16, that is 32 ms. Times are milliseconds of audio since the session started, so
that a file sent faster than real time has the same turns as a microphone.
"""

from dataclasses import dataclass
from typing import Any, Literal

FRAME_BYTES = 1024
FRAME_MS = 32
_ONSET_FRAMES = 2  # one frame alone is a click
ONSET_MS = _ONSET_FRAMES * FRAME_MS
"""The time between the first frame of speech and the report "started"."""
_HYSTERESIS = 0.15  # Silero's own rule: speech goes on until the probability is that far under the threshold

Completeness = Literal["complete", "unfinished", "unknown"]
"""Whether the words so far are a complete sentence, the beginning of one, or neither."""


@dataclass(frozen=True, slots=True)
class EndpointingDelays:
    """The pause that ends a turn of a `semantic_vad`, after a complete and after an unfinished sentence."""

    complete_ms: int
    unfinished_ms: int


# The longest waits are those that OpenAI documents for its semantic VAD: 2, 4 and 8 s.
_EAGERNESS: dict[str, tuple[int, EndpointingDelays]] = {
    "high": (300, EndpointingDelays(192, 2000)),
    "medium": (500, EndpointingDelays(288, 4000)),
    "auto": (500, EndpointingDelays(288, 4000)),
    "low": (900, EndpointingDelays(608, 8000)),
}


@dataclass(frozen=True, slots=True)
class TurnDetectorOptions:
    """`threshold` 0..1; `silence_ms` ends a turn; `prefix_ms` of audio before the speech belongs to the turn.

    With `endpointing` the completeness of the words decides; `silence_ms` applies if that is unknown.
    """

    threshold: float = 0.5
    prefix_ms: int = 300
    silence_ms: int = 500
    endpointing: EndpointingDelays | None = None

    @classmethod
    def from_turn_detection(cls, turn_detection: dict[str, Any] | None) -> "TurnDetectorOptions":
        """Read the session's `turn_detection`; None: the client commits turns."""
        if turn_detection is None:
            return cls()
        if turn_detection["type"] == "semantic_vad":
            silence_ms, endpointing = _EAGERNESS[turn_detection["eagerness"]]
            return cls(silence_ms=silence_ms, endpointing=endpointing)
        return cls(
            turn_detection["threshold"], turn_detection["prefix_padding_ms"], turn_detection["silence_duration_ms"]
        )


class TurnDetector:
    """Detect the start and the end of user turns in a stream of speech probabilities."""

    def __init__(self, options: TurnDetectorOptions) -> None:
        self.options = options
        self.is_speaking = False
        self.silence_ms = 0
        self._n_speech_frames = 0
        self._max_silence_ms = options.silence_ms

    def feed(self, probability: float) -> Literal["started", "paused", "stopped"] | None:
        """Process the next frame; returns whether the turn started, paused or stopped with it.

        "paused" is reported early, once in each pause of a `semantic_vad`: the caller may call `apply_completeness`.
        """
        if not self.is_speaking:
            self._n_speech_frames = self._n_speech_frames + 1 if probability >= self.options.threshold else 0
            if self._n_speech_frames < _ONSET_FRAMES:
                return None
            self.is_speaking, self.silence_ms = True, 0
            return "started"
        if probability >= max(self.options.threshold - _HYSTERESIS, 0.01):
            self.silence_ms, self._max_silence_ms = 0, self.options.silence_ms
            return None
        before_ms, self.silence_ms = self.silence_ms, self.silence_ms + FRAME_MS
        if self.silence_ms >= self._max_silence_ms:
            self.reset()
            return "stopped"
        endpointing = self.options.endpointing
        if endpointing is not None and before_ms < endpointing.complete_ms - FRAME_MS <= self.silence_ms:
            return "paused"
        return None

    def apply_completeness(self, completeness: Completeness) -> None:
        """Apply the completeness of the words before a pause; it is valid until the user continues to speak."""
        if self.is_speaking and self.silence_ms:
            endpointing, self._max_silence_ms = self.options.endpointing, self.options.silence_ms
            if endpointing is not None and completeness != "unknown":
                self._max_silence_ms = (
                    endpointing.complete_ms if completeness == "complete" else endpointing.unfinished_ms
                )

    def apply_options(self, options: TurnDetectorOptions) -> None:
        """Apply new options; a turn in progress continues."""
        self.options, self._max_silence_ms = options, options.silence_ms

    def reset(self) -> None:
        """End the turn and wait for the next one."""
        self.is_speaking, self._n_speech_frames, self.silence_ms = False, 0, 0
        self._max_silence_ms = self.options.silence_ms
