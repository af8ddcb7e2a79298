"""The life of a session, whatever its client speaks.

    CONNECTING ──session.created──► CONFIGURING ──session.updated──► READY
         └───────────────┴──────────────────┴──────────────────────────┴──► ENDED

A session that is not ready within `CONNECT_TIMEOUT_S` ends. A device session that was ready may be configured again,
and keeps its limits meanwhile. Nothing leads out of ENDED. The session itself says what its client is told at each
step, and what counts as activity.
"""

from enum import Enum
from typing import Literal

from relay.session.common.limits import CONNECT_TIMEOUT_S, SessionLimits

LimitReached = Literal["duration", "idle"]


class Phase(Enum):
    """Where a session is in its life."""

    CONNECTING = "connecting"
    CONFIGURING = "configuring"
    READY = "ready"
    ENDED = "ended"


class SessionState:
    """Phase and limits of one session; `limits` are the relay's."""

    __slots__ = ("active_at", "connect_by", "limits", "phase", "started_at", "was_ready")

    def __init__(self, started_at: float, limits: SessionLimits) -> None:
        self.phase = Phase.CONNECTING
        self.limits = limits
        self.started_at = started_at
        self.connect_by = started_at + CONNECT_TIMEOUT_S
        self.active_at = started_at
        """When client, user or model last did something that ends the idle time."""
        self.was_ready = False
        """Whether the client has had a session."""

    @property
    def is_ready(self) -> bool:
        """Whether events of the client's are handled when they come."""
        return self.phase is Phase.READY

    @property
    def has_ended(self) -> bool:
        """Whether nothing that still comes has any effect."""
        return self.phase is Phase.ENDED

    def configure(self) -> None:
        """The upstream is to take a configuration: what the client asks for waits."""
        self.phase = Phase.CONFIGURING

    def become_ready(self) -> None:
        """The upstream has taken the configuration."""
        self.phase = Phase.READY
        self.was_ready = True

    def end(self) -> None:
        """The session is over."""
        self.phase = Phase.ENDED

    def note_activity(self, now: float) -> None:
        """Something happened that ends the idle time."""
        self.active_at = max(self.active_at, now)

    def deadline(self, *others: float | None) -> float | None:
        """When a `DeadlineReached` is wanted: at the end of the connect timeout, then at the earliest limit or of
        `others`.
        """
        if self.phase is Phase.ENDED:
            return None
        if not self.was_ready:
            return self.connect_by
        ends_at, idle_at = self.limits.ends_at(self.started_at), self.limits.idle_at(self.active_at)
        return min((time for time in (*others, ends_at, idle_at) if time is not None), default=None)

    def has_connect_timed_out(self, now: float) -> bool:
        """Whether the session was not ready in time."""
        return not self.was_ready and now >= self.connect_by

    def limit_reached(self, now: float) -> LimitReached | None:
        """Which limit the session has reached, if any."""
        if (ends_at := self.limits.ends_at(self.started_at)) is not None and now >= ends_at:
            return "duration"
        if (idle_at := self.limits.idle_at(self.active_at)) is not None and now >= idle_at:
            return "idle"
        return None
