"""Both directions of a conversation's audio: a file at the speed of speech, and a loudspeaker that plays in time only.

The loudspeaker says how far a real one would have come with what was received.
"""

import asyncio
import itertools
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from audio.formats import AudioFormat
from audio.transcode import encode

FRAME_MS = 20
REPORT_S = 0.2
# A relay in good order has a few items under way; of one that announces more, the further ones are not played.
MAX_ITEMS = 256
_EPSILON_MS = 1e-6  # what sums of fractions of seconds may be off


@dataclass(slots=True)
class _Item:
    item_id: str
    received_ms: float = 0.0
    played_ms: float = 0.0
    reported_ms: int = 0
    ended: bool = False

    @property
    def whole_ms(self) -> int:
        return int(self.played_ms + _EPSILON_MS)

    @property
    def news(self) -> bool:
        """Does it play, or has it played something that was not reported?"""
        return self.played_ms < self.received_ms - _EPSILON_MS or self.whole_ms > self.reported_ms


class VirtualPlayer:
    """Plays items one after the other, in real time from the moment their audio came; `now` is in seconds.

    What it would acknowledge comes from `reports`: every 200 ms while an item plays, and once at its end.
    """

    def __init__(self, bytes_per_ms: int) -> None:
        self._bytes_per_ms = bytes_per_ms
        self._queue: deque[_Item] = deque()
        self._finished: list[tuple[str, int]] = []
        self._at = -math.inf
        self._reported_at = -math.inf

    def start(self, item_id: str) -> None:
        """Audio of this item follows."""
        if len(self._queue) < MAX_ITEMS:
            self._queue.append(_Item(item_id))

    def feed(self, n_bytes: int, now: float) -> None:
        """Audio of the item last started; without one there is nothing to acknowledge it as."""
        self._advance(now)
        if not self._queue or self._queue[-1].ended:
            return
        item = self._queue[-1]
        if item is self._queue[0] and item.received_ms > 0 and not item.news:
            self._reported_at = now  # it had run dry, and that was told; 200 ms count from here
        item.received_ms += n_bytes / self._bytes_per_ms

    def end(self, item_id: str) -> None:
        """All audio of this item has come."""
        for item in self._queue:
            if item.item_id == item_id:
                item.ended = True

    def interrupt(self, item_id: str) -> None:
        """Fall silent: this item and all that is queued are dropped, and not spoken of again."""
        self._queue.clear()
        self._finished = [report for report in self._finished if report[0] != item_id]

    def reports(self, now: float) -> list[tuple[str, int]]:
        """What is due for acknowledgement, as (item id, ms played); empty when nothing is."""
        self._advance(now)
        due, self._finished = self._finished, []
        if self._queue and now >= self._reported_at + REPORT_S - 1e-6:
            item = self._queue[0]
            if item.whole_ms > item.reported_ms:
                item.reported_ms = item.whole_ms
                due.append((item.item_id, item.reported_ms))
                self._reported_at = now
        return due

    def next_at(self) -> float | None:
        """When `reports` will have more to say, as far as is known; None until more audio comes or an item ends."""
        if self._finished:
            return self._at
        if not self._queue:
            return None
        item = self._queue[0]
        report_at = max(self._at, self._reported_at + REPORT_S)
        if item.ended:
            return min(self._at + (item.received_ms - item.played_ms) / 1000, report_at)
        return report_at if item.news else None

    def _advance(self, now: float) -> None:
        """Play what the time since the last call allows; a queue that runs dry plays nothing meanwhile."""
        passed_ms, self._at = max(0.0, now - self._at) * 1000, now
        while self._queue:
            item = self._queue[0]
            if item.played_ms == 0 and item.received_ms > 0:
                # It begins where the one before it ended; the first report comes 200 ms into it.
                self._reported_at = now - passed_ms / 1000
            step_ms = min(passed_ms, item.received_ms - item.played_ms)
            item.played_ms += step_ms
            passed_ms -= step_ms
            if not item.ended or item.played_ms < item.received_ms - _EPSILON_MS:
                return
            self._queue.popleft()
            self._finished.append((item.item_id, math.ceil(item.received_ms - _EPSILON_MS)))


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
