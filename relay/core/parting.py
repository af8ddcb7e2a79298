"""The end that a tool asked for, of a session whose client plays at its own pace and tells nothing of it."""

from collections.abc import Mapping
from typing import Any

from relay.core.farewell import Farewell
from relay.core.realtime_turns import RealtimeTurns

_BYTES_PER_MS = {"audio/pcm": 48, "audio/pcmu": 8, "audio/pcma": 8}


class Parting:
    """Whether a Realtime session is to end, and how much of the last words its client still has to play."""

    def __init__(self) -> None:
        self._farewell = Farewell()
        self._bytes_per_ms = _BYTES_PER_MS["audio/pcm"]
        self._plays_until: float | None = None

    @property
    def is_asked(self) -> bool:
        """Whether a tool wants the end: from then on, what is said is measured."""
        return self._farewell.reason is not None

    @property
    def reason(self) -> str:
        """What the tool said, for the close frame."""
        return self._farewell.reason or ""

    @property
    def deadline(self) -> float | None:
        """When `is_due` is to be asked again."""
        return self._farewell.deadline

    def learn(self, output_format: Any) -> None:
        """The session's output format is in force: `{"type": "audio/pcm", …}`."""
        kind = output_format.get("type") if isinstance(output_format, Mapping) else None
        if isinstance(kind, str):
            self._bytes_per_ms = _BYTES_PER_MS.get(kind, self._bytes_per_ms)

    def ask(self, reason: str, now: float) -> None:
        """A tool wants the end."""
        self._farewell.ask(reason, now)

    def spoken(self, delta: Any, now: float) -> None:
        """More audio in base64 goes to the client, which plays it behind what it has."""
        if isinstance(delta, str):
            seconds = len(delta) * 3 // 4 / self._bytes_per_ms / 1000
            self._plays_until = max(self._plays_until or now, now) + seconds

    def silenced(self) -> None:
        """The client has stopped playing."""
        self._plays_until = None

    def is_due(self, turns: RealtimeTurns, now: float) -> bool:
        """Whether the session ends now: all is answered, and the client has had the time to play it."""
        until = self._plays_until
        unplayed_ms = None if until is None else round(max(until - now, 0) * 1000)
        return self._farewell.is_due(now, is_owed=turns.is_owed, unplayed_ms=unplayed_ms)
