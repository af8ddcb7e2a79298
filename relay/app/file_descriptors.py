"""The budget of file descriptors, and how many sessions fit into it.

Without a free descriptor a session fails halfway, and so does everything else that opens a file. So sessions that do
not fit are refused before they start.
"""

import sys
from dataclasses import dataclass

if sys.platform != "win32":  # there, sockets do not count among open files
    import resource

MAX_DESCRIPTORS = 65_536
"""The soft limit is raised to at most this: enough for 13,000 sessions.

A hard limit may be 1,000,000,000, and some programs that tools start iterate over all descriptors up to their limit."""
SOCKETS_PER_SESSION = 2
"""The sockets of the client and of the upstream."""
FILES_PER_RECORDING = 2
SOCKETS_PER_EXTERNAL_VOICE = 1
BURST_CONNECTIONS = 128
"""The listener's backlog: so many connections may be accepted in one event-loop iteration.

Evicted connections free their descriptors only after it."""
OTHER_DESCRIPTORS = 128
"""The reserve for the listener, the log, tools, MCP servers, the local engine and requests to providers."""
MAX_IDLE_CONNECTIONS = 512
_MIN_IDLE_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class DescriptorBudget:
    """How `limit` descriptors are divided; None means no known limit."""

    limit: int | None
    per_session: int = SOCKETS_PER_SESSION

    @classmethod
    def for_process(cls, *, has_recordings: bool, has_external_voice: bool) -> "DescriptorBudget":
        """Return the budget of this process, with the descriptors of one session under these settings."""
        recording = FILES_PER_RECORDING if has_recordings else 0
        voice = SOCKETS_PER_EXTERNAL_VOICE if has_external_voice else 0
        return cls(_soft_limit(), SOCKETS_PER_SESSION + recording + voice)

    @property
    def max_idle_connections(self) -> int:
        """The limit of open connections that are idle or not authenticated."""
        if self.limit is None:
            return MAX_IDLE_CONNECTIONS
        return max(_MIN_IDLE_CONNECTIONS, min(MAX_IDLE_CONNECTIONS, self.limit // 8))

    @property
    def reserved(self) -> int:
        """Descriptors that sessions cannot use: at most half of all."""
        reserve = self.max_idle_connections + BURST_CONNECTIONS + OTHER_DESCRIPTORS
        return reserve if self.limit is None else min(reserve, self.limit // 2)

    @property
    def max_sessions(self) -> int | None:
        """The number of sessions that fit; None without a limit."""
        return None if self.limit is None else max(1, (self.limit - self.reserved) // self.per_session)

    def warnings(self, configured: int) -> list[str]:
        """Return a warning if RELAY_MAX_SESSIONS does not fit, with the figures and the fix."""
        if self.max_sessions is None or self.max_sessions >= configured:
            return []
        needed = configured * self.per_session + MAX_IDLE_CONNECTIONS + BURST_CONNECTIONS + OTHER_DESCRIPTORS
        return [
            f"RELAY_MAX_SESSIONS={configured} does not fit: this process may open {self.limit} files and sockets. A "
            f"session uses up to {self.per_session}, and {self.reserved} are reserved for other uses, so at most "
            f"{self.max_sessions} sessions are admitted. Raise the hard limit to {needed} (ulimit -n {needed}, or "
            f"LimitNOFILE={needed} in a unit of systemd), or lower RELAY_MAX_SESSIONS"
        ]


def raise_soft_limit() -> None:
    """Raise the soft limit of descriptors to the hard limit, at most to `MAX_DESCRIPTORS`."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY:
        return
    for limit in (target, min(target, 10_240)):  # macOS has no hard limit, but accepts at most OPEN_MAX
        if limit <= soft:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (ValueError, OSError):
            continue
        return


def _soft_limit() -> int | None:
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
