"""The phase of a session, for all kinds of clients.

    CONNECTING ──session.created──► CONFIGURING ──session.updated──► READY
         └───────────────┴──────────────────┴──────────────────────────┴──► ENDED

A session that is not ready within `CONNECT_TIMEOUT_S` ends. A device session that was ready may be configured again,
and keeps its limits meanwhile. ENDED is final. The session itself decides what it sends to its client in each phase,
and what counts as activity.
"""

from enum import Enum
from typing import Literal

from relay.session.common.limits import CONNECT_TIMEOUT_S, SessionLimits

LimitReached = Literal["duration", "idle"]


class Phase(Enum):
    CONNECTING = "connecting"
    CONFIGURING = "configuring"
    READY = "ready"
    ENDED = "ended"


class SessionState:
    """Phase and limits of one session."""

    __slots__ = ("active_at", "connect_by", "limits", "phase", "started_at", "was_ready")

    def __init__(self, started_at: float, limits: SessionLimits) -> None:
        self.phase = Phase.CONNECTING
        self.limits = limits
        self.started_at = started_at
        self.connect_by = started_at + CONNECT_TIMEOUT_S
        self.active_at = started_at
        """When client, user or model were last active; the idle time counts from here."""
        self.was_ready = False
        """Whether the session has been ready at any time."""

    @property
    def is_ready(self) -> bool:
        """Whether the client's events are handled at once."""
        return self.phase is Phase.READY

    @property
    def has_ended(self) -> bool:
        """Whether further events have no effect."""
        return self.phase is Phase.ENDED

    def configure(self) -> None:
        """Wait for the upstream to accept a configuration; the client's requests are held meanwhile."""
        self.phase = Phase.CONFIGURING

    def become_ready(self) -> None:
        """Enter the phase READY: the upstream has accepted the configuration."""
        self.phase = Phase.READY
        self.was_ready = True

    def end(self) -> None:
        """End the session."""
        self.phase = Phase.ENDED

    def note_activity(self, now: float) -> None:
        """Restart the idle time."""
        self.active_at = max(self.active_at, now)

    def deadline(self, *others: float | None) -> float | None:
        """Return when `DeadlineReached` is due next: the connect timeout, later the earliest of `others` and limits."""
        if self.phase is Phase.ENDED:
            return None
        if not self.was_ready:
            return self.connect_by
        ends_at, idle_at = self.limits.ends_at(self.started_at), self.limits.idle_at(self.active_at)
        return min((time for time in (*others, ends_at, idle_at) if time is not None), default=None)

    def has_connect_timed_out(self, now: float) -> bool:
        """Return whether the session was not ready within the connect timeout."""
        return not self.was_ready and now >= self.connect_by

    def limit_reached(self, now: float) -> LimitReached | None:
        """Return the limit that the session has reached, if any."""
        if (ends_at := self.limits.ends_at(self.started_at)) is not None and now >= ends_at:
            return "duration"
        if (idle_at := self.limits.idle_at(self.active_at)) is not None and now >= idle_at:
            return "idle"
        return None
