"""What the relay sends to a device client: commands to JSON messages.

A message has the fields of its command, in camel case; a field whose default is None is left out where it is None.
`_NAMES` holds the type of such a message, and `_encode` those that are built otherwise.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Final

import orjson

from relay.core import commands as cmd
from relay.core.values import DeviceOptions
from relay.session.device.turn_metrics import TurnMetrics, camel_case
from relay.wire.device_in import PROTOCOL_VERSION

Obj = dict[str, Any]
Message = cmd.ClientMessage | cmd.PlayStart | cmd.PlayEnd

_NAMES: Final[Mapping[type, Obj]] = {
    cmd.TellResponseStart: {"type": "event", "name": "AIResponseStart"},
    cmd.TellText: {"type": "textDelta"},
    cmd.TellResponseEnd: {"type": "event", "name": "AIResponseEnd"},
    cmd.TellTranscript: {"type": "transcript"},
    cmd.TellInterrupted: {"type": "interrupted"},
    TurnMetrics: {"type": "latency"},
    cmd.TellGoodbye: {"type": "goodbye"},
    cmd.PlayStart: {"type": "audioStart"},
    cmd.PlayEnd: {"type": "audioEnd"},
}
_NOT_SENT: Final = "content_index"


def encode(message: Message) -> bytes:
    """A message to the client as one text message."""
    return orjson.dumps(_encode(message))


def encode_text(text: str) -> bytes:
    """More of the assistant's text as one text message."""
    return orjson.dumps({"type": "textDelta", "text": text})


def _encode(message: Message) -> Obj:
    match message:
        case cmd.TellConnected(session_id, options):
            opened = {"sessionId": session_id, "protocol": PROTOCOL_VERSION}
            return {"type": "event", "name": "AIConnected", **opened, **_formats(options)}
        case cmd.TellReady():
            return _ready(message)
        case cmd.TellSpeech(started):
            return {"type": "event", "name": "AISpeechDetected" if started else "AISpeechEnded"}
        case cmd.TellUsage(usage):
            return {"type": "usage", **_members(usage)}
        case cmd.TellTool(arguments=arguments, output=output, text=text):
            sent = replace(message, arguments=_json(arguments), output=_json(output), text=_sendable(text))
            return {"type": "tool", **_members(sent)}
        case cmd.TellToolCall(arguments=arguments):
            return {"type": "toolCall", **_members(message), "arguments": orjson.Fragment(arguments)}
        case cmd.TellError(code, text, field, retryable):
            error = {"type": "error", "code": code, "message": text, "retryable": retryable}
            return error | {"field": field} if field else error
        case _:
            return _NAMES[type(message)] | _members(message)


def _members(command: Any) -> Obj:
    members = {one: getattr(command, one.name) for one in fields(command) if one.name != _NOT_SENT}
    return {
        camel_case(one.name): value for one, value in members.items() if value is not None or one.default is not None
    }


def _formats(options: DeviceOptions) -> Obj:
    return {
        "input": {"format": options.input.encoding, "rate": options.input.rate_hz},
        "output": {"format": options.output.encoding, "rate": options.output.rate_hz},
    }


def _ready(message: cmd.TellReady) -> Obj:
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


def _sendable(text: str | None) -> str | None:
    """`text` without lone surrogates, which a tool may say and no frame can carry."""
    return None if text is None else text.encode(errors="replace").decode()
