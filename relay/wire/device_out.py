"""What the relay says to a device client: commands to JSON messages."""

import json
from typing import Any, assert_never

import orjson

from relay.core import commands as cmd
from relay.core.values import DeviceOptions
from relay.wire.device_in import PROTOCOL_VERSION

Obj = dict[str, Any]


def encode(message: cmd.ClientMessage | cmd.PlayStart | cmd.PlayEnd) -> bytes:
    """A message to the client as one text message."""
    return orjson.dumps(_encode(message))


def encode_text(text: str) -> bytes:
    """More of the assistant's words as one text message."""
    return orjson.dumps({"type": "textDelta", "text": text})


def _event(name: str, **fields: Any) -> Obj:
    return {"type": "event", "name": name, **fields}


def _formats(options: DeviceOptions) -> Obj:
    return {
        "input": {"format": options.input.encoding, "rate": options.input.rate_hz},
        "output": {"format": options.output.encoding, "rate": options.output.rate_hz},
    }


def _encode(message: cmd.ClientMessage | cmd.PlayStart | cmd.PlayEnd) -> Obj:
    match message:
        case cmd.TellConnected(session_id, options):
            return _event("AIConnected", sessionId=session_id, protocol=PROTOCOL_VERSION, **_formats(options))
        case cmd.TellReady():
            return _ready(message)
        case cmd.TellSpeech(started):
            return _event("AISpeechDetected" if started else "AISpeechEnded")
        case cmd.TellResponseStart():
            return _event("AIResponseStart")
        case cmd.TellText(text):
            return {"type": "textDelta", "text": text}
        case cmd.TellResponseEnd(final_text, status, more):
            return _event("AIResponseEnd", finalText=final_text, status=status, more=more)
        case cmd.TellTranscript(role, item_id, order, text, final):
            return {
                "type": "transcript",
                "role": role,
                "itemId": item_id,
                "order": order,
                "text": text,
                "final": final,
            }
        case cmd.TellTool():
            return _tool(message)
        case cmd.TellToolCall(call_id, name, arguments, timeout_ms):
            return {
                "type": "toolCall",
                "callId": call_id,
                "name": name,
                "arguments": orjson.Fragment(arguments),
                "timeoutMs": timeout_ms,
            }
        case cmd.TellInterrupted(item_id, played_ms, heard_text, estimated):
            return {
                "type": "interrupted",
                "itemId": item_id,
                "playedMs": played_ms,
                "heardText": heard_text,
                "estimated": estimated,
            }
        case cmd.TellUsage():
            return _usage(message)
        case cmd.TellLatency():
            return _latency(message)
        case cmd.TellError(code, text, field, retryable):
            given: Obj = {"type": "error", "code": code, "message": text, "retryable": retryable}
            return given | ({"field": field} if field else {})
        case cmd.TellGoodbye(reason):
            return {"type": "goodbye", "reason": reason}
        case cmd.PlayStart(item_id):
            return {"type": "audioStart", "itemId": item_id}
        case cmd.PlayEnd(item_id, _, total_ms):
            return {"type": "audioEnd", "itemId": item_id, "totalMs": total_ms}
        case _:
            assert_never(message)


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


def _tool(message: cmd.TellTool) -> Obj:
    given: Obj = {
        "type": "tool",
        "callId": message.call_id,
        "name": message.name,
        "status": message.status,
        "ms": message.ms,
    }
    optional = {
        "arguments": _json(message.arguments),
        "output": _json(message.output),
        "text": _sendable(message.text),
    }
    return given | {key: value for key, value in optional.items() if value is not None}


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


def _usage(message: cmd.TellUsage) -> Obj:
    usage = message.usage
    return {
        "type": "usage",
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens,
        "inputAudioTokens": usage.input_audio_tokens,
        "inputTextTokens": usage.input_text_tokens,
        "cachedTokens": usage.cached_tokens,
        "outputAudioTokens": usage.output_audio_tokens,
        "outputTextTokens": usage.output_text_tokens,
    }


def _latency(message: cmd.TellLatency) -> Obj:
    split = {"firstTextMs": message.first_text_ms, "voiceMs": message.voice_ms}
    return {
        "type": "latency",
        "itemId": message.item_id,
        "speechStoppedMs": message.speech_stopped_ms,
        "firstDeltaMs": message.first_delta_ms,
        "firstByteMs": message.first_byte_ms,
        "firstPlayedMs": message.first_played_ms,
        "totalMs": message.total_ms,
    } | {name: ms for name, ms in split.items() if ms is not None}
