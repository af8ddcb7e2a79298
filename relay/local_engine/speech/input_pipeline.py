"""The input pipeline: decodes a session's input audio, detects turns and feeds their audio to the recognizer.

Turns are detected here, in the server's process and immediately (0.2 ms a frame). Recognition is slower and runs
elsewhere, so that it never delays the report of a turn.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from audio.formats import PCM16_16K, REALTIME_FORMATS
from audio.resample import resample
from audio.transcode import Transcoder, decode
from relay.local_engine.speech.backend import SessionRecognizer
from relay.local_engine.speech.silero_vad import SileroVad
from relay.local_engine.speech.turn_detector import FRAME_BYTES, FRAME_MS, ONSET_MS, TurnDetector, TurnDetectorOptions

_SLICE_MS = 100
_MAX_PREFIX_MS = 5000
_MAX_CLIP_MS = 60_000
_MAX_FED_SILENCE_MS = 160
"""The part of a pause that is fed to the recognizer at once: enough to detect the end of a word."""
_COMPLETENESS_TIMEOUT_S = 0.25
"""The time that a semantic VAD waits for the recognizer; a later answer is ignored."""


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """A turn started; `start_ms` is a position in the session's audio, with the prefix included."""

    start_ms: int


@dataclass(frozen=True, slots=True)
class TurnPaused:
    """With semantic VAD: the user pauses; the caller should await `query_endpoint`."""


@dataclass(frozen=True, slots=True)
class TurnStopped:
    """The turn ended at position `end_ms` of the session's audio."""

    end_ms: int


TurnEvent = TurnStarted | TurnPaused | TurnStopped


class InputPipeline:
    """One session's input audio.

    With turn detection, `feed` reports turns. Without, the client commits them; speech detection then only decides
    when recognition starts. Silence is dropped except for the prefix.
    """

    def __init__(self, recognizer: SessionRecognizer, start_ms: int = 0) -> None:
        """`start_ms` is the position of the first audio in the session."""
        self._recognizer = recognizer
        self._vad = SileroVad()
        self._detector = TurnDetector(TurnDetectorOptions())
        self._detects_turns = False
        self._is_recognizing = False
        self._format = REALTIME_FORMATS["audio/pcm"]
        self._transcoder = Transcoder(self._format, PCM16_16K)
        self._partial_frame = bytearray()
        self._prefix: deque[bytes] = deque(maxlen=_MAX_PREFIX_MS // FRAME_MS + 4)
        self._pending_frames: list[bytes] = []
        self._held_silence: list[bytes] = []
        self._position_ms = start_ms
        self._earliest_turn_ms = start_ms

    def configure(self, input_format: str, turn_detection: dict[str, Any] | None, tools: bytes) -> None:
        """Apply a configuration; a turn in progress is discarded only if turn detection is switched on."""
        self._recognizer.configure(tools)
        options, detects_turns = TurnDetectorOptions.from_turn_detection(turn_detection), turn_detection is not None
        if (options, detects_turns) != (self._detector.options, self._detects_turns):
            if detects_turns and self._detects_turns:
                self._detector.apply_options(options)
            else:
                # Turn detection is switched on or off: it must not end a turn that the client has started.
                self._detector, self._detects_turns = TurnDetector(options), detects_turns
                if detects_turns:
                    self._discard_turn()
        if REALTIME_FORMATS[input_format] != self._format:
            self._format = REALTIME_FORMATS[input_format]
            self._transcoder = Transcoder(self._format, PCM16_16K)
            self._partial_frame.clear()

    def feed(self, audio: bytes) -> Iterator[TurnEvent | None]:
        """Process audio; yields turn events, and None after each 100 ms of audio."""
        step = self._format.frame_bytes(_SLICE_MS)
        for start in range(0, len(audio), step):
            self._partial_frame += self._transcoder.feed(audio[start : start + step])
            while len(self._partial_frame) >= FRAME_BYTES:
                frame = bytes(self._partial_frame[:FRAME_BYTES])
                del self._partial_frame[:FRAME_BYTES]
                event = self._process_frame(frame)
                if event is not None:
                    self._flush_frames()
                    yield event
            self._flush_frames()
            yield None

    async def query_endpoint(self) -> None:
        """After `TurnPaused`: let the completeness of the words decide how long the pause may last."""
        completeness = self._recognizer.query_completeness(min(self._detector.silence_ms, _MAX_FED_SILENCE_MS))
        await asyncio.wait([completeness], timeout=_COMPLETENESS_TIMEOUT_S)
        if completeness.done() and not completeness.cancelled() and completeness.exception() is None:
            self._detector.apply_completeness(completeness.result())

    def end_turn(self) -> "asyncio.Future[str | None]":
        """End the turn; returns its transcript ("": no speech, None: not understood)."""
        if self._is_recognizing and not self._detects_turns and self._partial_frame:  # the rest of a frame
            remainder = bytes(self._partial_frame) + self._transcoder.flush()
            self._partial_frame.clear()
            self._pending_frames.append(remainder[: len(remainder) // 2 * 2])
        self._flush_frames()
        self._is_recognizing = False
        self._reset_turn()
        return self._recognizer.end_turn()

    def clear(self) -> None:
        """Drop the turn in progress."""
        self._discard_turn()
        self._partial_frame.clear()
        self._transcoder.reset()
        self._reset_turn()

    def transcribe_clip(self, audio: bytes) -> "asyncio.Future[str | None]":
        """Transcribe at most a minute of a clip in the input format, independently of the stream."""
        pcm = decode(audio[: self._format.frame_bytes(_MAX_CLIP_MS)], self._format)
        pcm = resample(pcm, self._format.rate_hz, PCM16_16K.rate_hz)
        return self._recognizer.transcribe_clip(pcm, is_narrowband=self._is_narrow)

    def close(self) -> None:
        """Release the recognizer."""
        self._recognizer.close()

    @property
    def _is_narrow(self) -> bool:
        return self._format.rate_hz < PCM16_16K.rate_hz

    def _process_frame(self, frame: bytes) -> TurnEvent | None:
        self._position_ms += FRAME_MS
        change = None
        if self._detects_turns or not self._is_recognizing:  # else the client ends the turn
            change = self._detector.feed(self._vad.speech_probability(frame))
        if self._is_recognizing and change != "stopped":
            self._queue_frame(frame)
        self._prefix.append(frame)
        if change == "started":
            return self._start_turn()
        if not self._detects_turns:
            return None
        if change == "paused":
            return TurnPaused()
        return TurnStopped(self._position_ms) if change == "stopped" else None

    def _queue_frame(self, frame: bytes) -> None:
        """Queue a frame of the turn; long silence is held back until the user continues to speak."""
        if self._detector.silence_ms > _MAX_FED_SILENCE_MS and self._detects_turns:
            self._held_silence.append(frame)
            return
        self._pending_frames += [*self._held_silence, frame]
        self._held_silence.clear()

    def _start_turn(self) -> TurnStarted | None:
        back_ms = ONSET_MS + self._detector.options.prefix_ms
        start_ms = max(self._position_ms - back_ms, self._earliest_turn_ms)
        frames = min((self._position_ms - start_ms + FRAME_MS - 1) // FRAME_MS, len(self._prefix))
        if not self._is_recognizing:
            self._is_recognizing = True
            self._recognizer.start_turn(is_narrowband=self._is_narrow)
            self._pending_frames += list(self._prefix)[len(self._prefix) - frames :]
        return TurnStarted(start_ms) if self._detects_turns else None

    def _flush_frames(self) -> None:
        if self._pending_frames:
            self._recognizer.feed(b"".join(self._pending_frames))
            self._pending_frames.clear()

    def _reset_turn(self) -> None:
        self._detector.reset()
        self._prefix.clear()
        self._held_silence.clear()
        self._earliest_turn_ms = self._position_ms

    def _discard_turn(self) -> None:
        self._pending_frames.clear()
        self._held_silence.clear()
        if self._is_recognizing:
            self._is_recognizing = False
            self._recognizer.discard_turn()
