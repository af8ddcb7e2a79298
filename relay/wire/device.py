"""The device protocol, version 1: binary audio and small JSON messages, as the relay speaks it to a device client."""

from audio.framing import Chunk
from audio.transcode import Transcoder
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.known_secrets import NO_SECRETS, KnownSecrets
from relay.core.values import DeviceOptions
from relay.wire.device_in import decode
from relay.wire.device_out import encode, encode_text


class DeviceCodec:
    """One connection's codec. Audio towards the client keeps its state here: the resampler's tail."""

    def __init__(self, options: DeviceOptions, secrets: KnownSecrets = NO_SECRETS) -> None:
        """`secrets` are taken out of all messages to the client but `textDelta`."""
        self._secrets = secrets
        self.options = options
        self._use_output()

    def use(self, options: DeviceOptions) -> None:
        """Work by `options` from here on; audio that is under way goes on unless its format is another one now."""
        old, self.options = self.options, options
        if (old.output, old.upstream_output) != (options.output, options.upstream_output):
            self._use_output()

    def _use_output(self) -> None:
        options = self.options
        self._down = Transcoder(options.upstream_output, options.output)
        self.to_client = self._down.shortest_feed
        """The upstream's audio in the client's format; untouched where they agree (`passes_down`)."""
        self.passes_down = self._down.is_identity

    def decode_text(self, frame: Chunk) -> ev.ClientEvent:
        """A text message as an event; whatever makes no sense is a `ClientFault` that names the field and the fix."""
        return decode(frame)

    def end_item(self) -> bytes:
        """What the filter towards the client still holds of an item; the next one starts afresh."""
        return self._down.flush()

    def drop_item(self) -> None:
        """Forget what the filter towards the client holds: the item was cut."""
        self._down.reset()

    encode_text = staticmethod(encode_text)

    def encode(self, message: cmd.ClientMessage | cmd.PlayStart | cmd.PlayEnd) -> bytes:
        """A message to the client as one text message."""
        if type(message) is cmd.TellText:
            return encode_text(message.text)
        return self._secrets.redact_json(encode(message))
