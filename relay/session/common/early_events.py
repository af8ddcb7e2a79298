"""A client's events before the upstream is configured: kept in order, bounded, and handled when it is (D5)."""

from typing import Generic, TypeVar

from relay.core.events import UserText

MAX_EVENTS = 256
MAX_TYPED = 16
"""As many typed turns as may wait later; they are the only early events that can be long."""

Event = TypeVar("Event")


class EarlyEvents(Generic[Event]):
    """Early events in order, each with the position in the client's audio at which it came. None is ever dropped."""

    __slots__ = ("_events", "_n_typed")

    def __init__(self) -> None:
        self._events: list[tuple[int, Event]] = []
        self._n_typed = 0

    def add(self, event: Event, input_bytes: int) -> bool:
        """Keep an event that came after `input_bytes` of audio. Returns False if there are too many already."""
        is_typed = isinstance(event, UserText)
        if len(self._events) >= MAX_EVENTS or (is_typed and self._n_typed >= MAX_TYPED):
            return False
        self._n_typed += is_typed
        self._events.append((input_bytes, event))
        return True

    def take(self) -> list[tuple[int, Event]]:
        """All that was kept, in order; nothing is kept afterwards."""
        events, self._events = self._events, []
        self._n_typed = 0
        return events
