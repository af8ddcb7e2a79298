"""Times and bounds that several rules share; how long a session may last, and what is counted in it."""

from collections import deque
from dataclasses import dataclass

CONNECT_TIMEOUT_S = 20.0
"""How long after its beginning a session must be ready."""
MAX_FAULTS = 10
FAULT_WINDOW_S = 60.0
"""A client that makes `MAX_FAULTS` mistakes within this time is disconnected."""

AUTO_RESPONSE_TIMEOUT_S = 3.0
"""How long after the user's speech the upstream's own response is awaited before one that is due is requested."""
MAX_SPEECH_S = 120.0
"""How long the user counts as speaking if the upstream never reports the end."""
RETRY_DELAY_S = 1.0
"""When a response is requested again that was refused because another one was active."""
STALL_TIMEOUT_S = 30.0
"""How long a response may go without an event from the upstream before it is given up."""
ALREADY_ACTIVE_ERROR = "conversation_already_has_active_response"
"""The code of the error that refuses a response while another one is active."""

RELAY_EVENT_ID_PREFIX = "relay_"
"""How the ids of the relay's own events begin. A client may not use such ids, and gets no errors about them."""
MAX_EVENT_ID_CHARS = 512
MAX_IGNORED_KINDS = 64
"""Of what is ignored; further kinds are not counted: an upstream may invent a new one for every event."""

KEY_REVOKED_MESSAGE = "The key that opened this session was revoked; connect with another one."


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session may last, and how long its client may be quiet; None for no limit."""

    max_duration_s: float | None = None
    max_idle_s: float | None = None

    def ends_at(self, started_at: float) -> float | None:
        """When a session that began at `started_at` has lasted as long as it may."""
        return None if self.max_duration_s is None else started_at + self.max_duration_s

    def idle_at(self, active_at: float) -> float | None:
        """When a session that was last active at `active_at` has been idle as long as it may."""
        return None if self.max_idle_s is None else active_at + self.max_idle_s


class FaultBudget:
    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_FAULTS)

    def spend(self, now: float) -> bool:
        """Count a mistake; returns whether it was one too many."""
        self._times.append(now)
        return len(self._times) == MAX_FAULTS and now - self._times[0] < FAULT_WINDOW_S


class IgnoredCounts(dict[str, int]):
    """What a session has ignored, for its last log line: counts by kind, in the order in which they first came."""

    def count(self, kind: str) -> None:
        """One more of this kind."""
        if kind in self or len(self) < MAX_IGNORED_KINDS:
            self[kind] = self.get(kind, 0) + 1
