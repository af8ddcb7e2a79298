"""The device protocol, version 1: binary audio and small JSON messages, as the relay speaks it to a device client.

`device_in` reads messages, `device_out` writes them. The codec keeps no state but the secrets that it removes; formats
and pace are the playout's. The protocol is described in `DEVICE_PROTOCOL.md` and `device_schema.json`.
"""

from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.wire.device_in import decode
from relay.wire.device_out import encode, encode_text


class DeviceCodec:
    """One connection's codec."""

    takes_binary_audio = True
    encode_audio = None

    def __init__(self, secrets: KnownSecrets = NO_SECRETS) -> None:
        """`secrets` are taken out of all messages to the client but `textDelta`."""
        self._secrets = secrets

    def decode_text(self, message: Chunk) -> ev.ClientEvent:
        """A text message as an event; whatever makes no sense is a `ClientFault` that names the field and the fix."""
        return decode(message)

    def encode(self, message: cmd.ClientMessage | cmd.PlayStart | cmd.PlayEnd) -> bytes:
        """A message to the client as one text message."""
        if type(message) is cmd.TellText:
            return encode_text(message.text)
        return self._secrets.redact_json(encode(message))
