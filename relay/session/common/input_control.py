"""What the rules want of the client's audio, and the events that wait with it until the session is ready.

Audio is no event: the uplink holds it back while the gate is "held". An event that comes meanwhile keeps its place in
the audio, by position. At the release both go on in the order in which the client sent them.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from relay.core.commands import InputCommand, ReleaseInput, SetInputGate
from relay.session.common.early_events import EarlyEvents
from relay.session.common.media_types import InputGate

Event = TypeVar("Event")


class InputControl(Generic[Event]):
    """The uplink's gate as the rules set it, and the client's early events; commands go to `emit`."""

    __slots__ = ("_early", "_emit", "_gate", "position_bytes")

    def __init__(self, emit: Callable[[InputCommand], None]) -> None:
        self._emit = emit
        self._early: EarlyEvents[Event] = EarlyEvents()
        self._gate: InputGate = "held"
        self.position_bytes: int | None = None
        """Where in the client's audio the early event at hand came; None for events that are handled at once."""

    def set_gate(self, gate: InputGate) -> None:
        """Tell the uplink what becomes of the audio, if that has changed."""
        if gate != self._gate:
            self._gate = gate
            self._emit(SetInputGate(gate))

    def hold(self, event: Event, input_bytes: int) -> bool:
        """Keep an event that came after `input_bytes` of audio. Returns False if too many wait already."""
        return self._early.add(event, input_bytes)

    def release(self) -> Iterator[Event]:
        """The events that waited, in order, each after the audio that came before it."""
        released_bytes = 0
        for input_bytes, event in self._early.take():
            if input_bytes > released_bytes:
                self._emit(ReleaseInput(input_bytes))
                released_bytes = input_bytes
            self.position_bytes = input_bytes
            yield event
        self.position_bytes = None
