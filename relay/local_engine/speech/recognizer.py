"""Speech to text: pocketsphinx with a session's grammar, and a rejection of everything else.

A grammar-based decoder never rejects: any audio becomes its likeliest sentence. Two checks reject: the acoustic score
(mean log score per frame), and whether the words are a complete sentence of the grammar.

pocketsphinx holds the GIL while it works (25 ms for a second of speech), so audio is fed in small chunks. A decoder
takes some 12 MB; idle decoders are shared by all sessions with the same grammar.
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
_LAG_MS = 200  # words that start within this time before a silence are not trusted
_READING_SUFFIX = re.compile(r"\(\d+\)$")  # "tomato(2)"
STEP_BYTES = 100 * _BYTES_PER_MS
MAX_UTTERANCE_MS = 30_000
"""Audio beyond this is dropped: no sentence of a grammar is that long."""
MAX_UTTERANCE_BYTES = MAX_UTTERANCE_MS * _BYTES_PER_MS
# pocketsphinx returns acoustic scores shifted right by ten bits (SENSCR_SHIFT).
_SCORE_UNIT = 1024
# Chosen on synthetic voices, clean and in noise: tests/local_engine/accuracy.py prints what is accepted and rejected.
MIN_SCORE = -3.65
MIN_SCORE_NARROWBAND = -4.2
"""The minimum for telephone audio, which lacks half of the spectrum that the acoustic model was trained on."""
# The cepstral mean of telephone audio, from four synthetic voices: without it the first words come out wrong.
_NARROWBAND_CEPSTRAL_MEAN = "43.59,29.24,-27.45,44.17,-21.10,4.51,14.00,-22.61,15.89,-11.77,7.96,6.72,-6.54"


@dataclass(frozen=True, slots=True)
class RecognitionResult:
    """`text` in lower-case words, None if it was rejected; a `score` nearer to 0 is better."""

    text: str | None
    score: float


class Recognizer:
    """A pocketsphinx decoder for one grammar; recognizes one utterance at a time."""

    def __init__(self, grammar: Grammar) -> None:
        from pocketsphinx import FsgModel

        self.grammar = grammar
        lattice = grammar.word_lattice
        words = sorted({word for _, _, word in lattice.arcs})
        self._decoder = _create_decoder(words)
        model = FsgModel("relay", self._decoder.get_logmath(), 1.0, lattice.n_states)
        word_ids = {word: model.word_add(word) for word in words}
        for source, target, word in lattice.arcs:
            model.trans_add(source, target, 0, word_ids[word])
        model.set_start_state(0)
        model.set_final_state(lattice.final_state)
        self._decoder.add_fsg("relay", model)
        self._decoder.activate_search("relay")
        self._audio = bytearray()
        self._min_score = MIN_SCORE
        self._initial_cepstral_mean = self._decoder.get_cmn(False)

    def start(self, cepstral_mean: str | None = None, *, is_narrowband: bool = False) -> None:
        """Start an utterance; `cepstral_mean` is that of the previous utterance over the same microphone.

        `is_narrowband`: the audio is upsampled from 8 kHz.
        """
        self._min_score = MIN_SCORE_NARROWBAND if is_narrowband else MIN_SCORE
        self._audio.clear()
        initial = _NARROWBAND_CEPSTRAL_MEAN if is_narrowband else self._initial_cepstral_mean
        self._decoder.set_cmn(cepstral_mean or initial)
        self._decoder.start_utt()

    def feed(self, pcm: bytes) -> None:
        """Feed audio (PCM16, 16 kHz); audio beyond MAX_UTTERANCE_MS is dropped."""
        room = MAX_UTTERANCE_BYTES - len(self._audio)
        if room > 0 and pcm:
            self._audio += pcm[:room]
            self._decoder.process_raw(pcm[:room])

    def finish(self) -> Generator[None, None, RecognitionResult]:
        """End the utterance, in short steps; the generator's return value is the result.

        A doubtful utterance is decoded a second time: the cepstral mean is known by then, which improves the first
        words over a microphone, and noisy audio.
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
            passes = [result for result in (best, second) if result]
            best = max(passes, key=lambda result: result.score, default=None)
        if best is None:
            return RecognitionResult(None, -math.inf)
        return best if best.score >= self._min_score else RecognitionResult(None, best.score)

    def completeness(self, silence_ms: int) -> Completeness:
        """Judge the words before the last `silence_ms`; "unknown" if their score is low.

        In silence the decoder hypothesizes the first words of any continuation: these are left out.
        """
        before_frame = (len(self._audio) // _BYTES_PER_MS - silence_ms - _LAG_MS) // _FRAME_MS
        hypothesis = self._hypothesis(before_frame)
        if hypothesis is None or hypothesis.score < self._min_score:
            return "unknown"
        return "complete" if self.grammar.parse(hypothesis.text or "", strict=True) else "unfinished"

    @property
    def cepstral_mean(self) -> str:
        """The running cepstral mean; it is learned during an utterance and depends on the microphone."""
        return str(self._decoder.get_cmn(False))

    def abandon(self) -> None:
        """Discard the utterance."""
        self._decoder.end_utt()

    def _accept(self, hypothesis: RecognitionResult | None) -> RecognitionResult | None:
        """Return the hypothesis if it is a complete sentence of the grammar ("roll two" is not), else None."""
        return hypothesis if hypothesis is not None and self.grammar.parse(hypothesis.text or "", strict=True) else None

    def _hypothesis(self, before_frame: float = math.inf) -> RecognitionResult | None:
        """Return the words so far that begin before a frame, with their score."""
        if self._decoder.hyp() is None:
            return None
        total, frames, words = 0.0, 0, []
        for segment in self._decoder.seg():
            if not segment.word.startswith("<") and segment.start_frame < before_frame:
                total += _SCORE_UNIT * math.log(max(segment.ascore, 1e-300))
                frames += segment.end_frame - segment.start_frame + 1
                words.append(_READING_SUFFIX.sub("", segment.word))
        return RecognitionResult(" ".join(words), total / frames) if frames else None


def _create_decoder(words: list[str]) -> Any:
    from pocketsphinx import Config, Decoder, get_model_path

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
            bestpath=False,  # its search loses where sentences may end
            maxhmmpf=_MAX_ACTIVE_HMMS,
            loglevel="FATAL",
        )
        return Decoder(config)


class RecognizerPool:
    """A pool of at most `max_idle` idle recognizers; the least recently used are dropped first."""

    def __init__(self, max_idle: int = 16) -> None:
        self._max_idle = max_idle
        self._idle: OrderedDict[int, Recognizer] = OrderedDict()

    def acquire(self, grammar: Grammar) -> Recognizer:
        """Return an idle recognizer for the grammar, or create one (27 ms)."""
        for key, recognizer in reversed(self._idle.items()):
            if recognizer.grammar is grammar:
                return self._idle.pop(key)
        return Recognizer(grammar)

    def release(self, recognizer: Recognizer) -> None:
        """Return a recognizer to the pool."""
        self._idle[id(recognizer)] = recognizer
        while len(self._idle) > self._max_idle:
            self._idle.popitem(last=False)
