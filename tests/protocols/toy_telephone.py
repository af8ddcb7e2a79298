"""A telephone provider's media stream, as a client protocol: µ-law at 8 kHz in base64 JSON.

The provider sends `start`, `media`, `mark` and `stop`; it is sent `media`, `mark` and `clear`. It returns a mark once
it has played what came before, and returns all that are left when it is asked to clear.
"""

from binascii import Error
from typing import Any

import orjson
from pybase64 import b64decode, b64encode_as_string

from audio.formats import PCMU
from audio.framing import BytesLike
from relay.protocols.client_protocol import DeviceClientProtocol
from relay.session.common.known_secrets import KnownSecrets
from relay.session.common.media_types import PartKey
from relay.session.common.model import DeviceOptions
from relay.session.device import commands as cmd
from relay.session.device import events as ev


class ToyTelephoneCodec:
    """One call. A mark's name is the item and the position in it, so that it comes back as an acknowledgement."""

    accepts_binary_audio = False

    def __init__(self, _secrets: KnownSecrets) -> None:
        self._stream_id = ""
        self._part: PartKey | None = None
        self._part_bytes = 0

    def decode_text(self, message: bytes) -> ev.ClientEvent | bytes | None:
        """A message of the provider's as an event or as audio."""
        try:
            body = orjson.loads(message)
            return self._decode(body["event"], body)
        except orjson.JSONDecodeError as error:
            return ev.ClientProtocolError("bad_json", f"The message is not valid JSON: {error}")
        except (KeyError, TypeError, ValueError, Error) as error:
            return ev.ClientProtocolError("bad_message", f"{type(error).__name__}: {error}")

    def _decode(self, event: str, body: Any) -> ev.ClientEvent | bytes | None:
        match event:
            case "start":
                self._stream_id = str(body["streamSid"])
            case "media":
                return b64decode(body["media"]["payload"], validate=True)
            case "mark":
                item_id, _, played_ms = body["mark"]["name"].rpartition(" ")
                return ev.Playback(item_id, int(played_ms))
            case "stop":
                return ev.Bye()
        return None

    def encode(self, message: cmd.ClientMessage | cmd.SendAudioStart | cmd.SendAudioEnd) -> bytes | None:
        """Of all that a session has to say, a telephone has a message for the interruption alone."""
        return self._message("clear") if isinstance(message, cmd.SendInterrupted) else None

    def encode_audio(self, part: PartKey, samples: BytesLike) -> list[bytes]:
        """Audio, and the mark that comes back once it has been played."""
        if part != self._part:
            self._part, self._part_bytes = part, 0
        self._part_bytes += len(samples)
        name = f"{part[0]} {PCMU.duration_ms(self._part_bytes)}"
        media = self._message("media", media={"payload": b64encode_as_string(samples)})
        return [media, self._message("mark", mark={"name": name})]

    def _message(self, event: str, **fields: Any) -> bytes:
        return orjson.dumps({"event": event, "streamSid": self._stream_id, **fields})


TOY_TELEPHONE = DeviceClientProtocol(
    "toy-telephone",
    ("/telephone",),
    max_message_bytes=64 * 1024,
    codec=ToyTelephoneCodec,
    options=DeviceOptions(PCMU, PCMU),
)
