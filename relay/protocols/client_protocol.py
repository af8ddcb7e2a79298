"""What the relay needs to know of a protocol that clients speak.

There are two kinds, by who owns the turns. In a device session the relay does: it answers, interrupts, runs tools and
paces the audio. A `ClientCodec` puts that into the client's protocol. In a Realtime session the client does, in
OpenAI's protocol or in a `RealtimeDialect` of it.

A `ClientCodec` belongs to one connection and may keep state. It turns messages into events and audio, and commands into
messages. It never decides anything: limits, order and pace are the runtime's. An acknowledgement of audio, whatever it
looks like, becomes `Playback`, and the client's wishes become `Hello`.

A codec that raises ends its own session, and no other. A new protocol is a codec module, a row in
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
        """Whether a binary message of the client's is audio; otherwise it is a fault."""

    @property
    def encode_audio(self) -> Callable[[PartKey, BytesLike], Sequence[bytes]] | None:
        """Audio of a content part, in the client's format, as text messages. None: each chunk is a binary message."""

    def decode_text(self, message: bytes) -> ClientEvent | bytes | None:
        """A text message as an event, or as audio in the client's format; None if it means nothing to a session.

        What makes no sense is a `ClientProtocolError` that names the field and the fix. How a client acknowledges
        playback is the codec's business: it returns `Playback` with an item and a position.
        """

    def encode(self, message: ClientMessage | SendAudioStart | SendAudioEnd) -> bytes | None:
        """A message to the client as a text message; None where the protocol has no such message."""


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
    """Makes the codec of one connection. The secrets are removed from all messages but text deltas."""
    options: DeviceOptions = DeviceOptions()  # frozen
    """What a session begins with."""
    accepts_query_options: bool = False
    """Whether the client may choose format, rate and voice in the query of its URL."""


class RealtimeDialect(Protocol):
    """Another way of speaking the Realtime protocol, on one side of the relay; GA is on the other."""

    @property
    def renamed_server_events(self) -> Mapping[str, str]:
        """The types that `to_client` only renames. Deltas that are not among them are the same in both dialects."""

    def to_upstream(self, event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """An event on its way to the upstream, as exactly one event."""

    def to_client(self, event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """An event on its way to the client; from an upstream at least one event."""


@dataclass(frozen=True, slots=True)
class OpeningHandshake:
    """What a client's request to open a connection says of the dialect that it speaks."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    subprotocols: Sequence[str]


@dataclass(frozen=True, slots=True)
class RealtimeClientProtocol(ClientProtocol):
    """OpenAI's Realtime protocol, for clients that own their turns."""

    select_dialect: Callable[[OpeningHandshake], RealtimeDialect | None]
    """The dialect of one connection; None for GA."""
