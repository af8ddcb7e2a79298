"""The state that all connections of a server share, and the parameters of one connection."""

from dataclasses import dataclass, field

from aiohttp import web

from relay.local_engine.speech.backend import SpeechBackend
from relay.testing.faults import FaultSpec


@dataclass
class EngineContext:
    """The speech backend and the limits that all sessions of a server share.

    `pace` is how many times faster than real time speech is generated after its first seconds (None: unlimited). A
    real model is not infinitely fast either: a response must still be active when the user interrupts it. `faults`
    apply to every connection. A session ends after `max_session_s` seconds.
    """

    speech_backend: SpeechBackend
    pace: float | None = 4.0
    faults: tuple[FaultSpec, ...] = ()
    max_session_s: float = 3600.0
    sockets: set[web.WebSocketResponse] = field(default_factory=set)
    n_connections: int = 0


@dataclass(frozen=True)
class ConnectParams:
    """The model, session type and faults that a client asks for in the URL and headers of its handshake."""

    model: str
    session_type: str = "realtime"
    is_beta: bool = False
    faults: tuple[FaultSpec, ...] = ()
