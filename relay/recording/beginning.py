"""What a session was made of, so that it can be made again; `session.json` holds it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay.core.limits import SessionLimits
from relay.core.policy import Principal
from relay.core.values import DeviceOptions, SessionConfig, SpeechRules


@dataclass(frozen=True, slots=True)
class RealtimeStart:
    """What a Realtime client's session begins with besides: the model of its URL, the session of its client secret."""

    model: str = ""
    initial: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Beginning:
    """All that a session was made of, besides what happened to it."""

    session_id: str
    config: SessionConfig
    options: DeviceOptions
    principal: Principal
    started_at: float
    speech: SpeechRules | None = None
    limits: SessionLimits = SessionLimits()  # frozen
    realtime: RealtimeStart | None = None

    @property
    def kind(self) -> str:
        """Whose session it was: "device", or "realtime"."""
        return "device" if self.realtime is None else "realtime"
