"""Open files and sockets: how many this process may have, and how many sessions fit into that.

A session that finds no descriptor free fails halfway, and so does whatever else opens a file then. So sessions that do
not fit are refused before they begin.
"""

import sys
from dataclasses import dataclass

if sys.platform != "win32":  # there, sockets do not count among open files
    import resource

MAX_DESCRIPTORS = 65_536
"""How far the limit is raised: enough for 13,000 sessions.

A hard limit may be 1,000,000,000. Some programs that tools start walk through all descriptors up to their limit."""
SOCKETS_PER_SESSION = 2
"""The client's, and the model's."""
FILES_PER_RECORDING = 2
SOCKETS_PER_EXTERNAL_VOICE = 1
BURST_CONNECTIONS = 128
"""The length of the listener's queue: so many connections may be accepted in one turn of the loop.

Those that are closed to make room are freed after it."""
OTHER_DESCRIPTORS = 128
"""For the listener, the log, tools, MCP servers, the local engine and calls to providers."""
MAX_IDLE_CONNECTIONS = 512
_MIN_IDLE_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class DescriptorBudget:
    """What `limit` descriptors are shared out to; None is no limit that is known."""

    limit: int | None
    per_session: int = SOCKETS_PER_SESSION

    @classmethod
    def for_process(cls, *, has_recordings: bool, has_external_voice: bool) -> "DescriptorBudget":
        """The limit of this process, and what one session needs under these settings."""
        recording = FILES_PER_RECORDING if has_recordings else 0
        voice = SOCKETS_PER_EXTERNAL_VOICE if has_external_voice else 0
        return cls(_soft_limit(), SOCKETS_PER_SESSION + recording + voice)

    @property
    def max_idle_connections(self) -> int:
        """How many connections may be open that have not shown that they may use the relay."""
        if self.limit is None:
            return MAX_IDLE_CONNECTIONS
        return max(_MIN_IDLE_CONNECTIONS, min(MAX_IDLE_CONNECTIONS, self.limit // 8))

    @property
    def reserved(self) -> int:
        """Descriptors that no session takes: at most half of all."""
        reserve = self.max_idle_connections + BURST_CONNECTIONS + OTHER_DESCRIPTORS
        return reserve if self.limit is None else min(reserve, self.limit // 2)

    @property
    def max_sessions(self) -> int | None:
        """How many sessions fit; None without a limit."""
        return None if self.limit is None else max(1, (self.limit - self.reserved) // self.per_session)

    def warnings(self, configured: int) -> list[str]:
        """One line if RELAY_MAX_SESSIONS does not fit, with the figures and what to do."""
        if self.max_sessions is None or self.max_sessions >= configured:
            return []
        needed = configured * self.per_session + MAX_IDLE_CONNECTIONS + BURST_CONNECTIONS + OTHER_DESCRIPTORS
        return [
            f"RELAY_MAX_SESSIONS={configured} does not fit: this process may open {self.limit} files and sockets. A "
            f"session takes up to {self.per_session}, and {self.reserved} are kept for everything else, so at most "
            f"{self.max_sessions} sessions are admitted. Raise the hard limit to {needed} (ulimit -n {needed}, or "
            f"LimitNOFILE={needed} in a unit of systemd), or lower RELAY_MAX_SESSIONS"
        ]


def raise_soft_limit() -> None:
    """Raise this process's soft limit of descriptors to its hard limit, at most to `MAX_DESCRIPTORS`."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY:
        return
    for limit in (target, min(target, 10_240)):  # macOS has no hard limit, and takes no more than OPEN_MAX
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
