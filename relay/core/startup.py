"""What a client says before the upstream is configured: kept in order, bounded, and played back when it is (D5)."""

from collections import deque
from typing import Any

from audio.formats import AudioFormat
from relay.core.events import Forwarded, UserText

MAX_AUDIO_MS = 10_000
MAX_AUDIO_FRAMES = 2000
MAX_EVENTS = 256
MAX_TYPED = 16
"""As many typed turns as may wait later; they are the only early events that can be long."""


class Backlog:
    """Early events in order. Over `MAX_AUDIO_MS` or `MAX_AUDIO_FRAMES` the oldest audio goes; other events never do."""

    __slots__ = ("_audio_bytes", "_audio_frames", "_events", "_others", "_typed", "dropped_bytes", "format")

    def __init__(self, client_input: AudioFormat) -> None:
        self.format = client_input
        self.dropped_bytes = 0
        self._events: deque[Any] = deque()
        self._audio_bytes = 0
        self._audio_frames = 0
        self._others = 0
        self._typed = 0

    def add(self, event: object) -> bool:
        """Keep an event. Returns False if there are too many events that may not be dropped."""
        if isinstance(event, Forwarded):
            self._events.append(event._replace(raw=bytes(event.raw)))  # a view would not outlive this call
            self._audio_bytes += event.n_bytes
            self._audio_frames += 1
            limit = MAX_AUDIO_MS * self.format.bytes_per_ms
            while self._audio_bytes > limit or self._audio_frames > MAX_AUDIO_FRAMES:
                self._drop_oldest_audio()
            return True
        is_typed = isinstance(event, UserText)
        if self._others >= MAX_EVENTS or (is_typed and self._typed >= MAX_TYPED):
            return False
        self._typed += is_typed
        self._others += 1
        self._events.append(event)
        return True

    def take(self) -> list[Any]:
        """All that was kept, in order; the backlog is empty afterwards."""
        events = list(self._events)
        self._events.clear()
        self._audio_bytes = self._audio_frames = self._others = self._typed = 0
        return events

    def _drop_oldest_audio(self) -> None:
        for index, event in enumerate(self._events):
            if isinstance(event, Forwarded):
                del self._events[index]
                self._audio_bytes -= event.n_bytes
                self._audio_frames -= 1
                self.dropped_bytes += event.n_bytes
                return
