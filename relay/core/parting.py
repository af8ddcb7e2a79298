"""The end that a tool asked for, of a session whose client plays at its own pace and tells nothing of it."""

from relay.core.realtime_turns import RealtimeTurns
from relay.session.common.graceful_end import GracefulEnd
from relay.session.common.media_ledger import MediaLedger


class Parting:
    """Whether a Realtime session is to end, and how much of the last words its client still has to play."""

    def __init__(self, ledger: MediaLedger) -> None:
        self._farewell = GracefulEnd()
        self._ledger = ledger
        self._counted_from = 0.0

    @property
    def is_asked(self) -> bool:
        """Whether a tool wants the end: what is said from then on has to be heard."""
        return self._farewell.reason is not None

    @property
    def reason(self) -> str:
        """What the tool said, for the close frame."""
        return self._farewell.reason or ""

    @property
    def deadline(self) -> float | None:
        """When `is_due` is to be asked again."""
        return self._farewell.deadline

    def ask(self, reason: str, now: float) -> None:
        """A tool wants the end."""
        if not self.is_asked:
            self.silenced()
        self._farewell.request(reason, now)

    def silenced(self) -> None:
        """The client has stopped playing: only what comes after this is still to be heard."""
        self._counted_from = self._ledger.plays_until

    def is_due(self, turns: RealtimeTurns, now: float) -> bool:
        """Whether the session ends now: all is answered, and the client has had the time to play it."""
        ledger = self._ledger
        to_play_s = ledger.plays_until - self._counted_from
        until = min(ledger.plays_until, ledger.output_at + to_play_s)
        unplayed_ms = round(max(until - now, 0) * 1000) if to_play_s > 0 else None
        return self._farewell.is_due(now, is_owed=turns.is_owed, unplayed_ms=unplayed_ms)
