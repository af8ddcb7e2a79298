"""A file in place of a microphone: audio sent at the speed of speech, then silence."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from audio.formats import AudioFormat
from audio.transcode import encode

FRAME_MS = 20


class MicrophoneStream:
    """Sends PCM16 in `audio_format`, 20 ms at a time in real time, then silence: speech detection moves with audio.

    `now` and `sleep` are the clock, in seconds.
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
        """Send until cancelled. Each frame has a fixed time from the start, so that delays do not add up."""
        started_at = self._now()
        for index in itertools.count():
            await self._sleep(max(0.0, started_at + index * FRAME_MS / 1000 - self._now()))
            await self._send(self._frame(index))

    def _frame(self, index: int) -> bytes:
        frame = self._speech[index * self._frame_bytes : (index + 1) * self._frame_bytes]
        return frame + self._silence[len(frame) :]
