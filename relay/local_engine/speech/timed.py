"""The machine's voices with the time of every word: flite tells its own, for other voices it goes by the letters."""

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from audio.g711 import alaw_encode, ulaw_encode
from audio.resample import resample
from relay.local_engine.speech import flite, tts
from relay.local_engine.speech.tts import Voice, plain

_WORD_START = b"R:SylStructure.daughter.daughter.R:Segment.p.end"
_WORD_END = b"R:SylStructure.daughtern.daughtern.R:Segment.end"
_G711 = {"ulaw": ulaw_encode, "alaw": alaw_encode}


@dataclass(frozen=True, slots=True)
class TimedSpeech:
    """A sentence as sound; every character of `text` with its beginning and its length, in ms of the sound."""

    audio: bytes
    chars: list[str]
    starts_ms: list[int]
    durations_ms: list[int]


class TimedVoice:
    """The voices of this machine, with times. Raises ConfigError if there is none."""

    def __init__(self) -> None:
        self._voice = Voice()

    @property
    def names(self) -> Sequence[str]:
        """The names that have a voice of their own."""
        return self._voice.names

    def speak(self, text: str, name: str, encoding: str, rate_hz: int, speed: float = 1.0) -> TimedSpeech:
        """Speak `text` in the voice that plays `name`; `encoding` is pcm, ulaw or alaw. May block."""
        voice, spoken = self._voice.of(name), plain(text)
        times: list[tuple[float, float]] | None = None
        if not any(char.isalnum() for char in spoken):
            pcm, source_hz = b"", rate_hz
        elif voice in flite.VOICES:
            pcm, source_hz, times = _flite(spoken, voice, speed)
        else:
            with tts._lock:
                pcm, source_hz = self._voice._engine.synthesise(spoken, voice, speed)
        total_ms = len(pcm) / 2 / source_hz * 1000
        pcm = resample(pcm, source_hz, rate_hz) if pcm else b""
        encode = _G711.get(encoding)
        return TimedSpeech(encode(pcm) if encode else pcm, *_spread(text, times, total_ms))


def _spread(
    text: str, times: list[tuple[float, float]] | None, total_ms: float
) -> tuple[list[str], list[int], list[int]]:
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


def _by_letters(words: list[str], total_ms: float) -> list[tuple[float, float]]:
    n_letters = sum(map(len, words)) or 1
    times, at = [], 0.0
    for word in words:
        end = at + total_ms * len(word) / n_letters
        times.append((at, end))
        at = end
    return times


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = flite._library()
    item = ctypes.c_void_p
    signatures: dict[str, tuple[list[Any], Any]] = {
        "flite_synth_text": ([ctypes.c_char_p, ctypes.POINTER(flite._Voice)], item),
        "utt_wave": ([item], ctypes.POINTER(flite._Wave)),
        "utt_relation": ([item, ctypes.c_char_p], item),
        "relation_head": ([item], item),
        "item_next": ([item], item),
        "item_daughter": ([item], item),
        "item_last_daughter": ([item], item),
        "ffeature_float": ([item, ctypes.c_char_p], ctypes.c_float),
        "delete_utterance": ([item], None),
    }
    for name, (arguments, result) in signatures.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    return library


def _flite(text: str, voice: str, speed: float) -> tuple[bytes, int, list[tuple[float, float]]]:
    """(PCM16, rate in Hz, beginning and end of each token in ms); the tokens are the text's words."""
    with tts._lock:
        library, handle = _library(), flite._voice(voice)
        library.flite_feat_set_float(handle.contents.features, b"duration_stretch", 1.0 / speed)
        utterance = library.flite_synth_text(text.encode("ascii", "ignore"), handle)
        if not utterance:
            raise OSError("flite made no sound")
        try:
            wave = library.utt_wave(utterance).contents
            pcm = ctypes.string_at(wave.samples, wave.num_samples * 2)
            return pcm, wave.sample_rate, _token_times(library, utterance)
        finally:
            library.delete_utterance(utterance)


def _token_times(library: ctypes.CDLL, utterance: int) -> list[tuple[float, float]]:
    times, last_ms = [], 0.0
    token = library.relation_head(library.utt_relation(utterance, b"Token"))
    while token:
        first, last = library.item_daughter(token), library.item_last_daughter(token)
        start_ms = library.ffeature_float(first, _WORD_START) * 1000 if first else last_ms
        last_ms = library.ffeature_float(last, _WORD_END) * 1000 if last else last_ms
        times.append((start_ms, max(last_ms, start_ms)))
        token = library.item_next(token)
    return times


_made: TimedVoice | None = None
_making = threading.Lock()


def timed_voice() -> TimedVoice:
    """The voice of this process. Raises ConfigError if there is none."""
    global _made
    with _making:
        _made = _made or TimedVoice()
        return _made
