"""Whether the upstream has fallen silent while somebody waits for the end of a response.

Only then is the response given up: an upstream may work on one for as long as it sends anything. Events count when
they come to the rules, audio by the ledger.
"""

from relay.session.common.limits import STALL_S
from relay.session.common.media_ledger import MediaLedger


class StallTimer:
    """Runs for `STALL_S` from the moment when somebody begins to wait."""

    def __init__(self, ledger: MediaLedger) -> None:
        self._ledger = ledger
        self._has_heard = False
        self._since = 0.0
        self.deadline: float | None = None
        """When `is_silent` is to be asked; None while nobody waits."""

    def heard(self) -> None:
        """The upstream has sent an event."""
        self._has_heard = True

    def start(self, now: float) -> None:
        """Somebody waits from now on, unless somebody does already."""
        if self.deadline is None:
            self._has_heard = False
            self._since, self.deadline = now, now + STALL_S

    def stop(self) -> None:
        """Nobody waits any more."""
        self.deadline = None

    def is_silent(self, now: float) -> bool:
        """Whether the time is up and the upstream has sent nothing in it; the timer stops when its time is up."""
        if self.deadline is None or now < self.deadline:
            return False
        self.deadline = None
        return not self._has_heard and self._ledger.output_at <= self._since
