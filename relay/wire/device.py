"""The device protocol, version 1: binary audio and small JSON messages, as the relay speaks it to a device client."""

import json
from collections.abc import Callable
from typing import Any, assert_never, get_args

import orjson

from audio.formats import AudioFormat
from audio.framing import Chunk, SampleAligner
from audio.transcode import Transcoder
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.values import DeviceOptions, TurnKind
from relay.wire.append import forwarded

PROTOCOL_VERSION = 1
MAX_TEXT_CHARS = 32_768
MAX_ID_CHARS = 256
MAX_POSITION_MS = 86_400_000
MAX_AHEAD_MS = 600_000
MIN_AHEAD_MS = 100
"""Who asks for less gets this: with a shorter lead, sound that goes out in pieces would have gaps."""

Obj = dict[str, Any]


class MessageError(Exception):
    """A message that makes no sense; becomes a `ClientFault`."""

    def __init__(self, message: str, field: str | None = None, code: Any = "bad_message") -> None:
        super().__init__(message)
        self.fault = ev.ClientFault(code, message, field)


class DeviceCodec:
    """One connection's codec. Audio keeps its state here: the carried byte and the resamplers' tails."""

    def __init__(self, options: DeviceOptions) -> None:
        self.use(options)

    def use(self, options: DeviceOptions) -> None:
        """Work by `options` from here on; whatever audio was under way before is forgotten."""
        self.options = options
        self.aligner = SampleAligner(options.input.bytes_per_sample)
        self._up = Transcoder(options.input, options.upstream_input)
        self._down = Transcoder(options.upstream_output, options.output)
        self.to_upstream = self._up.feed
        """The client's audio in the upstream's format; untouched where they agree (`passes_up`)."""
        self.to_client = self._down.feed
        """The upstream's audio in the client's format; untouched where they agree (`passes_down`)."""
        self.passes_up = self._up.is_identity
        self.passes_down = self._down.is_identity

    def decode_audio(self, frame: Chunk) -> ev.Forwarded | None:
        """A binary message as an event, in whole samples; None when it only completes none."""
        samples = self.aligner.feed(frame)
        n_bytes = len(samples)
        return forwarded(("input_audio", "", n_bytes, samples, "", 0)) if n_bytes else None

    def decode_text(self, frame: Chunk) -> ev.ClientEvent:
        """A text message as an event; whatever makes no sense is a `ClientFault` that names the field and the fix."""
        try:
            obj = orjson.loads(frame)
        except orjson.JSONDecodeError as error:
            return ev.ClientFault("bad_json", f"That is not JSON: {error}")
        if not isinstance(obj, dict) or not isinstance(obj.get("type"), str):
            return ev.ClientFault("bad_message", 'A message is a JSON object with a "type".', "type")
        reader = _READERS.get(obj["type"])
        if reader is None:
            known = ", ".join(_READERS)
            return ev.ClientFault(
                "unknown_type", f"There is no message {obj['type']!r:.80}; known are: {known}.", "type"
            )
        try:
            return reader(obj)
        except MessageError as error:
            return error.fault

    def end_item(self) -> bytes:
        """What the filter towards the client still holds of an item; the next one starts afresh."""
        return self._down.flush()

    def drop_item(self) -> None:
        """Forget what the filter towards the client holds: the item was cut."""
        self._down.reset()

    def encode_text(self, text: str) -> bytes:
        """More of the assistant's words as one text message."""
        return orjson.dumps({"type": "textDelta", "text": text})

    def encode(self, message: cmd.ClientMessage | cmd.PlayStart | cmd.PlayEnd) -> bytes:
        """A message to the client as one text message."""
        if type(message) is cmd.TellText:  # several a second: not through the long list
            return self.encode_text(message.text)
        return orjson.dumps(_encode(message))


# -- decoding ---------------------------------------------------------------------------------------------------------


def _string(obj: Obj, field: str, max_chars: int) -> str:
    value = obj.get(field)
    if not isinstance(value, str) or not value.strip():
        raise MessageError(f"{field} must be a text that is not empty.", field)
    if len(value) > max_chars:
        raise MessageError(f"{field} may have at most {max_chars} characters.", field)
    return value


def _milliseconds(obj: Obj, field: str, limit: int) -> int:
    value = obj.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
        raise MessageError(f"{field} must be a number of ms from 0 to {limit}.", field)
    return int(value)


def parse_format(value: Any, field: str) -> AudioFormat:
    """An `input` or `output` object of the protocol. Raises `MessageError` naming the field."""
    if not isinstance(value, dict):
        raise MessageError(f'{field} must be an object such as {{"format":"pcm16","rate":24000}}.', field)
    encoding = value.get("format", "pcm16")
    rate_hz = value.get("rate", 8000 if encoding in ("pcmu", "pcma") else 16_000)
    try:
        return AudioFormat(encoding, rate_hz)
    except (ValueError, TypeError) as error:
        raise MessageError(f"{field}: {error}", field) from error


def _hello(obj: Obj) -> ev.Hello:
    if obj.get("v", PROTOCOL_VERSION) != PROTOCOL_VERSION:
        raise MessageError(f"This relay speaks version {PROTOCOL_VERSION} of the protocol.", "v", "hello_refused")
    for field in ("duplex", "tools", "resume"):
        if obj.get(field) not in (None, "full", [], False):
            raise MessageError(
                f"{field} is not supported by this version of the relay; leave it out.",
                field,
                "hello_refused",
            )
    given = [name for name in _HELLO_READERS if name in obj and (obj[name] is not None or name == "maxAheadMs")]
    values = {_snake(name): _HELLO_READERS[name](obj, name) for name in given}
    return ev.Hello(given=tuple(given), **values)


def _ahead(obj: Obj, field: str) -> int | None:
    return None if obj[field] is None else max(_milliseconds(obj, field, MAX_AHEAD_MS), MIN_AHEAD_MS)


def _turn(obj: Obj, field: str) -> str:
    if obj[field] not in get_args(TurnKind):
        raise MessageError(f"{field} must be one of {', '.join(get_args(TurnKind))}.", field)
    return str(obj[field])


def _flag(obj: Obj, field: str) -> bool:
    if not isinstance(obj.get(field), bool):
        raise MessageError(f"{field} must be true or false.", field)
    return bool(obj[field])


def _snake(name: str) -> str:
    return "max_ahead_ms" if name == "maxAheadMs" else name


_HELLO_READERS: dict[str, Callable[[Obj, str], Any]] = {
    "input": lambda obj, field: parse_format(obj[field], field),
    "output": lambda obj, field: parse_format(obj[field], field),
    "maxAheadMs": _ahead,
    "voice": lambda obj, field: _string(obj, field, 128),
    "instructions": lambda obj, field: _string(obj, field, MAX_TEXT_CHARS),
    "language": lambda obj, field: _string(obj, field, 64),
    "turn": _turn,
    "consent": lambda obj, field: _flag(obj, field),
}

_READERS: dict[str, Callable[[Obj], ev.ClientEvent]] = {
    "hello": _hello,
    "playback": lambda obj: ev.Playback(
        _string(obj, "itemId", MAX_ID_CHARS), _milliseconds(obj, "playedMs", MAX_POSITION_MS)
    ),
    "text": lambda obj: ev.UserText(_string(obj, "text", MAX_TEXT_CHARS)),
    "commit": lambda obj: ev.Commit(),
    "clear": lambda obj: ev.Clear(),
    "interrupt": lambda obj: ev.Interrupt(),
    "consent": lambda obj: ev.Consent(_flag(obj, "given")),
    "bye": lambda obj: ev.Bye(),
}


# -- encoding ---------------------------------------------------------------------------------------------------------


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
    return {
        "type": "latency",
        "itemId": message.item_id,
        "speechStoppedMs": message.speech_stopped_ms,
        "firstDeltaMs": message.first_delta_ms,
        "firstByteMs": message.first_byte_ms,
        "firstPlayedMs": message.first_played_ms,
        "totalMs": message.total_ms,
    }
