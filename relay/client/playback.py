"""Playback positions, which the client acknowledges, so that a barge-in truncates an item to what the user heard.

`PlaybackTracker` counts the bytes that a real speaker plays. `VirtualPlayer` is for programs without a speaker: it
counts time.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from audio.formats import PCM16_16K
from relay.client.events import (
    AudioEndEvent,
    AudioEvent,
    AudioStartEvent,
    ConnectedEvent,
    InterruptedEvent,
    ReadyEvent,
    RelayEvent,
)

REPORT_S = 0.2
MAX_ITEMS = 256
"""The limit of tracked items; a relay has a few at a time, and further ones are ignored."""
_EPSILON_MS = 1e-6  # the error of sums of fractions of seconds


@dataclass(slots=True)
class _PlayedItem:
    item_id: str
    received_ms: float = 0.0
    played_ms: float = 0.0
    reported_ms: int = 0
    ended: bool = False

    @property
    def whole_played_ms(self) -> int:
        return int(self.played_ms + _EPSILON_MS)

    @property
    def has_unreported(self) -> bool:
        """Whether it is being played, or its playback position has not been reported."""
        return self.played_ms < self.received_ms - _EPSILON_MS or self.whole_played_ms > self.reported_ms


class PlaybackTracker:
    """Tracks the playback position of each item: pass it to `connect`, and call `played(n_bytes)`.

    The client passes every event to it and sends its reports: every 200 ms while an item plays, and once at its end. In
    an audio callback, call `loop.call_soon_threadsafe(tracker.played, n_bytes)`. `clock` is in seconds.
    """

    def __init__(self, bytes_per_ms: int = PCM16_16K.bytes_per_ms, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_per_ms = bytes_per_ms
        self._clock = clock
        self._queue: deque[_PlayedItem] = deque()
        self._finished: list[tuple[str, int]] = []
        self._reported_at = -math.inf

    def reset(self) -> None:
        """Forget all items: `connect` calls it, so that a tracker can be used for one session after the other."""
        self._queue.clear()
        self._finished.clear()

    def observe(self, event: RelayEvent) -> None:
        """Handle an event of the relay."""
        match event:
            case ConnectedEvent(output_format=output) | ReadyEvent(output_format=output):
                self._bytes_per_ms = output.bytes_per_ms
            case AudioStartEvent(item_id=item_id) if item_id:
                self.start(item_id)
            case AudioEvent(data=data):
                self.feed(len(data), self._clock())
            case AudioEndEvent(item_id=item_id):
                self.end(item_id)
            case InterruptedEvent(item_id=item_id):
                self.interrupt(item_id)

    def played(self, n_bytes: int) -> None:
        """Count audio that the speaker has played, in the session's output format."""
        self._play(n_bytes / self._bytes_per_ms, self._clock())

    def start(self, item_id: str) -> None:
        """Add an item whose audio follows."""
        if len(self._queue) < MAX_ITEMS:
            self._queue.append(_PlayedItem(item_id))

    def feed(self, n_bytes: int, now: float) -> None:
        """Count received audio of the last item; audio without an item is not acknowledged."""
        if not self._queue or self._queue[-1].ended:
            return
        item = self._queue[-1]
        if item is self._queue[0] and item.received_ms > 0 and not item.has_unreported:
            self._reported_at = now  # after an underrun, the interval of reports starts again
        item.received_ms += n_bytes / self._bytes_per_ms

    def end(self, item_id: str) -> None:
        """Mark an item whose audio has arrived completely."""
        for item in self._queue:
            if item.item_id == item_id:
                item.ended = True

    def interrupt(self, item_id: str) -> None:
        """Drop an item and all queued ones, without further reports."""
        self._queue.clear()
        self._finished = [report for report in self._finished if report[0] != item_id]

    def reports(self, now: float | None = None) -> list[tuple[str, int]]:
        """Return the acknowledgements that are due, as (item id, ms played)."""
        now = self._clock() if now is None else now
        self._play(0.0, now)
        due, self._finished = self._finished, []
        if self._queue and now >= self._reported_at + REPORT_S - 1e-6:
            item = self._queue[0]
            if item.whole_played_ms > item.reported_ms:
                item.reported_ms = item.whole_played_ms
                due.append((item.item_id, item.reported_ms))
                self._reported_at = now
        return due

    def _play(self, ms: float, now: float) -> None:
        """Count `ms` of playback until `now`; time beyond the received audio was silence."""
        while self._queue:
            item = self._queue[0]
            if item.played_ms == 0 and item.received_ms > 0:
                # The item began when the previous one ended; its first report is due 200 ms later.
                self._reported_at = now - ms / 1000
            step_ms = min(ms, item.received_ms - item.played_ms)
            item.played_ms += step_ms
            ms -= step_ms
            if not item.ended or item.played_ms < item.received_ms - _EPSILON_MS:
                return
            self._queue.popleft()
            self._finished.append((item.item_id, math.ceil(item.received_ms - _EPSILON_MS)))


class VirtualPlayer(PlaybackTracker):
    """Simulates playback in real time, from the arrival of audio."""

    def __init__(self, bytes_per_ms: int = PCM16_16K.bytes_per_ms, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(bytes_per_ms, clock)
        self._at = -math.inf

    def feed(self, n_bytes: int, now: float) -> None:
        """Count received audio of the last item, after the playback of queued audio until `now`."""
        self._advance(now)
        super().feed(n_bytes, now)

    def reports(self, now: float | None = None) -> list[tuple[str, int]]:
        """Return the acknowledgements that are due, as (item id, ms played)."""
        now = self._clock() if now is None else now
        self._advance(now)
        return super().reports(now)

    def next_report_at(self) -> float | None:
        """Return the time of the next report; None until more audio arrives or an item ends."""
        if self._finished:
            return self._at
        if not self._queue:
            return None
        item = self._queue[0]
        report_at = max(self._at, self._reported_at + REPORT_S)
        if item.ended:
            return min(self._at + (item.received_ms - item.played_ms) / 1000, report_at)
        return report_at if item.has_unreported else None

    def _advance(self, now: float) -> None:
        """Count the time since the last call as played; an empty queue plays nothing."""
        passed_ms, self._at = max(0.0, now - self._at) * 1000, now
        self._play(passed_ms, now)
