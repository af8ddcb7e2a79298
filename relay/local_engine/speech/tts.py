"""Text to speech: the best synthetic voice on this machine, in the session's output format.

Sentences are cut for it: a short beginning, so that something is heard soon, and nothing that blocks for long. Of the
time of every word, flite gives its own; for other voices it goes by the letters.
"""

import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from audio.formats import REALTIME_FORMATS, AudioFormat
from audio.resample import LIVE_RATES_HZ, Resampler, resample
from audio.transcode import encode
from relay.errors import ConfigError
from relay.local_engine.speech import tts_espeak as espeak
from relay.local_engine.speech import tts_flite as flite
from relay.local_engine.speech.tts_flite import WordTimes

# OpenAI's names, by what they sound like; a name that is not here is spread by its letters.
_FLITE_VOICES = {
    **dict.fromkeys(("marin", "coral", "sage", "shimmer"), "slt"),
    **dict.fromkeys(("cedar", "ash", "echo", "verse"), "rms"),
    "alloy": "kal16",
    "ballad": "awb",
}
# Names that share a voice differ in pitch. Played at another rate, sound is higher or lower; the factors are chosen so
# that the way back to the wire's rate is a ratio of small numbers, which is cheap to resample.
_PITCH = {"coral": (21, 20), "sage": (15, 16), "shimmer": (9, 8), "ash": (9, 10), "echo": (21, 20), "verse": (9, 8)}
_UNSPEAKABLE = re.compile(r"[^A-Za-z0-9 .,;:?!'%$&+/=-]")
FIRST_CHUNK_CHARS = 18
"""Some 1.2 s of speech: the slowest voice takes about 25 ms of an idle core for each second that it makes."""
MAX_CHUNK_CHARS = 50
_MIN_CHUNK_CHARS = 10
_PAUSES = (",", ";", ":")
_MAX_WORD_CHARS, _MAX_SENTENCE_CHARS = 60, 800
_LOW_PITCHED = frozenset(("rms", "kal16", "awb"))
# Neither library may be entered twice at a time: two threads in eSpeak end the process.
_lock = threading.Lock()


def to_plain_ascii(sentence: str) -> str:
    """What may be handed to a C library: ASCII, no control characters, no endless words, not endless itself."""
    ascii_only = unicodedata.normalize("NFKD", sentence).encode("ascii", "ignore").decode()
    words = _UNSPEAKABLE.sub(" ", ascii_only).split()
    return " ".join(word[:_MAX_WORD_CHARS] for word in words)[:_MAX_SENTENCE_CHARS]


def split_for_synthesis(sentences: Iterable[str]) -> Iterator[str]:
    """The same words in the same order; cut at a pause where there is one, never within a word."""
    max_chars = FIRST_CHUNK_CHARS
    for sentence in sentences:
        words = sentence.split()
        chunk: list[str] = []
        for index, word in enumerate(words):
            chunk.append(word)
            length = len(" ".join(chunk))
            at_pause = word.endswith(_PAUSES) and length >= _MIN_CHUNK_CHARS
            if index + 2 < len(words) and (at_pause or length >= max_chars):
                yield " ".join(chunk)
                chunk, max_chars = [], MAX_CHUNK_CHARS
        if chunk:
            yield " ".join(chunk)
            max_chars = MAX_CHUNK_CHARS


@dataclass(frozen=True, slots=True)
class TimedSpeech:
    """A sentence as sound; every character of `text` with its beginning and its length, in ms of the sound."""

    audio: bytes
    chars: list[str]
    starts_ms: list[int]
    durations_ms: list[int]


class SpeechSynthesizer:
    """The voices of this machine, by their `voices`. Raises ConfigError if there is none."""

    def __init__(self) -> None:
        with _lock:
            self._engine: Any = flite
            self.voices = flite.available()
            if not self.voices:
                self._engine = espeak
                self.voices = espeak.available()
        if not self.voices:
            raise ConfigError(
                "The local engine has no voice. Install one with: sudo apt-get install libflite1 "
                "(or: pip install 'relay-voice[local]')"
            )

    def resolve_voice(self, voice: Any) -> str:
        """The voice that plays the one wanted (a name or {"id": name}); always the same for the same name."""
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
        """Say a word in every voice: the first one is slower, and memory is touched that is not there yet."""
        for name in self.voices:
            self.synthesize("Yes.", {"format": {"type": "audio/pcm"}, "voice": name, "speed": 1.0})

    def synthesize(self, sentence: str, output: dict[str, Any]) -> bytes:
        """One sentence as audio; `output` is the session's `audio.output` {format, voice, speed}. May block."""
        audio_format = REALTIME_FORMATS[output["format"]["type"]]
        up, down = _PITCH.get(str(output["voice"]).lower(), (1, 1))
        speed = float(output["speed"]) * down / up  # what is played faster for its pitch is spoken slower before
        pcm, rate_hz, _ = self.synthesize_pcm(to_plain_ascii(sentence), self.resolve_voice(output["voice"]), speed)
        source_hz = rate_hz * up // down
        if source_hz in LIVE_RATES_HZ:  # their filter is 20 times as fast as that of clips, and 1 to 2 ms late
            live = Resampler(source_hz, audio_format.rate_hz)
            pcm = live.feed(pcm) + live.flush()
        else:
            pcm = resample(pcm, source_hz, audio_format.rate_hz)
        return encode(pcm, audio_format)

    def synthesize_pcm(self, text: str, voice: str, speed: float) -> tuple[bytes, int, WordTimes | None]:
        """A `to_plain_ascii` text as (PCM16, rate in Hz, times of its words, if the voice tells them). May block."""
        with _lock:
            result: tuple[bytes, int, WordTimes | None] = self._engine.synthesise(text, voice, speed)
        return result

    def synthesize_timed(self, text: str, voice: str, audio_format: AudioFormat, speed: float = 1.0) -> TimedSpeech:
        """Speak `text` in the voice that plays `voice`, with the time of every character. May block."""
        plain_text, times = to_plain_ascii(text), None
        pcm, source_hz = b"", audio_format.rate_hz
        if any(char.isalnum() for char in plain_text):
            pcm, source_hz, times = self.synthesize_pcm(plain_text, self.resolve_voice(voice), speed)
        total_ms = len(pcm) / 2 / source_hz * 1000
        pcm = resample(pcm, source_hz, audio_format.rate_hz)
        return TimedSpeech(encode(pcm, audio_format), *_char_timings(text, times, total_ms))


def _char_timings(text: str, times: WordTimes | None, total_ms: float) -> tuple[list[str], list[int], list[int]]:
    """The time of each character: a word's is shared by its letters, a blank takes none."""
    words = text.split()
    n_spoken_words = [len(to_plain_ascii(word).split()) for word in words]
    if times is None or sum(n_spoken_words) != len(times):
        times, n_spoken_words = _times_by_letters(words, total_ms), [1] * len(words)
    spans, n_used, at = [], 0, 0.0
    for count in n_spoken_words:
        part = times[n_used : n_used + count]
        n_used += count
        start, end = (part[0][0], part[-1][1]) if part else (at, at)
        at = max(at, end)
        spans.append((start, at))
    starts, lengths, word, position, at = [], [], -1, 0, 0.0
    for index, char in enumerate(text):
        if char.isspace():
            starts.append(round(at))
            lengths.append(0)
            continue
        if index == 0 or text[index - 1].isspace():
            word, position = word + 1, 0
        start, end = spans[word]
        step = (end - start) / len(words[word])
        starts.append(round(start + position * step))
        position += 1
        at = start + position * step
        lengths.append(max(round(at) - starts[-1], 0))
    return list(text), starts, lengths


def _times_by_letters(words: list[str], total_ms: float) -> WordTimes:
    n_letters = sum(map(len, words)) or 1
    times, at = [], 0.0
    for word in words:
        end = at + total_ms * len(word) / n_letters
        times.append((at, end))
        at = end
    return times
