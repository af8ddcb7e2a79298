"""Codec for the device protocol, version 1: binary audio and small JSON messages.

The codec keeps no state but the secrets that it redacts; formats and pacing belong to the playout. `decoder` decodes
messages from the client. A message to the client has the fields of its command, in camel case, except those that
default to None and still are None. The protocol is described in `docs/device-protocol.md` and `schema.json`.
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
    """One device connection's codec."""

    accepts_binary_audio = True
    encode_audio = None
    decode_text = staticmethod(decode)

    def __init__(self, secrets: KnownSecrets = NO_SECRETS) -> None:
        """`secrets` are redacted in all messages to the client but `textDelta`."""
        self._secrets = secrets

    def encode(self, message: DeviceMessage) -> bytes:
        """Encode a message to the client as text."""
        if type(message) is cmd.SendTextDelta:
            return orjson.dumps({"type": "textDelta", "text": message.text})
        return self._secrets.redact_json(orjson.dumps(_encode(message)))


def _encode(message: DeviceMessage) -> JsonObject:
    match message:
        case cmd.SendConnected(session_id, options):
            session = {"sessionId": session_id, "protocol": PROTOCOL_VERSION}
            return {"type": "event", "name": "AIConnected", **session, **_encode_formats(options)}
        case cmd.SendReady():
            return _encode_ready(message)
        case cmd.SendSpeechState(started):
            return {"type": "event", "name": "AISpeechDetected" if started else "AISpeechEnded"}
        case cmd.SendUsage(usage):
            return {"type": "usage", **_encode_members(usage)}
        case cmd.SendToolStatus(arguments=arguments, output=output, text=text):
            text = _replace_lone_surrogates(text)
            return {
                "type": "tool",
                **_encode_members(
                    replace(message, arguments=_embed_json(arguments), output=_embed_json(output), text=text)
                ),
            }
        case cmd.SendToolCall(arguments=arguments):
            return {"type": "toolCall", **_encode_members(message), "arguments": orjson.Fragment(arguments)}
        case cmd.SendError(code, text, field, retryable):
            error = {"type": "error", "code": code, "message": text, "retryable": retryable}
            return error | {"field": field} if field else error
        case _:
            return _MESSAGE_HEADS[type(message)] | _encode_members(message)


def _encode_members(command: Any) -> JsonObject:
    values = {field: getattr(command, field.name) for field in fields(command) if field.name != _OMITTED_FIELD}
    sent = {field.name: value for field, value in values.items() if value is not None or field.default is not None}
    return {camel_case(name): value for name, value in sent.items()}


def _encode_formats(options: DeviceOptions) -> JsonObject:
    return {
        "input": {"format": options.input.encoding, "rate": options.input.rate_hz},
        "output": {"format": options.output.encoding, "rate": options.output.rate_hz},
    }


def _encode_ready(message: cmd.SendReady) -> JsonObject:
    return {
        "type": "ready",
        **_encode_formats(message.options),
        "voice": message.config.voice,
        "turn": message.config.turn.kind,
        "maxAheadMs": message.options.max_ahead_ms,
        "duplex": "half" if message.options.half_duplex else "full",
        "language": message.config.language,
        "tools": [tool.name for tool in message.config.tools],
    }


def _embed_json(value: Any) -> Any:
    """Return a tool's arguments or output as JSON if it is JSON text, otherwise unchanged."""
    if value is None:
        return None
    try:
        if isinstance(value, str):
            orjson.loads(value)
            return orjson.Fragment(value)  # unchanged: orjson parses deeper nesting than it serializes
        return orjson.Fragment(orjson.dumps(value))
    except orjson.JSONDecodeError:
        return value
    except TypeError:  # orjson: an integer beyond 64 bits, or nested too deeply
        return orjson.Fragment(json.dumps(value, default=str))


def _replace_lone_surrogates(text: str | None) -> str | None:
    """Return `text` without lone surrogates, which a tool may return and a WebSocket text message cannot carry."""
    return None if text is None else text.encode(errors="replace").decode()
