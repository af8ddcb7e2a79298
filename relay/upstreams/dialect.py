"""What the relay needs to know of the protocol that an upstream speaks.

A new one is a codec module, a row in `relay.upstreams.registry`, and a test. The rules know nothing of it but its
`UpstreamCapabilities`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from relay.core.commands import UpstreamCommand
from relay.core.events import UpstreamEvent
from relay.core.known_secrets import KnownSecrets
from relay.core.values import UpstreamCapabilities
from relay.protocols.client_protocol import Dialect
from relay.session.common.media_types import AudioDelta


class UpstreamCodec(Protocol):
    """One connection's codec, for sessions whose turns the relay owns.

    A session begins with `SessionCreated`. The relay answers with `ConfigureSession`, and `SessionUpdated` accepts it.
    """

    @property
    def append_template(self) -> bytes:
        """The message that appends audio, with `%b` for the audio in base64."""

    def decode(self, message: bytes) -> UpstreamEvent | AudioDelta | list[UpstreamEvent | AudioDelta]:
        """A text message of the upstream as events and audio. Never raises: `MalformedUpstream` says why."""

    def encode(self, command: UpstreamCommand) -> bytes | None:
        """A command as a text message; None where the protocol has no such message."""


def _by_name_only(_url: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class UpstreamDialect:
    """A protocol that upstreams speak over WebSocket."""

    name: str
    codec: Callable[[KnownSecrets], UpstreamCodec]
    """Makes the codec of one connection. The secrets are removed from all events but deltas."""
    realtime: Callable[[], Dialect | None] | None
    """Makes what translates between a Realtime client's session and this upstream, None for GA. None instead of a
    callable: Realtime clients cannot be served."""
    recognizes: Callable[[str], bool] = _by_name_only
    """Whether a WebSocket URL is one of this protocol; the first row of the registry that says so is taken."""
    capabilities: UpstreamCapabilities | None = None
    """None: those of OpenAI's Realtime API."""
    url_for: Callable[[str, str], str] | None = None
    """The URL with another model than the configured one; None: the model is in the query, as OpenAI has it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What a dial sends besides the credential."""
