"""The end of a session that a tool has requested.

The session goes on until the call is answered and the client has played the answer: then `is_due` is true. How much
the client has played is what it acknowledged, or else an estimate. Whatever the user still says is answered first, but
the session ends `MAX_DELAY_S` after the request at the latest. The session itself closes the connections.
"""

from relay.session.common.media_ledger import MediaLedger

MAX_DELAY_S = 60.0
"""How long after the request the session ends at the latest."""
PLAYBACK_MARGIN_S = 0.3
"""How far a client's playback may be behind the estimate."""
MAX_REASON_CHARS = 200


class GracefulEnd:
    def __init__(self) -> None:
        self.reason: str | None = None
        """Why the session is to end; None while no tool has requested it."""
        self._end_by = 0.0
        self._playback_ends_at: float | None = None

    @property
    def deadline(self) -> float | None:
        """When `is_due` is to be asked again, whatever happens meanwhile."""
        if self.reason is None:
            return None
        return self._end_by if self._playback_ends_at is None else min(self._end_by, self._playback_ends_at)

    def request(self, reason: str, now: float) -> None:
        """A tool requests the end; the first reason counts."""
        if self.reason is None:
            self.reason = reason[:MAX_REASON_CHARS]
            self._end_by = now + MAX_DELAY_S

    def is_due(self, now: float, *, has_pending_output: bool, unplayed_ms: int | None) -> bool:
        """Whether the session ends now.

        `has_pending_output`: something is still to be said. `unplayed_ms`: how much of what was said may not have been
        played yet, as the client acknowledged or by estimate; None if nothing can be playing.
        """
        if self.reason is None:
            return False
        if now >= self._end_by:
            return True
        if has_pending_output:
            self._playback_ends_at = None
            return False
        if unplayed_ms is None:
            return True
        if self._playback_ends_at is None:
            self._playback_ends_at = now + unplayed_ms / 1000 + PLAYBACK_MARGIN_S
        return now >= self._playback_ends_at


class EstimatedGracefulEnd(GracefulEnd):
    """The same for a client that plays at its own pace and reports nothing of it.

    How much audio is left to be played is estimated from the ledger: the client plays each delta at once, after what it
    has. It stops playing when the user speaks and when it truncates an item, so only later audio counts. Audio from
    before the request does not count either: the answer to the request is what has to be played.
    """

    def __init__(self, ledger: MediaLedger) -> None:
        super().__init__()
        self._ledger = ledger
        self._counted_from = 0.0

    def request(self, reason: str, now: float) -> None:
        """A tool requests the end; the first reason counts."""
        if self.reason is None:
            self.playback_stopped()
        super().request(reason, now)

    def playback_stopped(self) -> None:
        """The client has stopped playing: only what comes later is to be heard."""
        self._counted_from = self._ledger.playback_ends_at

    def unplayed_ms(self, now: float) -> int | None:
        """How much is left to be played; None if nothing came since the client stopped playing."""
        ledger = self._ledger
        to_play_s = ledger.playback_ends_at - self._counted_from
        if to_play_s <= 0:
            return None
        until = min(ledger.playback_ends_at, ledger.last_output_at + to_play_s)
        return round(max(until - now, 0) * 1000)
