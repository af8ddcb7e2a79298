"""The ears: a session's input audio, from the wire format to turns; the sound of a turn goes to a listener.

Turns are found here, in the server's own process and at once (0.2 ms a frame); words take their time elsewhere, so that
no turn is reported late because of somebody's words.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from audio.formats import PCM16_16K, REALTIME_FORMATS
from audio.resample import resample
from audio.transcode import Transcoder, decode
from relay.local_engine.speech.backend import Listener
from relay.local_engine.speech.silero_vad import SpeechProbability
from relay.local_engine.speech.turn_detector import FRAME_BYTES, FRAME_MS, ONSET_MS, TurnDetector, TurnRules

_SLICE_MS = 100
_LONGEST_PREFIX_MS = 5000
_LONGEST_CLIP_MS = 60_000
_HEARD_SILENCE_MS = 160
"""Of a pause, what the listener hears at once: enough to know that a word has ended."""
_VERDICT_S = 0.25
"""How long a semantic VAD waits for the words; late ones decide nothing."""


@dataclass(frozen=True, slots=True)
class Started:
    """A turn began; `start_ms` counts the session's audio and includes the prefix."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class Paused:
    """With semantic VAD: the user pauses, and it is time to `consider` the words before."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The turn ended at `end_ms` of the session's audio."""

    end_ms: int


Event = Started | Paused | Stopped


class Ears:
    """One session's hearing.

    With turn detection, `hear` reports turns. Without, the client ends them; speech detection then only decides when
    the listener begins to listen. Of silence nothing is kept but the prefix.
    """

    def __init__(self, listener: Listener, start_ms: int = 0) -> None:
        """`start_ms` is how much of the session's audio went before."""
        self._listener = listener
        self._probability = SpeechProbability()
        self._detector = TurnDetector(TurnRules())
        self._reports = False
        self._is_listening = False
        self._format = REALTIME_FORMATS["audio/pcm"]
        self._to_engine = Transcoder(self._format, PCM16_16K)
        self._partial = bytearray()
        self._prefix: deque[bytes] = deque(maxlen=_LONGEST_PREFIX_MS // FRAME_MS + 4)
        self._fresh: list[bytes] = []
        self._silence: list[bytes] = []
        self._position_ms = start_ms
        self._turn_floor_ms = start_ms

    def configure(self, input_format: str, turn_detection: dict[str, Any] | None, tools: bytes) -> None:
        """Listen this way from now on; a turn under way ends only if the rules of turns changed."""
        self._listener.configure(tools)
        rules, reports = TurnRules.of(turn_detection), turn_detection is not None
        if (rules, reports) != (self._detector.rules, self._reports):
            if reports and self._reports:
                self._detector.follow(rules)
            else:
                # From turn detection to the client or back; a turn that the client began is not ours to end.
                self._detector, self._reports = TurnDetector(rules), reports
                if reports:
                    self._drop()
        if REALTIME_FORMATS[input_format] != self._format:
            self._format = REALTIME_FORMATS[input_format]
            self._to_engine = Transcoder(self._format, PCM16_16K)
            self._partial.clear()

    def hear(self, audio: bytes) -> Iterator[Event | None]:
        """Take in audio; yields what happened, and None after each 100 ms of it."""
        step = self._format.frame_bytes(_SLICE_MS)
        for start in range(0, len(audio), step):
            self._partial += self._to_engine.feed(audio[start : start + step])
            while len(self._partial) >= FRAME_BYTES:
                frame = bytes(self._partial[:FRAME_BYTES])
                del self._partial[:FRAME_BYTES]
                event = self._frame(frame)
                if event is not None:
                    self._hand_over()
                    yield event
            self._hand_over()
            yield None

    async def consider(self) -> None:
        """Behind `Paused`: let the words so far say how long the pause may last."""
        words = self._listener.so_far(min(self._detector.silence_ms, _HEARD_SILENCE_MS))
        await asyncio.wait([words], timeout=_VERDICT_S)
        if words.done() and not words.cancelled() and words.exception() is None:
            self._detector.judge(words.result())

    def finish(self) -> "asyncio.Future[str | None]":
        """End the turn; the result is what was said ("": nothing, None: not understood)."""
        if self._is_listening and not self._reports and self._partial:  # what is left of a frame
            rest = bytes(self._partial) + self._to_engine.flush()
            self._partial.clear()
            self._fresh.append(rest[: len(rest) // 2 * 2])
        self._hand_over()
        self._is_listening = False
        self._new_turn()
        return self._listener.end()

    def forget(self) -> None:
        """Drop the turn under way."""
        self._drop()
        self._partial.clear()
        self._to_engine.reset()
        self._new_turn()

    def clip(self, audio: bytes) -> "asyncio.Future[str | None]":
        """Recognise a clip in the input format, apart from the stream; at most its first minute."""
        pcm = decode(audio[: self._format.frame_bytes(_LONGEST_CLIP_MS)], self._format)
        pcm = resample(pcm, self._format.rate_hz, PCM16_16K.rate_hz)
        return self._listener.clip(pcm, narrow=self._is_narrow)

    def close(self) -> None:
        """Give everything back."""
        self._listener.close()

    @property
    def _is_narrow(self) -> bool:
        return self._format.rate_hz < PCM16_16K.rate_hz

    def _frame(self, frame: bytes) -> Event | None:
        self._position_ms += FRAME_MS
        change = None
        if self._reports or not self._is_listening:  # else speech lasts until the client ends the turn
            change = self._detector.feed(self._probability.of(frame))
        if self._is_listening and change != "stopped":
            self._listen(frame)
        self._prefix.append(frame)
        if change == "started":
            return self._begin()
        if not self._reports:
            return None
        if change == "paused":
            return Paused()
        return Stopped(self._position_ms) if change == "stopped" else None

    def _listen(self, frame: bytes) -> None:
        """Long silence waits until the user speaks on: at the end of a turn nobody needs to hear it."""
        if self._detector.silence_ms > _HEARD_SILENCE_MS and self._reports:
            self._silence.append(frame)
            return
        self._fresh += [*self._silence, frame]
        self._silence.clear()

    def _begin(self) -> Started | None:
        back_ms = ONSET_MS + self._detector.rules.prefix_ms
        start_ms = max(self._position_ms - back_ms, self._turn_floor_ms)
        frames = min((self._position_ms - start_ms + FRAME_MS - 1) // FRAME_MS, len(self._prefix))
        if not self._is_listening:
            self._is_listening = True
            self._listener.begin(narrow=self._is_narrow)
            self._fresh += list(self._prefix)[len(self._prefix) - frames :]
        return Started(start_ms) if self._reports else None

    def _hand_over(self) -> None:
        if self._fresh:
            self._listener.feed(b"".join(self._fresh))
            self._fresh.clear()

    def _new_turn(self) -> None:
        self._detector.reset()
        self._prefix.clear()
        self._silence.clear()
        self._turn_floor_ms = self._position_ms

    def _drop(self) -> None:
        self._fresh.clear()
        self._silence.clear()
        if self._is_listening:
            self._is_listening = False
            self._listener.drop()
