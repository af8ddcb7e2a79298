"""Whether a session may be recorded, and from where on: its client's consent.

Until the client agrees, nothing that a user or the model said is kept, not even in memory. The upstream's greeting may
be: where consent comes right after it, the recording begins with its session, and can be replayed.
"""

from collections.abc import Sequence
from typing import Any, Final

from relay.core import events as ev
from relay.core.realtime_events import CONSENT, ClientSaid, UpstreamSaid

MAX_PRELUDE: Final = 64
"""Events of the upstream's greeting that may wait for consent; they hold no text or audio of the conversation."""

_GREETING = (
    ev.UpstreamOpened, ev.SessionCreated, ev.SessionUpdated, ev.UnknownUpstream, ev.Tick, ev.VoiceOpened, ev.VoiceFailed
)  # fmt: skip
_REALTIME_GREETING = ("session.created", "session.updated")

Record = tuple[Any, float, Sequence[Any]]
"""An event, when it happened, and its commands."""


class ConsentGate:
    """Lets a session's events through from its client's consent on."""

    def __init__(self, *, is_open: bool) -> None:
        """`is_open`: nobody has to be asked."""
        self.is_open = is_open
        self._prelude: list[Record] | None = []  # None: something was left out

    @property
    def from_start(self) -> bool:
        """Whether all that has happened so far may be recorded."""
        return self._prelude is not None

    def opens(self, event: Any, now: float, commands: Sequence[Any] | None) -> bool:
        """Whether the recording begins with this event; one of the greeting is kept for `take_prelude` meanwhile."""
        if _consent_in(event):
            self.is_open = True
            return True
        prelude = self._prelude
        if prelude is None:
            return False
        if commands is not None and _is_greeting(event) and len(prelude) < MAX_PRELUDE:
            prelude.append((event, now, commands))
        else:
            self._prelude = None
        return False

    def take_prelude(self) -> list[Record]:
        """What happened before consent and may be recorded."""
        prelude, self._prelude = self._prelude or [], []
        return prelude

    def withdraws(self, event: Any) -> bool:
        """Whether the client takes its consent back with this event."""
        return _consent_in(event) is False


def _consent_in(event: Any) -> bool | None:
    """Whether an event grants consent or takes it back; None: neither."""
    if isinstance(event, ev.Hello | ev.Consent):
        return event.consent
    if type(event) is not ClientSaid or event.body.get("type") != CONSENT:
        return None
    granted = event.body.get("granted")
    return granted if isinstance(granted, bool) else None


def _is_greeting(event: Any) -> bool:
    """Whether an event belongs to the upstream's greeting."""
    if type(event) is UpstreamSaid:
        return event.body.get("type") in _REALTIME_GREETING
    return isinstance(event, _GREETING)
