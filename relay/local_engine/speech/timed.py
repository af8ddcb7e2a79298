"""The machine's voices with the time of every word: flite tells its own, for other voices it goes by the letters."""

from dataclasses import dataclass
from functools import lru_cache

from audio.formats import AudioFormat
from audio.resample import resample
from audio.transcode import encode
from relay.local_engine.speech.flite import Times
from relay.local_engine.speech.tts import Voice, plain


@dataclass(frozen=True, slots=True)
class TimedSpeech:
    """A sentence as sound; every character of `text` with its beginning and its length, in ms of the sound."""

    audio: bytes
    chars: list[str]
    starts_ms: list[int]
    durations_ms: list[int]


@lru_cache(maxsize=1)
def voice() -> Voice:
    """The voice of this process. Raises ConfigError if there is none."""
    return Voice()


def speak(text: str, name: str, audio_format: AudioFormat, speed: float = 1.0) -> TimedSpeech:
    """Speak `text` in the voice that plays `name`. May block. Raises ConfigError if there is none."""
    spoken, times = plain(text), None
    pcm, source_hz = b"", audio_format.rate_hz
    if any(char.isalnum() for char in spoken):
        pcm, source_hz, times = voice().synthesise(spoken, voice().of(name), speed)
    total_ms = len(pcm) / 2 / source_hz * 1000
    pcm = resample(pcm, source_hz, audio_format.rate_hz)
    return TimedSpeech(encode(pcm, audio_format), *_spread(text, times, total_ms))


def _spread(text: str, times: Times | None, total_ms: float) -> tuple[list[str], list[int], list[int]]:
    """The time of each character: a word's is shared by its letters, a blank takes none."""
    words = text.split()
    spoken = [len(plain(word).split()) for word in words]
    if times is None or sum(spoken) != len(times):
        times, spoken = _by_letters(words, total_ms), [1] * len(words)
    spans, taken, at = [], 0, 0.0
    for count in spoken:
        part = times[taken : taken + count]
        taken += count
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


def _by_letters(words: list[str], total_ms: float) -> Times:
    n_letters = sum(map(len, words)) or 1
    times, at = [], 0.0
    for word in words:
        end = at + total_ms * len(word) / n_letters
        times.append((at, end))
        at = end
    return times
