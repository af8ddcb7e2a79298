"""How much of the upstream's audio a Realtime client still has to play.

Such a client plays at its own pace and reports nothing of it. The estimate is that it plays each delta at once, after
what it has. It stops playing when the user speaks and when it truncates an item, so only later audio counts.
"""

from relay.session.common.media_ledger import MediaLedger


class PlayoutEstimate:
    """The estimate for one client, made from the ledger alone."""

    __slots__ = ("_counted_from", "_ledger")

    def __init__(self, ledger: MediaLedger) -> None:
        self._ledger = ledger
        self._counted_from = 0.0

    def clear(self) -> None:
        """The client has stopped playing, or what it has does not matter: only what comes later is counted."""
        self._counted_from = self._ledger.plays_until

    def unplayed_ms(self, now: float) -> int | None:
        """How much is left to be played; None if nothing came since the estimate was cleared."""
        ledger = self._ledger
        to_play_s = ledger.plays_until - self._counted_from
        if to_play_s <= 0:
            return None
        until = min(ledger.plays_until, ledger.output_at + to_play_s)
        return round(max(until - now, 0) * 1000)
