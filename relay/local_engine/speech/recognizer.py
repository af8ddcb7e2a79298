"""Speech to text: pocketsphinx bound to a session's grammar, with a way to say "I don't know".

A grammar never refuses by itself: whatever is said becomes its likeliest sentence. Two checks refuse: how well the
sound fits (the mean log score per frame) and whether the words are a whole sentence of the grammar.

pocketsphinx holds the interpreter's lock while it works (0.025 s for a second of speech), so audio goes in by small
chunks. A decoder takes some 12 MB; idle ones are shared by all sessions with the same grammar.
"""

import math
import re
import tempfile
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from audio.formats import PCM16_16K
from relay.local_engine.nlu.grammar import Grammar
from relay.local_engine.nlu.lexicon import english_lexicon
from relay.local_engine.speech.turn_detector import Completeness

_MAX_SECOND_PASS_MS = 8_000
_MAX_ACTIVE_HMMS = 4000
_BYTES_PER_MS = PCM16_16K.bytes_per_ms
_FRAME_MS = 10  # of pocketsphinx
_LAG_MS = 200  # how long before a silence is noticed a last word must have begun
_READING_SUFFIX = re.compile(r"\(\d+\)$")  # "tomato(2)"
STEP_BYTES = 100 * _BYTES_PER_MS
MAX_UTTERANCE_MS = 30_000
"""Speech beyond this is not listened to: no sentence of a grammar is that long."""
MAX_UTTERANCE_BYTES = MAX_UTTERANCE_MS * _BYTES_PER_MS
# pocketsphinx gives acoustic scores shifted right by ten bits (SENSCR_SHIFT).
_SCORE_UNIT = 1024
# Chosen on synthetic voices, clean and in noise: tests/local_engine/accuracy.py prints what they keep and refuse.
MIN_SCORE = -3.65
MIN_SCORE_NARROWBAND = -4.2
"""Over a telephone: half of the spectrum that the acoustic model knows is missing."""
# The spectrum's mean over a telephone, from four synthetic voices: without it the first words come out wrong.
_NARROWBAND_CEPSTRAL_MEAN = "43.59,29.24,-27.45,44.17,-21.10,4.51,14.00,-22.61,15.89,-11.77,7.96,6.72,-6.54"


@dataclass(frozen=True, slots=True)
class RecognitionResult:
    """What was recognised: `text` in lower-case words, None if it fits no sentence; `score` nearer 0 fits better."""

    text: str | None
    score: float


class Recognizer:
    """One decoder for one grammar; used by one utterance at a time."""

    def __init__(self, grammar: Grammar) -> None:
        from pocketsphinx import Config, Decoder, FsgModel, get_model_path

        self.grammar = grammar
        network = grammar.word_lattice
        words = sorted({word for _, _, word in network.arcs})
        with tempfile.NamedTemporaryFile("w", suffix=".dict", encoding="utf-8") as dictionary:
            for word in words:
                for index, phones in enumerate(english_lexicon().pronunciations(word)):
                    dictionary.write(f"{word}({index + 1}) {phones}\n" if index else f"{word} {phones}\n")
            dictionary.flush()
            config = Config(
                hmm=get_model_path("en-us/en-us"),
                dict=dictionary.name,
                lm=None,
                samprate=PCM16_16K.rate_hz,
                bestpath=False,  # its lattice forgets where sentences may end
                maxhmmpf=_MAX_ACTIVE_HMMS,
                loglevel="FATAL",
            )
            self._decoder: Any = Decoder(config)
        model = FsgModel("relay", self._decoder.get_logmath(), 1.0, network.n_states)
        numbers = {word: model.word_add(word) for word in words}
        for source, target, word in network.arcs:
            model.trans_add(source, target, 0, numbers[word])
        model.set_start_state(0)
        model.set_final_state(network.final_state)
        self._decoder.add_fsg("relay", model)
        self._decoder.activate_search("relay")
        self._audio = bytearray()
        self._min_score = MIN_SCORE
        self._initial_cepstral_mean = self._decoder.get_cmn(False)

    def start(self, cepstral_mean: str | None = None, *, is_narrowband: bool = False) -> None:
        """Begin an utterance; `cepstral_mean` is what `cepstral_mean` was after the last one over the same microphone.

        `is_narrowband` is for audio that was 8 kHz.
        """
        self._min_score = MIN_SCORE_NARROWBAND if is_narrowband else MIN_SCORE
        self._audio.clear()
        self._decoder.set_cmn(
            cepstral_mean or (_NARROWBAND_CEPSTRAL_MEAN if is_narrowband else self._initial_cepstral_mean)
        )
        self._decoder.start_utt()

    def feed(self, pcm: bytes) -> None:
        """Listen to more of it (PCM16, 16 kHz); what is beyond LONGEST_MS is dropped."""
        room = MAX_UTTERANCE_BYTES - len(self._audio)
        if room > 0 and pcm:
            self._audio += pcm[:room]
            self._decoder.process_raw(pcm[:room])

    def finish(self) -> Generator[None, None, RecognitionResult]:
        """End the utterance, in steps short enough to do other work between them; the result is what it returns.

        A doubtful utterance is heard a second time: by then the spectrum's mean is known, which helps with the first
        words over a microphone and with noise.
        """
        self._decoder.end_utt()
        best = self._accept(self._hypothesis())
        doubtful = best is None or best.score < self._min_score
        if doubtful and len(self._audio) <= _MAX_SECOND_PASS_MS * _BYTES_PER_MS:
            self._decoder.start_utt()
            for start in range(0, len(self._audio), STEP_BYTES):
                self._decoder.process_raw(bytes(self._audio[start : start + STEP_BYTES]))
                yield
            self._decoder.end_utt()
            second = self._accept(self._hypothesis())
            best = max((guess for guess in (best, second) if guess), key=lambda guess: guess.score, default=None)
        if best is None:
            return RecognitionResult(None, -math.inf)
        return best if best.score >= self._min_score else RecognitionResult(None, best.score)

    def completeness(self, silence_ms: int) -> Completeness:
        """What the words before the last `silence_ms` are; unknown if they fit badly.

        Into a silence the decoder hears the beginning of whatever might follow: that is left out.
        """
        before_frame = (len(self._audio) // _BYTES_PER_MS - silence_ms - _LAG_MS) // _FRAME_MS
        hypothesis = self._hypothesis(before_frame)
        if hypothesis is None or hypothesis.score < self._min_score:
            return "unknown"
        return "complete" if self.grammar.parse(hypothesis.text or "", strict=True) else "unfinished"

    @property
    def cepstral_mean(self) -> str:
        """The running mean of the spectrum: it takes an utterance to learn, and belongs to the microphone."""
        return str(self._decoder.get_cmn(False))

    def abandon(self) -> None:
        """Drop the utterance."""
        self._decoder.end_utt()

    def _accept(self, hypothesis: RecognitionResult | None) -> RecognitionResult | None:
        """The guess if it is a whole sentence of the grammar ("roll two" is not)."""
        return hypothesis if hypothesis is not None and self.grammar.parse(hypothesis.text or "", strict=True) else None

    def _hypothesis(self, before_frame: float = math.inf) -> RecognitionResult | None:
        """The words so far, those that begin before a frame."""
        if self._decoder.hyp() is None:
            return None
        total, frames, words = 0.0, 0, []
        for segment in self._decoder.seg():
            if not segment.word.startswith("<") and segment.start_frame < before_frame:
                total += _SCORE_UNIT * math.log(max(segment.ascore, 1e-300))
                frames += segment.end_frame - segment.start_frame + 1
                words.append(_READING_SUFFIX.sub("", segment.word))
        return RecognitionResult(" ".join(words), total / frames) if frames else None


class RecognizerPool:
    """Idle recognisers by grammar: at most `most_idle` are kept, the least recently used go first."""

    def __init__(self, max_idle: int = 16) -> None:
        self._max_idle = max_idle
        self._idle: OrderedDict[int, Recognizer] = OrderedDict()

    def acquire(self, grammar: Grammar) -> Recognizer:
        """An idle recogniser for the grammar, or a new one (27 ms)."""
        for key, recognizer in reversed(self._idle.items()):
            if recognizer.grammar is grammar:
                return self._idle.pop(key)
        return Recognizer(grammar)

    def release(self, recognizer: Recognizer) -> None:
        """Keep a recogniser for the next utterance."""
        self._idle[id(recognizer)] = recognizer
        while len(self._idle) > self._max_idle:
            self._idle.popitem(last=False)
