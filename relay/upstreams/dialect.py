"""The interface of a protocol that upstreams speak.

The session rules send the same commands to every upstream: configure, append audio, create items, create, cancel and
truncate responses. An `UpstreamCodec` encodes these commands as messages, and decodes messages to events and audio. It
may keep state, and may emit events that the upstream does not send, such as the start of a response.

If an upstream has no message for a command, the codec ignores it or answers it with an event. `UpstreamCapabilities` is
the rest that the rules must know: audio formats, and whether history can be truncated.

A codec that raises ends only its own session. A new dialect is a codec module, a row in `relay.upstreams.registry`, and
a test. Realtime sessions also need a translation to and from OpenAI's events (`RealtimeDialect`).
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
    """The codec of one connection, for sessions whose turns the relay controls.

    A session begins with `SessionCreated`. The relay answers with `ConfigureSession`, and `SessionUpdated` accepts it.
    """

    @property
    def append_template(self) -> bytes:
        """The message that appends audio, with `%b` in place of the base64 audio."""

    @property
    def opened(self) -> UpstreamOpened | SessionCreated:
        """The event of an open connection: `SessionCreated` if the upstream sends nothing before it is configured."""

    def decode(self, message: bytes) -> UpstreamEvent | AudioDelta | list[UpstreamEvent | AudioDelta]:
        """Decode a message to events and audio. Never raises: `MalformedUpstreamMessage` says why."""

    def encode(self, command: UpstreamCommand) -> bytes | UpstreamEvent | None:
        """Encode a command as a text message.

        If the protocol has no such message, return the event that answers the command, or None. Settings that cannot
        be changed any more are an `UpstreamError` with the command's `event_id`.
        """


@dataclass(frozen=True, slots=True)
class UpstreamDialect:
    """One protocol that upstreams speak over WebSocket."""

    name: str
    codec: Callable[[KnownSecrets, str], UpstreamCodec]
    """Creates the codec of a connection to the given model. The secrets are redacted from all events except deltas."""
    realtime: Callable[[], RealtimeDialect | None] | None
    """Creates the translator between a Realtime client's session and this upstream, None for GA. None instead of a
    callable: Realtime clients cannot be served."""
    recognizes: Callable[[str], bool] = lambda _url: False
    """Whether a WebSocket URL belongs to this protocol; the first matching row of the registry is used."""
    capabilities: UpstreamCapabilities | None = None
    """None: the capabilities of OpenAI's Realtime API."""
    url_for: Callable[[str, str], str] | None = None
    """Returns the URL for a model, from the configured URL; None: OpenAI's path and query, with `?model=`."""
    key_query_parameter: str | None = None
    """The query parameter that carries the key; None: `Authorization: Bearer` carries it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of the handshake besides the credential."""
