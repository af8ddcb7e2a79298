"""A tool asked for the session's end: when the last word has been said and heard, it ends."""

LATEST_S = 60.0
"""However much is still said, the session ends this long after it was asked to."""
SLACK_S = 0.3
"""What a client may be behind the estimate of its playback."""
MAX_REASON_CHARS = 200


class Farewell:
    """Whether a session is to end, and since when nothing is left to be said."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._latest = 0.0
        self._silent_at: float | None = None

    @property
    def deadline(self) -> float | None:
        """When `is_due` is to be asked again, whatever happens meanwhile."""
        if self.reason is None:
            return None
        return self._latest if self._silent_at is None else min(self._latest, self._silent_at)

    def ask(self, reason: str, now: float) -> None:
        """A tool wants the end; the first reason counts."""
        if self.reason is None:
            self.reason = reason[:MAX_REASON_CHARS]
            self._latest = now + LATEST_S

    def is_due(self, now: float, *, is_owed: bool, unplayed_ms: int | None) -> bool:
        """Whether the session ends now: all is answered, and the client has played it, by its word or our estimate.

        `is_owed`: something is still to be said; `unplayed_ms`: what of it may not have been heard yet, None if
        nothing can be playing.
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
