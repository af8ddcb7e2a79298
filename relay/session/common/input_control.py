"""What the rules want of the client's audio, and the events that wait with it until the session is ready (D5).

Audio is no event: the uplink keeps it in its `HeldInput` while the gate is "held". An event that comes meanwhile is
kept, within bounds, with its position in the audio. At the release both go on in the order in which they were sent.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from audio.framing import BytesLike
from relay.session.common.media_types import InputGate
from relay.session.device.commands import InputCommand, ReleaseInput, SetInputGate
from relay.session.device.events import UserText

MAX_HELD_MS = 10_000
MAX_HELD_FRAMES = 2000
MAX_EARLY_EVENTS = 256
MAX_EARLY_TEXTS = 16
"""As many typed turns as may wait later; they are the only early events that can be long."""

Event = TypeVar("Event")


class HeldInput:
    """Frames with the position in the stream at which each of them ends. Over its bounds the oldest go."""

    __slots__ = ("_frames", "_n_bytes")

    def __init__(self) -> None:
        self._frames: deque[tuple[int, int, BytesLike]] = deque()
        self._n_bytes = 0

    def add(self, payload: BytesLike, n_bytes: int, ends_at_bytes: int, bytes_per_ms: int) -> int:
        """Keep a frame; returns how many bytes of audio had to be dropped for it."""
        self._frames.append((ends_at_bytes, n_bytes, payload))
        self._n_bytes += n_bytes
        dropped_bytes = 0
        while self._n_bytes > MAX_HELD_MS * bytes_per_ms or len(self._frames) > MAX_HELD_FRAMES:
            _, oldest_bytes, _ = self._frames.popleft()
            self._n_bytes -= oldest_bytes
            dropped_bytes += oldest_bytes
        return dropped_bytes

    def take(self, until_bytes: int | None = None) -> list[BytesLike]:
        """The frames that end at or before a position in the stream, in order; all of them without one."""
        frames: list[BytesLike] = []
        while self._frames and (until_bytes is None or self._frames[0][0] <= until_bytes):
            _, n_bytes, payload = self._frames.popleft()
            self._n_bytes -= n_bytes
            frames.append(payload)
        return frames


class InputControl(Generic[Event]):
    """The uplink's gate as the rules set it, and the client's early events; commands go to `emit`."""

    __slots__ = ("_early_events", "_emit", "_gate", "position_bytes")

    def __init__(self, emit: Callable[[InputCommand], None]) -> None:
        self._emit = emit
        self._early_events: list[tuple[int, Event]] = []
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
        is_full = len(self._early_events) >= MAX_EARLY_EVENTS
        if isinstance(event, UserText):
            is_full = is_full or sum(isinstance(early, UserText) for _, early in self._early_events) >= MAX_EARLY_TEXTS
        if not is_full:
            self._early_events.append((input_bytes, event))
        return not is_full

    def release(self) -> Iterator[Event]:
        """The events that waited, in order, each after the audio that came before it; none is kept afterwards."""
        released_bytes = 0
        early, self._early_events = self._early_events, []
        for input_bytes, event in early:
            if input_bytes > released_bytes:
                self._emit(ReleaseInput(input_bytes))
                released_bytes = input_bytes
            self.position_bytes = input_bytes
            yield event
        self.position_bytes = None
