"""The end of a session that a tool has requested.

The session goes on until the call is answered and the client has played the answer: then `is_due` returns True. The
played position is acknowledged by the client or estimated. If the user goes on speaking, that is answered first, but
the session ends at most `MAX_DELAY_S` after the request. The session itself closes the connections.
"""

from relay.session.common.media_ledger import MediaLedger

MAX_DELAY_S = 60.0
"""The longest time from the request to the end of the session."""
PLAYBACK_MARGIN_S = 0.3
"""How far a client's playback may lag behind the estimate."""
MAX_REASON_CHARS = 200


class GracefulEnd:
    """The requested end of one session, for a client that acknowledges playback or that the relay paces."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why the session is to end; None while no tool has requested it."""
        self._end_by = 0.0
        self._playback_ends_at: float | None = None

    @property
    def deadline(self) -> float | None:
        """The latest time for the next call of `is_due`; None if no end is requested."""
        if self.reason is None:
            return None
        return self._end_by if self._playback_ends_at is None else min(self._end_by, self._playback_ends_at)

    def request(self, reason: str, now: float) -> None:
        """Request the end for a tool; the first reason counts."""
        if self.reason is None:
            self.reason = reason[:MAX_REASON_CHARS]
            self._end_by = now + MAX_DELAY_S

    def is_due(self, now: float, *, has_pending_output: bool, unplayed_ms: int | None) -> bool:
        """Return whether the session ends now.

        `has_pending_output`: a response or speech is still pending. `unplayed_ms`: how much audio the client may not
        have played yet, as acknowledged or by estimate; None if nothing can be playing.
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
    """The requested end of a session whose client plays at its own pace and does not acknowledge playback.

    The unplayed audio is estimated from the ledger: the client plays each delta at once, after the ones before. It
    stops playing when the user speaks and when it truncates an item, so only later audio counts. Audio from before the
    request does not count either: only the answer to the request has to be played.
    """

    def __init__(self, ledger: MediaLedger) -> None:
        super().__init__()
        self._ledger = ledger
        self._counted_from = 0.0

    def request(self, reason: str, now: float) -> None:
        """Request the end for a tool; the first reason counts."""
        if self.reason is None:
            self.on_playback_stopped()
        super().request(reason, now)

    def on_playback_stopped(self) -> None:
        """Count only audio that comes from now on: the client has stopped playing."""
        self._counted_from = self._ledger.playback_ends_at

    def unplayed_ms(self, now: float) -> int | None:
        """Return the estimated audio left to play, in ms; None if the client stopped playing and no audio followed."""
        ledger = self._ledger
        to_play_s = ledger.playback_ends_at - self._counted_from
        if to_play_s <= 0:
            return None
        plays_until = min(ledger.playback_ends_at, ledger.last_output_at + to_play_s)
        return round(max(plays_until - now, 0) * 1000)
