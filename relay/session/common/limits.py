"""Timeouts and limits that several rules share, and the counters of faults and of ignored events."""

from collections import deque
from dataclasses import dataclass

CONNECT_TIMEOUT_S = 20.0
"""How soon after its start a session must be ready."""
MAX_FAULTS = 10
FAULT_WINDOW_S = 60.0
"""A client that sends `MAX_FAULTS` invalid messages within this time is disconnected."""

AUTO_RESPONSE_TIMEOUT_S = 3.0
"""How long after the user's speech the relay waits for the upstream's own response before it requests one."""
MAX_SPEECH_S = 120.0
"""How long the user counts as speaking if the upstream never reports the end."""
RETRY_DELAY_S = 1.0
"""The delay before a request is repeated that was refused because another response was active."""
STALL_TIMEOUT_S = 30.0
"""How long the upstream may send nothing during a response before the relay abandons the response."""
ALREADY_ACTIVE_ERROR = "conversation_already_has_active_response"
"""The error code by which the upstream refuses a response while another one is active."""

RELAY_EVENT_ID_PREFIX = "relay_"
"""The prefix of the relay's own event ids. Clients may not use it, and do not receive errors about such events."""
MAX_EVENT_ID_CHARS = 512
MAX_IGNORED_KINDS = 64
"""Kinds of ignored events that are counted: an upstream may send a new type with every event."""

KEY_REVOKED_MESSAGE = "The key that opened this session was revoked; connect with another one."


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The maximum duration and idle time of a session; None means no limit."""

    max_duration_s: float | None = None
    max_idle_s: float | None = None

    def ends_at(self, started_at: float) -> float | None:
        """Return when a session that began at `started_at` reaches its maximum duration."""
        return None if self.max_duration_s is None else started_at + self.max_duration_s

    def idle_at(self, active_at: float) -> float | None:
        """Return when a session that was last active at `active_at` reaches its maximum idle time."""
        return None if self.max_idle_s is None else active_at + self.max_idle_s


class FaultBudget:
    """Limits how many invalid messages a client may send within `FAULT_WINDOW_S`."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_FAULTS)

    def spend(self, now: float) -> bool:
        """Count a fault. Returns whether the budget is exhausted."""
        self._times.append(now)
        return len(self._times) == MAX_FAULTS and now - self._times[0] < FAULT_WINDOW_S


class IgnoredCounts(dict[str, int]):
    """The events that a session has ignored, for its last log line: counts by kind, in order of first occurrence."""

    def count(self, kind: str) -> None:
        if kind in self or len(self) < MAX_IGNORED_KINDS:
            self[kind] = self.get(kind, 0) + 1
