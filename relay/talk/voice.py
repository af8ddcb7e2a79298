"""The sound that `relay talk` sends and receives: a file at the speed of speech, and the formats on the wire."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from audio.formats import AudioFormat
from audio.transcode import encode

FRAME_MS = 20


class Voice:
    """Speaks PCM16 in `audio_format`, 20 ms at a time in real time, then silence for as long as it may.

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

    async def speak(self) -> None:
        """Send until cancelled. Frames have fixed times from the start on, so that lateness never adds up."""
        began_at = self._now()
        for index in itertools.count():
            await self._sleep(max(0.0, began_at + index * FRAME_MS / 1000 - self._now()))
            await self._send(self._frame(index))

    def _frame(self, index: int) -> bytes:
        frame = self._speech[index * self._frame_bytes : (index + 1) * self._frame_bytes]
        return frame + self._silence[len(frame) :]


def parse_format(value: Any) -> AudioFormat:
    """An `input` or `output` object of AIConnected; a relay that sends none speaks PCM16 at 16 kHz. ValueError."""
    if not isinstance(value, dict):
        return AudioFormat("pcm16", 16000)
    return AudioFormat(value.get("format", "pcm16"), value.get("rate", 16000))
