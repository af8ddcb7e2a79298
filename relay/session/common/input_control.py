"""The gate of the client's audio, and the audio and events that are held until the session is ready (D5).

Audio is not an event: the uplink keeps it in its `HeldInput` while the gate is "held". An event that comes meanwhile is
held too, with its position in the audio. On release both are handled in the order in which they were sent. Both queues
are bounded: the oldest audio is dropped, and further events are refused.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from audio.framing import BytesLike
from relay.session.common.commands import InputCommand, ReleaseInput, SetInputGate
from relay.session.common.media_types import InputGate
from relay.session.device.events import UserText

MAX_HELD_MS = 10_000
MAX_HELD_FRAMES = 2000
MAX_EARLY_EVENTS = 256
MAX_EARLY_TEXTS = 16
"""Typed turns among the early events: no other event can be long. As many may be queued once the session is ready."""

EventT = TypeVar("EventT")


class HeldInput:
    """Frames, each with the position in the stream at which it ends. If there are too many, the oldest are dropped."""

    __slots__ = ("_frames", "_n_bytes")

    def __init__(self) -> None:
        self._frames: deque[tuple[int, int, BytesLike]] = deque()
        self._n_bytes = 0

    def add(self, payload: BytesLike, n_bytes: int, ends_at_bytes: int, bytes_per_ms: int) -> int:
        """Add a frame. Returns how many bytes of audio were dropped for it."""
        self._frames.append((ends_at_bytes, n_bytes, payload))
        self._n_bytes += n_bytes
        dropped_bytes = 0
        while self._n_bytes > MAX_HELD_MS * bytes_per_ms or len(self._frames) > MAX_HELD_FRAMES:
            _, oldest_bytes, _ = self._frames.popleft()
            self._n_bytes -= oldest_bytes
            dropped_bytes += oldest_bytes
        return dropped_bytes

    def take(self, until_bytes: int | None = None) -> list[BytesLike]:
        """Remove and return the frames that end at or before `until_bytes`, in order; all of them if it is None."""
        frames: list[BytesLike] = []
        while self._frames and (until_bytes is None or self._frames[0][0] <= until_bytes):
            _, n_bytes, payload = self._frames.popleft()
            self._n_bytes -= n_bytes
            frames.append(payload)
        return frames


class InputControl(Generic[EventT]):
    """The uplink's gate, as set by the rules, and the client's early events. Commands go to `emit`."""

    __slots__ = ("_early_events", "_emit", "_gate", "position_bytes")

    def __init__(self, emit: Callable[[InputCommand], None]) -> None:
        self._emit = emit
        self._early_events: list[tuple[int, EventT]] = []
        self._gate: InputGate = "held"
        self.position_bytes: int | None = None
        """The position in the client's audio of the early event in progress; None for events that were not held."""

    def set_gate(self, gate: InputGate) -> None:
        """Set the gate of the client's audio; emits a command only if that changes it."""
        if gate != self._gate:
            self._gate = gate
            self._emit(SetInputGate(gate))

    def hold(self, event: EventT, input_bytes: int) -> bool:
        """Hold an event that came after `input_bytes` of audio. Returns False if too many are held already."""
        is_full = len(self._early_events) >= MAX_EARLY_EVENTS
        if isinstance(event, UserText):
            is_full = is_full or sum(isinstance(early, UserText) for _, early in self._early_events) >= MAX_EARLY_TEXTS
        if not is_full:
            self._early_events.append((input_bytes, event))
        return not is_full

    def release(self) -> Iterator[EventT]:
        """Yield the held events in order, and release before each one the audio that came before it."""
        released_bytes = 0
        early_events, self._early_events = self._early_events, []
        for input_bytes, event in early_events:
            if input_bytes > released_bytes:
                self._emit(ReleaseInput(input_bytes))
                released_bytes = input_bytes
            self.position_bytes = input_bytes
            yield event
        self.position_bytes = None
