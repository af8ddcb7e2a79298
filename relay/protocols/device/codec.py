"""The device protocol, version 1: binary audio and small JSON messages, as the relay speaks it to a device client.

The codec keeps no state but the secrets that it removes; formats and pace are the playout's. `device_in` reads
messages. One to the client has the fields of its command, in camel case, without those that are None by default and
still are. The protocol is described in `docs/device-protocol.md` and `schema.json`.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

import orjson

from relay.json_types import JsonObject
from relay.protocols.device.decoder import PROTOCOL_VERSION, decode
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.model import DeviceOptions
from relay.session.device import commands as cmd
from relay.session.device.turn_metrics import TurnMetrics, camel_case

DeviceMessage = cmd.ClientMessage | cmd.SendAudioStart | cmd.SendAudioEnd

_MESSAGE_HEADS: Final[Mapping[type, JsonObject]] = {
    cmd.SendResponseStart: {"type": "event", "name": "AIResponseStart"},
    cmd.SendResponseEnd: {"type": "event", "name": "AIResponseEnd"},
    cmd.SendTranscript: {"type": "transcript"},
    cmd.SendInterrupted: {"type": "interrupted"},
    TurnMetrics: {"type": "latency"},
    cmd.SendGoodbye: {"type": "goodbye"},
    cmd.SendAudioStart: {"type": "audioStart"},
    cmd.SendAudioEnd: {"type": "audioEnd"},
}
_OMITTED_FIELD: Final = "content_index"


class DeviceCodec:
    """One connection's codec."""

    accepts_binary_audio = True
    encode_audio = None
    decode_text = staticmethod(decode)

    def __init__(self, secrets: KnownSecrets = NO_SECRETS) -> None:
        """`secrets` are taken out of all messages to the client but `textDelta`."""
        self._secrets = secrets

    def encode(self, message: DeviceMessage) -> bytes:
        """A message to the client as one text message."""
        if type(message) is cmd.SendTextDelta:
            return orjson.dumps({"type": "textDelta", "text": message.text})
        return self._secrets.redact_json(orjson.dumps(_encode(message)))


def _encode(message: DeviceMessage) -> JsonObject:
    match message:
        case cmd.SendConnected(session_id, options):
            opened = {"sessionId": session_id, "protocol": PROTOCOL_VERSION}
            return {"type": "event", "name": "AIConnected", **opened, **_formats(options)}
        case cmd.SendReady():
            return _ready(message)
        case cmd.SendSpeechState(started):
            return {"type": "event", "name": "AISpeechDetected" if started else "AISpeechEnded"}
        case cmd.SendUsage(usage):
            return {"type": "usage", **_members(usage)}
        case cmd.SendToolStatus(arguments=arguments, output=output, text=text):
            sent = replace(
                message, arguments=_json(arguments), output=_json(output), text=_replace_lone_surrogates(text)
            )
            return {"type": "tool", **_members(sent)}
        case cmd.SendToolCall(arguments=arguments):
            return {"type": "toolCall", **_members(message), "arguments": orjson.Fragment(arguments)}
        case cmd.SendError(code, text, field, retryable):
            error = {"type": "error", "code": code, "message": text, "retryable": retryable}
            return error | {"field": field} if field else error
        case _:
            return _MESSAGE_HEADS[type(message)] | _members(message)


def _members(command: Any) -> JsonObject:
    members = {one: getattr(command, one.name) for one in fields(command) if one.name != _OMITTED_FIELD}
    return {
        camel_case(one.name): value for one, value in members.items() if value is not None or one.default is not None
    }


def _formats(options: DeviceOptions) -> JsonObject:
    return {
        "input": {"format": options.input.encoding, "rate": options.input.rate_hz},
        "output": {"format": options.output.encoding, "rate": options.output.rate_hz},
    }


def _ready(message: cmd.SendReady) -> JsonObject:
    return {
        "type": "ready",
        **_formats(message.options),
        "voice": message.config.voice,
        "turn": message.config.turn.kind,
        "maxAheadMs": message.options.max_ahead_ms,
        "duplex": "half" if message.options.half_duplex else "full",
        "language": message.config.language,
        "tools": [tool.name for tool in message.config.tools],
    }


def _json(value: Any) -> Any:
    """What a tool took or gave as JSON, where it is JSON text; as it is otherwise."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            orjson.loads(value)
            return orjson.Fragment(value)  # as it stands: orjson reads deeper nesting than it writes
        return orjson.Fragment(orjson.dumps(value))
    except orjson.JSONDecodeError:
        return value
    except TypeError:  # numbers beyond 64 bits, or nested too deeply, for orjson
        return orjson.Fragment(json.dumps(value, default=str))


def _replace_lone_surrogates(text: str | None) -> str | None:
    """`text` without lone surrogates, which a tool may say and no frame can carry."""
    return None if text is None else text.encode(errors="replace").decode()
