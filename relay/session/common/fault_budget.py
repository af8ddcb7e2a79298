"""How many mistakes a client may make: `MAX_FAULTS` within `FAULT_WINDOW_S` end its session."""

from collections import deque

from relay.session.common.limits import FAULT_WINDOW_S, MAX_FAULTS


class FaultBudget:
    """The times of a client's latest mistakes."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MAX_FAULTS)

    def spend(self, now: float) -> bool:
        """Count a mistake; returns whether it was one too many."""
        self._times.append(now)
        return len(self._times) == MAX_FAULTS and now - self._times[0] < FAULT_WINDOW_S
