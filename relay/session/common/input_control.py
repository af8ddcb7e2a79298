"""What the rules want of the client's audio, and the events that wait with it until the session is ready (D5).

Audio is no event: the uplink holds it back while the gate is "held". An event that comes meanwhile is kept, within
bounds, with its position in the audio. At the release both go on in the order in which the client sent them.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from relay.core.commands import InputCommand, ReleaseInput, SetInputGate
from relay.core.events import UserText
from relay.session.common.media_types import InputGate

MAX_EVENTS = 256
MAX_TYPED = 16
"""As many typed turns as may wait later; they are the only early events that can be long."""

Event = TypeVar("Event")


class InputControl(Generic[Event]):
    """The uplink's gate as the rules set it, and the client's early events; commands go to `emit`."""

    __slots__ = ("_early", "_emit", "_gate", "position_bytes")

    def __init__(self, emit: Callable[[InputCommand], None]) -> None:
        self._emit = emit
        self._early: list[tuple[int, Event]] = []
        self._gate: InputGate = "held"
        self.position_bytes: int | None = None
        """Where in the client's audio the early event at hand came; None for events that are handled at once."""

    def set_gate(self, gate: InputGate) -> None:
        """Have the uplink do something else with the audio, if that has changed."""
        if gate != self._gate:
            self._gate = gate
            self._emit(SetInputGate(gate))

    def hold(self, event: Event, input_bytes: int) -> bool:
        """Keep an event that came after `input_bytes` of audio. Returns False if too many wait already."""
        is_full = len(self._early) >= MAX_EVENTS
        if isinstance(event, UserText):
            is_full = is_full or sum(isinstance(early, UserText) for _, early in self._early) >= MAX_TYPED
        if not is_full:
            self._early.append((input_bytes, event))
        return not is_full

    def release(self) -> Iterator[Event]:
        """The events that waited, in order, each after the audio that came before it; none is kept afterwards."""
        released_bytes = 0
        early, self._early = self._early, []
        for input_bytes, event in early:
            if input_bytes > released_bytes:
                self._emit(ReleaseInput(input_bytes))
                released_bytes = input_bytes
            self.position_bytes = input_bytes
            yield event
        self.position_bytes = None
