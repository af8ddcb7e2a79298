"""What a session with a Realtime client knows besides `events` and `commands`: whole events of the protocol.

Both ends speak the protocol that the rules are about, so its events stay JSON objects; only what a rule changes is
written anew. A `raw` memoryview is valid during the call only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from audio.framing import BytesLike
from relay.session.device import commands as cmd
from relay.session.device import events as ev

CONSENT_EVENT_TYPE = "relay.consent"
"""A client's event of the relay's own: `granted` says whether the session may be recorded. It goes no further."""


@dataclass(frozen=True, slots=True)
class RealtimeClientEvent:
    """An event of the client's, parsed: what goes on is written from `body` alone, so that nothing hides in `raw`.

    `n_members`: how many members and list elements it has, for its client's allowance; recordings do not hold it.
    """

    body: Mapping[str, Any]
    n_members: int = field(default=0, compare=False)

    @property
    def is_append(self) -> bool:
        """Whether it appends audio, however it is written."""
        return self.body.get("type") == "input_audio_buffer.append"


@dataclass(frozen=True, slots=True)
class InvalidClientMessage:
    """A frame of the client's that is no event; `event_id` where one could be read."""

    message: str
    code: str | None = None
    param: str | None = None
    event_id: str | None = None


class RealtimeServerEvent(NamedTuple):
    """An event of the upstream's, as it came and parsed."""

    raw: BytesLike
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SendToClient:
    """Write an event to the client."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SendToUpstream:
    """Write an event to the upstream."""

    body: Mapping[str, Any]


class ForwardToClient(NamedTuple):
    """Hand an event of the upstream's to the client, byte for byte."""

    raw: BytesLike


ReceivedMessage = RealtimeClientEvent | InvalidClientMessage | RealtimeServerEvent
ClientDisconnect = ev.ClientClosed | ev.ClientBackpressure | ev.ClientMessageStalled
RealtimeEvent = (
    ReceivedMessage
    | ClientDisconnect
    | ev.ClientRateLimited
    | ev.UpstreamConnectionEvent
    | ev.ToolEvent
    | ev.DeadlineReached
    | ev.RelayEndEvent
)
SendCommand = SendToClient | SendToUpstream | ForwardToClient
RealtimeCommand = SendCommand | cmd.InputCommand | cmd.ToolCommand | cmd.CloseClient | cmd.CloseUpstream
