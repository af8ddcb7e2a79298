"""The ears: a session's input audio, from the wire format to turns and recognised words.

Audio goes through in slices of at most 100 ms, so that the caller can do other work between them.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

from audio.g711 import alaw_decode, ulaw_decode
from audio.resample import Resampler, resample
from relay.local_engine.asr import RATE_HZ, Recogniser, RecogniserPool
from relay.local_engine.grammar import Grammar
from relay.local_engine.vad import FRAME_BYTES, FRAME_MS, SpeechProbability, TurnDetector, TurnRules

_SLICE_MS = 100
_LONGEST_PREFIX_MS = 5000
_LONGEST_CLIP_MS = 60_000
_DECODERS: dict[str, Callable[[bytes], bytes]] = {"audio/pcmu": ulaw_decode, "audio/pcma": alaw_decode}
_RATES_HZ = {"audio/pcm": 24_000, "audio/pcmu": 8_000, "audio/pcma": 8_000}
_BYTES_PER_MS = {"audio/pcm": 48, "audio/pcmu": 8, "audio/pcma": 8}


@dataclass(frozen=True, slots=True)
class Started:
    """A turn began; `start_ms` counts the session's audio and includes the prefix."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The turn ended at `end_ms` of the session's audio."""

    end_ms: int


class Ears:
    """One session's hearing.

    With turn detection, `hear` reports turns. Without, the client ends them; speech detection then only decides when
    the recogniser begins to listen. Of silence nothing is kept but the prefix.
    """

    def __init__(self, pool: RecogniserPool, start_ms: int = 0) -> None:
        """`start_ms` is how much of the session's audio went before."""
        self._pool = pool
        self._probability: SpeechProbability | None = None
        self._detector = TurnDetector(TurnRules())
        self._reports = False
        self._format = "audio/pcm"
        self._to_engine = Resampler(_RATES_HZ[self._format], RATE_HZ)
        self._grammar: Grammar | None = None
        self._recogniser: Recogniser | None = None
        self._sound: str | None = None
        self._partial = bytearray()
        self._prefix: deque[bytes] = deque(maxlen=_LONGEST_PREFIX_MS // FRAME_MS + 4)
        self._position_ms = start_ms
        self._turn_floor_ms = start_ms

    def configure(self, input_format: str, turn_detection: dict[str, Any] | None, grammar: Grammar) -> None:
        """Listen this way from now on; a turn under way ends only if the rules of turns changed."""
        self._grammar = grammar
        rules, reports = TurnRules.of(turn_detection), turn_detection is not None
        if (rules, reports) != (self._detector.rules, self._reports):
            if reports and self._reports:
                self._detector.rules = rules  # a turn under way goes on
            else:
                self._change_hands(rules, reports)
        if input_format != self._format:
            self._format = input_format
            self._sound = None
            self._to_engine = Resampler(_RATES_HZ[input_format], RATE_HZ)
            self._partial.clear()

    def hear(self, audio: bytes) -> Iterator[Started | Stopped | None]:
        """Take in audio; yields what happened, and None after each slice."""
        step = _SLICE_MS * _BYTES_PER_MS[self._format]
        decode = _DECODERS.get(self._format)
        for start in range(0, len(audio), step):
            piece = audio[start : start + step]
            self._partial += self._to_engine.feed(decode(piece) if decode else piece)
            while len(self._partial) >= FRAME_BYTES:
                frame = bytes(self._partial[:FRAME_BYTES])
                del self._partial[:FRAME_BYTES]
                event = self._frame(frame)
                if event is not None:
                    yield event
            yield None

    def finish(self) -> Generator[None, None, str | None]:
        """End the turn; returns what was said ("": nothing, None: not understood). Yields between steps of work."""
        recogniser, self._recogniser = self._recogniser, None
        self._new_turn()
        if recogniser is None:
            return ""
        for frame in self._last_frame():
            recogniser.feed(frame)
        heard = yield from recogniser.finish()
        self._sound = recogniser.sound
        self._pool.give_back(recogniser)
        return heard.text

    def forget(self) -> None:
        """Drop the turn under way."""
        self._drop_recogniser()
        self._partial.clear()
        self._to_engine.reset()
        self._new_turn()

    def clip(self, audio: bytes) -> Generator[None, None, str | None]:
        """Recognise a clip in the input format, apart from the stream; at most its first minute."""
        if self._grammar is None:
            raise RuntimeError("configure comes first")
        audio = audio[: _LONGEST_CLIP_MS * _BYTES_PER_MS[self._format]]
        decode = _DECODERS.get(self._format)
        pcm = resample(decode(audio) if decode else audio[: len(audio) // 2 * 2], _RATES_HZ[self._format], RATE_HZ)
        recogniser = self._pool.take(self._grammar)
        recogniser.start(self._sound, narrow=self._format in _DECODERS)
        step = _SLICE_MS * RATE_HZ * 2 // 1000
        for start in range(0, len(pcm), step):
            recogniser.feed(pcm[start : start + step])
            yield
        heard = yield from recogniser.finish()
        self._pool.give_back(recogniser)
        return heard.text

    def close(self) -> None:
        """Give everything back."""
        self._drop_recogniser()

    def _frame(self, frame: bytes) -> Started | Stopped | None:
        self._position_ms += FRAME_MS
        if self._probability is None:
            self._probability = SpeechProbability()
        change = self._detector.feed(self._probability.of(frame)) if not self._listens_on else None
        if self._recogniser is not None:
            self._recogniser.feed(frame)
        self._prefix.append(frame)
        if change == "started":
            return self._begin()
        if change == "stopped" and self._reports:
            return Stopped(self._position_ms)
        return None

    @property
    def _listens_on(self) -> bool:
        """Without turn detection, speech once begun lasts until the client ends the turn."""
        return not self._reports and self._recogniser is not None

    def _begin(self) -> Started | None:
        back_ms = self._detector.onset_ms + self._detector.rules.prefix_ms
        start_ms = max(self._position_ms - back_ms, self._turn_floor_ms)
        frames = min((self._position_ms - start_ms + FRAME_MS - 1) // FRAME_MS, len(self._prefix))
        if self._recogniser is None and self._grammar is not None:
            self._recogniser = self._pool.take(self._grammar)
            self._recogniser.start(self._sound, narrow=self._format in _DECODERS)
            for frame in list(self._prefix)[len(self._prefix) - frames :]:
                self._recogniser.feed(frame)
        return Started(start_ms) if self._reports else None

    def _last_frame(self) -> Iterator[bytes]:
        """What is left of a frame when the client ends the turn itself."""
        if not self._reports and self._partial:
            rest = bytes(self._partial) + self._to_engine.flush()
            self._partial.clear()
            yield rest[: len(rest) // 2 * 2]

    def _change_hands(self, rules: TurnRules, reports: bool) -> None:
        """From turn detection to the client or back; a turn that the client began is not ours to end."""
        self._detector, self._reports = TurnDetector(rules), reports
        if reports:
            self._drop_recogniser()

    def _new_turn(self) -> None:
        self._detector.reset()
        self._prefix.clear()
        self._turn_floor_ms = self._position_ms

    def _drop_recogniser(self) -> None:
        recogniser, self._recogniser = self._recogniser, None
        if recogniser is not None:
            recogniser.abandon()
            self._pool.give_back(recogniser)
