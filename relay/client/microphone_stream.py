"""A simulated microphone: sends audio in real time, then silence."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from audio.formats import AudioFormat
from audio.transcode import encode

FRAME_MS = 20


class MicrophoneStream:
    """Sends PCM16 as `audio_format`, in frames of 20 ms in real time, then silence, which VAD needs to end a turn.

    `now` and `sleep` are a clock in seconds.
    """

    def __init__(
        self,
        pcm: bytes,
        audio_format: AudioFormat,
        send: Callable[[bytes], Awaitable[None]],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._send, self._now, self._sleep = send, now, sleep
        self._frame_bytes = audio_format.frame_bytes(FRAME_MS)
        self._speech = encode(pcm, audio_format)
        self._silence = audio_format.silence(self._frame_bytes)
        self._n_frames = -(-len(self._speech) // self._frame_bytes)
        self.duration_s = self._n_frames * FRAME_MS / 1000

    async def run(self) -> None:
        """Send until cancelled. The times of frames are relative to the start, so that delays do not add up."""
        started_at = self._now()
        for index in itertools.count():
            await self._sleep(max(0.0, started_at + index * FRAME_MS / 1000 - self._now()))
            await self._send(self._frame(index))

    def _frame(self, index: int) -> bytes:
        frame = self._speech[index * self._frame_bytes : (index + 1) * self._frame_bytes]
        return frame + self._silence[len(frame) :]
