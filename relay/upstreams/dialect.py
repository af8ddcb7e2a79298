"""What the relay needs to know of the protocol that an upstream speaks.

The rules speak to every upstream in the same way: they configure it, append audio, create items, ask for responses,
cancel and truncate. An `UpstreamCodec` turns these commands into messages, and messages into the rules' events and
audio. It may keep state, and make up what the upstream does not say, such as the beginning of a response.

Where an upstream has no message for a command, the codec leaves it out or answers it with an event. The few things that
the rules have to know are `UpstreamCapabilities`: formats, and whether history can be truncated.

A codec that raises ends its own session, and no other. A new dialect is a codec module, a row in
`relay.upstreams.registry`, and a test. Realtime sessions need a translation to and from OpenAI's events
(`RealtimeDialect`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from relay.protocols.client_protocol import RealtimeDialect
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import UpstreamCapabilities
from relay.session.device.commands import UpstreamCommand
from relay.session.device.events import SessionCreated, UpstreamEvent, UpstreamOpened


class UpstreamCodec(Protocol):
    """One connection's codec, for sessions whose turns the relay owns.

    A session begins with `SessionCreated`. The relay answers with `ConfigureSession`, and `SessionUpdated` accepts it.
    """

    @property
    def append_template(self) -> bytes:
        """The message that appends audio, with `%b` for the audio in base64."""

    @property
    def opened(self) -> UpstreamOpened | SessionCreated:
        """What an open connection means: `SessionCreated` for an upstream that says nothing before its settings."""

    def decode(self, message: bytes) -> UpstreamEvent | AudioDelta | list[UpstreamEvent | AudioDelta]:
        """A message of the upstream as events and audio. Never raises: `MalformedUpstreamMessage` says why."""

    def encode(self, command: UpstreamCommand) -> bytes | UpstreamEvent | None:
        """A command as a text message.

        Where the protocol has no such message: the event that answers the command, or None if none has to. Settings
        that cannot be changed any more are an `UpstreamError` with the command's `event_id`.
        """


@dataclass(frozen=True, slots=True)
class UpstreamDialect:
    """A protocol that upstreams speak over WebSocket."""

    name: str
    codec: Callable[[KnownSecrets, str], UpstreamCodec]
    """Makes the codec of one connection to the model named. The secrets are removed from all events but deltas."""
    realtime: Callable[[], RealtimeDialect | None] | None
    """Makes what translates between a Realtime client's session and this upstream, None for GA. None instead of a
    callable: Realtime clients cannot be served."""
    recognizes: Callable[[str], bool] = lambda _url: False
    """Whether a WebSocket URL is one of this protocol; the first row of the registry that says so is taken."""
    capabilities: UpstreamCapabilities | None = None
    """None: those of OpenAI's Realtime API."""
    url_for: Callable[[str, str], str] | None = None
    """The URL for a model, from the configured one; None: path and query are OpenAI's, with `?model=`."""
    key_query_parameter: str | None = None
    """The parameter of the query that carries the key; None: `Authorization: Bearer` does."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What a dial sends besides the credential."""
