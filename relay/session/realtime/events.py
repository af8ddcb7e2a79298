"""Events and commands of a Realtime session, besides those it shares with device sessions.

Client and upstream both speak the Realtime protocol, so its events stay JSON objects. Only an event that a rule changes
is serialized again. A `raw` memoryview is valid only during the call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from audio.framing import BytesLike
from relay.session.device import commands as cmd
from relay.session.device import events as ev

CONSENT_EVENT_TYPE = "relay.consent"
"""A client event of the relay's own: `granted` says whether the session may be recorded. It is not forwarded."""


@dataclass(frozen=True, slots=True)
class RealtimeClientEvent:
    """A parsed client event. Only `body` is forwarded, serialized again, so nothing can hide in the client's bytes.

    `n_members` counts its object members and list elements, for the client's rate limit. Recordings do not store it.
    """

    body: Mapping[str, Any]
    n_members: int = field(default=0, compare=False)

    @property
    def is_append(self) -> bool:
        """Whether this is an `input_audio_buffer.append`, in any JSON spelling."""
        return self.body.get("type") == "input_audio_buffer.append"


@dataclass(frozen=True, slots=True)
class InvalidClientMessage:
    """A client message that is not an event; `event_id` is set where it could be parsed."""

    message: str
    code: str | None = None
    param: str | None = None
    event_id: str | None = None


class RealtimeServerEvent(NamedTuple):
    """An event from the upstream, parsed, with the bytes it came in."""

    raw: BytesLike
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SendToClient:
    """Serialize an event and send it to the client."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SendToUpstream:
    """Serialize an event and send it to the upstream."""

    body: Mapping[str, Any]


class ForwardToClient(NamedTuple):
    """Send an upstream event to the client byte for byte."""

    raw: BytesLike


ReceivedMessage = RealtimeClientEvent | InvalidClientMessage | RealtimeServerEvent
ClientDisconnect = ev.ClientClosed | ev.ClientBackpressure | ev.ClientMessageStalled
RealtimeEvent = (
    ReceivedMessage
    | ClientDisconnect
    | ev.ClientRateLimited
    | ev.UpstreamConnectionEvent
    | ev.ToolRunEvent
    | ev.DeadlineReached
    | ev.RelayEndEvent
)
SendCommand = SendToClient | SendToUpstream | ForwardToClient
RealtimeCommand = SendCommand | cmd.InputCommand | cmd.ToolCommand | cmd.CloseClient | cmd.CloseUpstream
