"""The graceful end of a session whose client plays at its own pace and reports nothing of it.

How much audio is left to be played is estimated from the ledger: the client plays each delta at once, after what it
has. It stops playing when the user speaks and when it truncates an item, so only later audio counts. Audio from before
the request does not count either: the answer to the request is what has to be played. The rest is that of
`relay.session.common.graceful_end`.
"""

from relay.session.common.graceful_end import GracefulEnd
from relay.session.common.media_ledger import MediaLedger


class EstimatedGracefulEnd(GracefulEnd):
    """Whether a tool has requested the end of a session, and whether its client has played what is to be heard."""

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
        self._counted_from = self._ledger.plays_until

    def unplayed_ms(self, now: float) -> int | None:
        """How much is left to be played; None if nothing came since the client stopped playing."""
        ledger = self._ledger
        to_play_s = ledger.plays_until - self._counted_from
        if to_play_s <= 0:
            return None
        until = min(ledger.plays_until, ledger.output_at + to_play_s)
        return round(max(until - now, 0) * 1000)
