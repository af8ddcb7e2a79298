"""Text to speech: the best synthetic voice on this machine, in the session's output format.

Word timings come from flite; for other voices they are estimated from the letters.
"""

import threading
from dataclasses import dataclass
from typing import Any

from audio.formats import REALTIME_FORMATS, AudioFormat
from audio.resample import LIVE_RATES_HZ, Resampler, resample
from audio.transcode import encode
from relay.errors import ConfigError
from relay.local_engine.speech import tts_espeak as espeak
from relay.local_engine.speech import tts_flite as flite
from relay.local_engine.speech.char_timings import char_timings
from relay.local_engine.speech.tts_flite import WordTimes
from relay.local_engine.speech.tts_text import to_plain_ascii

# The voice for each of OpenAI's names, by similarity; other names are mapped by their letters.
_FLITE_VOICES = {
    **dict.fromkeys(("marin", "coral", "sage", "shimmer"), "slt"),
    **dict.fromkeys(("cedar", "ash", "echo", "verse"), "rms"),
    "alloy": "kal16",
    "ballad": "awb",
}
# Names that share a voice differ in pitch, by playing at another sample rate. The factors are chosen so that resampling
# to the wire's rate is a ratio of small numbers, which is cheap.
_PITCH = {"coral": (21, 20), "sage": (15, 16), "shimmer": (9, 8), "ash": (9, 10), "echo": (21, 20), "verse": (9, 8)}
_LOW_PITCHED = frozenset(("rms", "kal16", "awb"))
# Neither library is thread-safe: two threads in eSpeak end the process.
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class TimedSpeech:
    """The audio of a sentence, and the start and duration of every character, in ms of the audio."""

    audio: bytes
    chars: list[str]
    starts_ms: list[int]
    durations_ms: list[int]


class SpeechSynthesizer:
    """Speaks with the voices of this machine. Raises ConfigError if none is installed."""

    def __init__(self) -> None:
        with _lock:
            self._engine: Any = flite
            self.voices = flite.available_voices()
            if not self.voices:
                self._engine = espeak
                self.voices = espeak.available_voices()
        if not self.voices:
            raise ConfigError(
                "The local engine has no voice. Install one with: sudo apt-get install libflite1 "
                "(or: pip install 'relay-voice[local]')"
            )

    def resolve_voice(self, voice: Any) -> str:
        """Return the installed voice for a requested one (a name or {"id": name}); deterministic."""
        name = str(voice.get("id") if isinstance(voice, dict) else voice).lower()
        if name in self.voices:
            return name
        match = _FLITE_VOICES.get(name)
        if match in self.voices:
            return match
        if self._engine is espeak and match is not None:
            return self.voices[match in _LOW_PITCHED]
        return self.voices[sum(name.encode()) % len(self.voices)]

    def warm_up(self) -> None:
        """Synthesize a word in every voice: the first use loads it and allocates its memory."""
        for name in self.voices:
            self.synthesize("Yes.", {"format": {"type": "audio/pcm"}, "voice": name, "speed": 1.0})

    def synthesize(self, sentence: str, output: dict[str, Any]) -> bytes:
        """Synthesize a sentence; `output` is the session's `audio.output` {format, voice, speed}. Blocks."""
        audio_format = REALTIME_FORMATS[output["format"]["type"]]
        up, down = _PITCH.get(str(output["voice"]).lower(), (1, 1))
        speed = float(output["speed"]) * down / up  # compensates for the pitch
        pcm, rate_hz, _ = self.synthesize_pcm(to_plain_ascii(sentence), self.resolve_voice(output["voice"]), speed)
        source_hz = rate_hz * up // down
        if source_hz in LIVE_RATES_HZ:  # its filter is 20 times as fast as that of clips, and adds 1 to 2 ms
            live = Resampler(source_hz, audio_format.rate_hz)
            pcm = live.feed(pcm) + live.flush()
        else:
            pcm = resample(pcm, source_hz, audio_format.rate_hz)
        return encode(pcm, audio_format)

    def synthesize_pcm(self, text: str, voice: str, speed: float) -> tuple[bytes, int, WordTimes | None]:
        """Synthesize a `to_plain_ascii` text; returns (PCM16, rate in Hz, word times or None). Blocks."""
        with _lock:
            result: tuple[bytes, int, WordTimes | None] = self._engine.synthesize(text, voice, speed)
        return result

    def synthesize_timed(self, text: str, voice: str, audio_format: AudioFormat, speed: float = 1.0) -> TimedSpeech:
        """Synthesize `text` with the time of every character. Blocks."""
        plain_text, word_times = to_plain_ascii(text), None
        pcm, source_hz = b"", audio_format.rate_hz
        if any(char.isalnum() for char in plain_text):
            pcm, source_hz, word_times = self.synthesize_pcm(plain_text, self.resolve_voice(voice), speed)
        total_ms = len(pcm) / 2 / source_hz * 1000
        pcm = resample(pcm, source_hz, audio_format.rate_hz)
        return TimedSpeech(encode(pcm, audio_format), *char_timings(text, word_times, total_ms))
