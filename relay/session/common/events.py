"""The events that all kinds of sessions handle: of both connections, and of the relay itself.

None of them depends on the protocol of client or upstream.
"""

from dataclasses import dataclass
from typing import Literal

# -- the client's connection ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClientClosed:
    """The client closed its connection, with its close code or 1006."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ClientRateLimited:
    """The client exceeds its read allowance. From here on it is read more slowly, and nothing is lost."""

    limit: Literal["audio", "messages"]


@dataclass(frozen=True, slots=True)
class ClientMessageStalled:
    """A long message of a Realtime client took too long to arrive, while others waited for memory for theirs."""


@dataclass(frozen=True, slots=True)
class ClientBackpressure:
    """The client does not read: the send buffer of its socket exceeds the limit."""

    unsent_bytes: int


# -- the upstream's connection ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UpstreamOpened:
    """The connection to the upstream is open; no event has come yet."""


@dataclass(frozen=True, slots=True)
class UpstreamRefused:
    """The connection attempt failed: `status` is the HTTP status, None if there was no answer."""

    status: int | None
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class UpstreamClosed:
    """The upstream closed the connection, with its close code or 1006."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamBackpressure:
    """The upstream does not read: `dropped_bytes` of input audio were dropped so far. `fatal`: for too long."""

    dropped_bytes: int
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class MalformedUpstreamMessage:
    """An upstream message that is not an event; counted and ignored."""

    problem: str


# -- the relay --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time of the session's `deadline` has come."""


@dataclass(frozen=True, slots=True)
class ServerDraining:
    """The relay shuts down."""

    reason: str = "the relay is restarting"


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """The key that authenticated the client was revoked."""


@dataclass(frozen=True, slots=True)
class InternalFailure:
    """The relay's own code raised an exception in this session. Only this session ends."""

    where: str


UpstreamConnectionEvent = (
    UpstreamOpened | UpstreamRefused | UpstreamClosed | UpstreamBackpressure | MalformedUpstreamMessage
)
RelayEndEvent = ServerDraining | KeyRevoked | InternalFailure
"""Events by which the relay ends a session."""
