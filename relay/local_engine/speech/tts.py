"""Text to speech: the best synthetic voice on this machine, in the session's output format."""

import re
import threading
import unicodedata
from typing import Any

from audio.formats import REALTIME_FORMATS
from audio.resample import LIVE_RATES_HZ, Resampler, resample
from audio.transcode import encode
from relay.errors import ConfigError
from relay.local_engine.speech import espeak, flite
from relay.local_engine.speech.flite import Times

# OpenAI's names, by what they sound like; a name that is not here is spread by its letters.
_FLITE_FOR = {
    **dict.fromkeys(("marin", "coral", "sage", "shimmer"), "slt"),
    **dict.fromkeys(("cedar", "ash", "echo", "verse"), "rms"),
    "alloy": "kal16",
    "ballad": "awb",
}
# Names that share a voice differ in pitch. Played at another rate, sound is higher or lower; the factors are chosen so
# that the way back to the wire's rate is a ratio of small numbers, which is cheap to resample.
_PITCH = {"coral": (21, 20), "sage": (15, 16), "shimmer": (9, 8), "ash": (9, 10), "echo": (21, 20), "verse": (9, 8)}
_NOT_SPOKEN = re.compile(r"[^A-Za-z0-9 .,;:?!'%$&+/=-]")
_LONGEST_WORD, _LONGEST_SENTENCE = 60, 800
_LOW = frozenset(("rms", "kal16", "awb"))
# Neither library may be entered twice at a time: two threads in eSpeak end the process.
_lock = threading.Lock()


def plain(sentence: str) -> str:
    """What may be handed to a C library: ASCII, no control characters, no endless words, not endless itself."""
    ascii_only = unicodedata.normalize("NFKD", sentence).encode("ascii", "ignore").decode()
    words = _NOT_SPOKEN.sub(" ", ascii_only).split()
    return " ".join(word[:_LONGEST_WORD] for word in words)[:_LONGEST_SENTENCE]


def _at_rate(pcm: bytes, source_hz: int, target_hz: int) -> bytes:
    """By the filter of live streams where there is one: 20 times as fast as that of clips, and 1 to 2 ms late."""
    if source_hz not in LIVE_RATES_HZ:
        return resample(pcm, source_hz, target_hz)
    live = Resampler(source_hz, target_hz)
    return live.feed(pcm) + live.flush()


class Voice:
    """The voices of this machine. Raises ConfigError if there is none."""

    def __init__(self) -> None:
        with _lock:
            self._engine: Any = flite
            self._voices = flite.available()
            if not self._voices:
                self._engine = espeak
                self._voices = espeak.available()
        if not self._voices:
            raise ConfigError(
                "The local engine has no voice. Install one with: sudo apt-get install libflite1 "
                "(or: pip install 'relay-voice[local]')"
            )

    @property
    def names(self) -> list[str]:
        """The voices that can speak."""
        return list(self._voices)

    def of(self, wanted: Any) -> str:
        """The voice that plays the one wanted (a name or {"id": name}); always the same for the same name."""
        name = str(wanted.get("id") if isinstance(wanted, dict) else wanted).lower()
        if name in self._voices:
            return name
        match = _FLITE_FOR.get(name)
        if match in self._voices:
            return match
        if self._engine is espeak and match is not None:
            return self._voices[match in _LOW]
        return self._voices[sum(name.encode()) % len(self._voices)]

    def warm(self) -> None:
        """Say a word in every voice: the first one is slower, and memory is touched that is not there yet."""
        for name in self._voices:
            self.speak("Yes.", {"format": {"type": "audio/pcm"}, "voice": name, "speed": 1.0})

    def speak(self, sentence: str, output: dict[str, Any]) -> bytes:
        """One sentence as audio; `output` is the session's `audio.output` {format, voice, speed}. May block."""
        audio_format = REALTIME_FORMATS[output["format"]["type"]]
        up, down = _PITCH.get(str(output["voice"]).lower(), (1, 1))
        speed = float(output["speed"]) * down / up  # what is played faster for its pitch is spoken slower before
        pcm, rate_hz, _ = self.synthesise(plain(sentence), self.of(output["voice"]), speed)
        return encode(_at_rate(pcm, rate_hz * up // down, audio_format.rate_hz), audio_format)

    def synthesise(self, text: str, voice: str, speed: float) -> tuple[bytes, int, Times | None]:
        """A `plain` text as (PCM16, rate in Hz, times of its words, if the voice tells them). May block."""
        with _lock:
            made: tuple[bytes, int, Times | None] = self._engine.synthesise(text, voice, speed)
        return made
