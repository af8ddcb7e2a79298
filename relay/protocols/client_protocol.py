"""The interfaces of the protocols that clients speak.

There are two kinds. In a device session the relay owns the turns: it responds, interrupts, runs tools and paces audio.
A `ClientCodec` translates between its rules and the client's protocol. In a Realtime session the client does, in
OpenAI's protocol or in a `RealtimeDialect` of it.

A `ClientCodec` belongs to one connection and may keep state. It decodes messages to events and audio, and encodes
commands as messages. It decides nothing: limits, order and pacing belong to the runtime. Every acknowledgement of audio
becomes `Playback`, in any protocol; what the client requests of the session becomes `Hello`.

A codec that raises ends its own session and no other. A new protocol is a codec module, a row in
`relay.protocols.registry`, and a test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from audio.framing import BytesLike
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import PartKey
from relay.session.common.model import DeviceOptions
from relay.session.device.commands import ClientMessage, SendAudioEnd, SendAudioStart
from relay.session.device.events import ClientEvent


class ClientCodec(Protocol):
    """One connection's codec, for a client of a session whose turns the relay owns."""

    @property
    def accepts_binary_audio(self) -> bool:
        """Whether a binary message from the client is audio; otherwise it is a protocol error."""

    @property
    def encode_audio(self) -> Callable[[PartKey, BytesLike], Sequence[bytes]] | None:
        """Encodes audio of a content part as text messages. None: each chunk is a binary message.

        The audio is in the client's format.
        """

    def decode_text(self, message: bytes) -> ClientEvent | bytes | None:
        """Decode a text message to an event, or to audio in the client's format; None if the session has no use for it.

        An invalid message becomes a `ClientProtocolError` that names the field and the fix. A playback acknowledgement
        becomes `Playback` with an item and a position.
        """

    def encode(self, message: ClientMessage | SendAudioStart | SendAudioEnd) -> bytes | None:
        """Encode a message to the client as text; None if the protocol has no such message."""


@dataclass(frozen=True, slots=True)
class ClientProtocol:
    """A protocol that clients speak over WebSocket at `paths`."""

    name: str
    paths: tuple[str, ...]
    max_message_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceClientProtocol(ClientProtocol):
    """A protocol of clients whose turns the relay owns."""

    codec: Callable[[KnownSecrets], ClientCodec]
    """Creates the codec of one connection. The secrets are redacted in all messages but text deltas."""
    options: DeviceOptions = DeviceOptions()  # frozen
    """The options that a session starts with."""
    accepts_query_options: bool = False
    """Whether the client may choose format, rate and voice in the query of its URL."""


class RealtimeDialect(Protocol):
    """A dialect of the Realtime protocol, spoken on one side of the relay; the other side speaks GA."""

    @property
    def renamed_server_events(self) -> Mapping[str, str]:
        """Event types that `to_client` only renames. Deltas of other types are the same in both dialects."""

    def to_upstream(self, event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Translate an event on its way to the upstream into exactly one event."""

    def to_client(self, event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Translate an event on its way to the client; a dialect of the upstream returns at least one event."""


@dataclass(frozen=True, slots=True)
class OpeningHandshake:
    """The parts of a client's opening handshake (RFC 6455, section 4.1) that tell its dialect."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    subprotocols: Sequence[str]


@dataclass(frozen=True, slots=True)
class RealtimeClientProtocol(ClientProtocol):
    """OpenAI's Realtime protocol, for clients that own their turns."""

    select_dialect: Callable[[OpeningHandshake], RealtimeDialect | None]
    """Returns the dialect of one connection, None for GA."""
