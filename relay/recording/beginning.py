"""What a session was made of, so that it can be made again; `session.json` holds it."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from audio.formats import PCM16_24K
from relay.core.policy import Principal
from relay.core.values import DeviceOptions, SessionConfig, SpeechRules, ToolSpec
from relay.session.common.limits import SessionLimits
from relay.session.common.media_ledger import MediaLedger
from relay.session.device.session import DeviceSession
from relay.session.realtime.session import RealtimeSession


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

    @classmethod
    def of_realtime(
        cls,
        session_id: str,
        tools: tuple[ToolSpec, ...],
        start: RealtimeStart,
        principal: Principal,
        started_at: float,
        limits: SessionLimits = SessionLimits(),  # noqa: B008  # frozen
    ) -> Self:
        """That of a Realtime client's session, to which the relay brings `tools`."""
        config, options = SessionConfig(tools=tools), DeviceOptions(PCM16_24K, PCM16_24K, max_ahead_ms=None)
        return cls(session_id, config, options, principal, started_at, limits=limits, realtime=start)

    @property
    def kind(self) -> str:
        """Whose session it was: "device", or "realtime"."""
        return "device" if self.realtime is None else "realtime"

    def device_session(self, ledger: MediaLedger | None = None) -> DeviceSession:
        """A device's session as it is before anything has happened; its ids are counted."""
        numbers = itertools.count(1)
        return DeviceSession(
            self.session_id,
            self.config,
            self.options,
            lambda: f"relay_{next(numbers)}",
            principal=self.principal,
            limits=self.limits,
            started_at=self.started_at,
            speech=self.speech,
            ledger=ledger,
        )

    def realtime_session(self, ledger: MediaLedger | None = None) -> RealtimeSession:
        """A Realtime client's session as it is before anything has happened; its ids are counted."""
        numbers, start = itertools.count(1), self.realtime or RealtimeStart()
        return RealtimeSession(
            self.session_id,
            self.principal,
            self.config.tools,
            lambda: str(next(numbers)),
            model=start.model,
            initial=start.initial,
            limits=self.limits,
            started_at=self.started_at,
            ledger=ledger,
        )
