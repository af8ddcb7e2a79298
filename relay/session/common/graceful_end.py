"""The end of a session that a tool has requested.

The session goes on until the call is answered and the client has played the answer: then `is_due` is true. How much
the client has played is what it acknowledged, or else an estimate. Whatever the user still says is answered first, but
the session ends `LATEST_S` after the request at the latest. The session itself closes the connections.
"""

LATEST_S = 60.0
"""How long after the request the session ends at the latest."""
SLACK_S = 0.3
"""How far a client's playback may be behind the estimate."""
MAX_REASON_CHARS = 200


class GracefulEnd:
    """Whether a session is to end, and since when nothing is left to be said."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why the session is to end; None while no tool has requested it."""
        self._latest = 0.0
        self._silent_at: float | None = None

    @property
    def deadline(self) -> float | None:
        """When `is_due` is to be asked again, whatever happens meanwhile."""
        if self.reason is None:
            return None
        return self._latest if self._silent_at is None else min(self._latest, self._silent_at)

    def request(self, reason: str, now: float) -> None:
        """A tool requests the end; the first reason counts."""
        if self.reason is None:
            self.reason = reason[:MAX_REASON_CHARS]
            self._latest = now + LATEST_S

    def is_due(self, now: float, *, is_owed: bool, unplayed_ms: int | None) -> bool:
        """Whether the session ends now.

        `is_owed`: something is still to be said. `unplayed_ms`: how much of what was said may not have been played yet,
        as the client acknowledged or by estimate; None if nothing can be playing.
        """
        if self.reason is None:
            return False
        if now >= self._latest:
            return True
        if is_owed:
            self._silent_at = None
            return False
        if unplayed_ms is None:
            return True
        if self._silent_at is None:
            self._silent_at = now + unplayed_ms / 1000 + SLACK_S
        return now >= self._silent_at
