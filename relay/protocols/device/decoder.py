"""Decodes JSON messages from a device client to events; an error names the field and the fix.

`decode` checks a message's size before it parses it. The decoder for its `type` then reads the members that it knows.
Unknown members are ignored, so that newer clients work with older relays. Each value is checked for type, range and
length. The first invalid one raises `MessageError` with the code, the field and a sentence with the fix. It becomes the
`ClientProtocolError` that the rules answer with `error`.
"""

import re
from collections.abc import Callable
from typing import Any, get_args

import orjson

from audio.formats import AudioFormat
from audio.framing import BytesLike
from relay.json_types import JsonObject
from relay.protocols.json_limits import MAX_CLIENT_MEMBERS, has_too_many_members
from relay.session.common.model import ELEVENLABS_PREFIX, ToolSpec, TurnKind
from relay.session.device import events as ev

MAX_TOOLS = 32
MAX_DESCRIPTION_CHARS = 1024
MAX_SCHEMA_BYTES = 8 * 1024
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 100, 120_000

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
PROTOCOL_VERSION = 1
MAX_TEXT_CHARS = 32_768
MAX_ID_CHARS = 256
MAX_POSITION_MS = 86_400_000
MAX_AHEAD_MS = 600_000
MIN_AHEAD_MS = 100
"""Smaller values are raised to this: with a shorter lead, chunked audio would have gaps."""
_FIELD_NAMES = {"maxAheadMs": "max_ahead_ms", "duplex": "half_duplex"}


class MessageError(Exception):
    """An invalid message; becomes a `ClientProtocolError`."""

    def __init__(self, message: str, field: str | None = None, code: Any = "bad_message") -> None:
        super().__init__(message)
        self.event = ev.ClientProtocolError(code, message, field)


def parse_string(obj: JsonObject, field: str, max_chars: int) -> str:
    """Return a member that must be a non-empty string. Raises MessageError."""
    value = obj.get(field)
    if not isinstance(value, str) or not value.strip():
        raise MessageError(f"{field} must be a non-empty string.", field)
    if len(value) > max_chars:
        raise MessageError(f"{field} must have at most {max_chars} characters.", field)
    return value


def parse_tools(value: Any, field: str) -> tuple[ToolSpec, ...]:
    """Parse the `tools` of a hello: `[{name, description?, parameters?, timeoutMs?}]`. Raises MessageError."""
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        raise MessageError(f"{field} must be a list of at most {MAX_TOOLS} tools.", field)
    tools = tuple(_parse_tool(definition, f"{field}[{index}]") for index, definition in enumerate(value))
    names = [tool.name for tool in tools]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise MessageError(f"{field}: the tool name {duplicate} is used twice.", field)
    return tools


def _parse_tool(value: Any, field: str) -> ToolSpec:
    if not isinstance(value, dict):
        raise MessageError(f'{field} must be an object such as {{"name":"open_door"}}.', field)
    name = value.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise MessageError(f"{field}.name must be 1 to 64 letters, digits, _ or -.", f"{field}.name")
    description = value.get("description", "")
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION_CHARS:
        problem = f"{field}.description must be a string of at most {MAX_DESCRIPTION_CHARS} characters."
        raise MessageError(problem, f"{field}.description")
    timeout_ms = value.get("timeoutMs", ToolSpec("", "", {}).timeout_ms)
    if type(timeout_ms) is not int or not MIN_TIMEOUT_MS <= timeout_ms <= MAX_TIMEOUT_MS:
        problem = f"{field}.timeoutMs must be a number of ms from {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS}."
        raise MessageError(problem, f"{field}.timeoutMs")
    return ToolSpec(name, description, _parse_schema(value, field), timeout_ms=timeout_ms)


def _parse_schema(value: JsonObject, field: str) -> JsonObject:
    schema = value.get("parameters", {"type": "object", "properties": {}})
    try:
        n_bytes = len(orjson.dumps(schema))
    except orjson.JSONEncodeError:  # nested too deeply
        n_bytes = MAX_SCHEMA_BYTES + 1
    if not isinstance(schema, dict) or schema.get("type") != "object" or n_bytes > MAX_SCHEMA_BYTES:
        problem = f'{field}.parameters must be a JSON Schema with "type":"object", of at most {MAX_SCHEMA_BYTES} bytes.'
        raise MessageError(problem, f"{field}.parameters")
    return schema


def decode(frame: BytesLike) -> ev.ClientEvent:
    """Decode a text message; an invalid one becomes a `ClientProtocolError` that names the field and the fix."""
    if has_too_many_members(bytes(frame), MAX_CLIENT_MEMBERS):
        problem = f"A message must have at most {MAX_CLIENT_MEMBERS} members; split it."
        return ev.ClientProtocolError("bad_message", problem)
    try:
        obj = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        return ev.ClientProtocolError("bad_json", f"The message is not valid JSON: {error}")
    if not isinstance(obj, dict) or not isinstance(obj.get("type"), str):
        return ev.ClientProtocolError("bad_message", 'A message must be a JSON object with a "type".', "type")
    decoder = DECODERS.get(obj["type"])
    if decoder is None:
        problem = f"Unknown message type {obj['type']!r:.80}; known types are: {', '.join(DECODERS)}."
        return ev.ClientProtocolError("unknown_type", problem, "type")
    try:
        return decoder(obj)
    except MessageError as error:
        return error.event


def _get_milliseconds(obj: JsonObject, field: str, limit: int) -> int:
    value = obj.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
        raise MessageError(f"{field} must be a number of ms from 0 to {limit}.", field)
    return int(value)


def parse_format(value: Any, field: str) -> AudioFormat:
    """Parse an `input` or `output` object of the protocol. Raises MessageError."""
    if not isinstance(value, dict):
        raise MessageError(f'{field} must be an object such as {{"format":"pcm16","rate":24000}}.', field)
    encoding = value.get("format", "pcm16")
    rate_hz = value.get("rate", 8000 if encoding in ("pcmu", "pcma") else 16_000)
    try:
        return AudioFormat(encoding, rate_hz)
    except (ValueError, TypeError) as error:
        raise MessageError(f"{field}: {error}", field) from error


def _decode_hello(obj: JsonObject) -> ev.Hello:
    version = obj.get("v", PROTOCOL_VERSION)
    if version is True or version != PROTOCOL_VERSION:
        problem = f"Unsupported protocol version; this relay supports version {PROTOCOL_VERSION}."
        raise MessageError(problem, "v", "hello_refused")
    field_names = [name for name in _HELLO_DECODERS if name in obj and (obj[name] is not None or name == "maxAheadMs")]
    values = {_FIELD_NAMES.get(name, name): _HELLO_DECODERS[name](obj, name) for name in field_names}
    return ev.Hello(fields_set=tuple(field_names), **values)


def _decode_tool_result(obj: JsonObject) -> ev.ToolResult:
    call_id = parse_string(obj, "callId", MAX_ID_CHARS)
    if obj.get("error") is not None:
        return ev.ToolResult(call_id, parse_string(obj, "error", MAX_TEXT_CHARS), failed=True)
    if "output" not in obj:
        raise MessageError("output is missing; send any JSON value, or error with a message.", "output")
    output = obj["output"]
    try:
        return ev.ToolResult(call_id, output if isinstance(output, str) else orjson.dumps(output).decode())
    except orjson.JSONEncodeError as error:
        raise MessageError("output is nested too deeply.", "output") from error


def _get_max_ahead(obj: JsonObject, field: str) -> int | None:
    return None if obj[field] is None else max(_get_milliseconds(obj, field, MAX_AHEAD_MS), MIN_AHEAD_MS)


def _get_turn(obj: JsonObject, field: str) -> str:
    if obj[field] not in get_args(TurnKind):
        raise MessageError(f"{field} must be one of {', '.join(get_args(TurnKind))}.", field)
    return str(obj[field])


def _get_flag(obj: JsonObject, field: str) -> bool:
    if not isinstance(obj.get(field), bool):
        raise MessageError(f"{field} must be true or false.", field)
    return bool(obj[field])


def _get_voice(obj: JsonObject, field: str) -> str:
    voice = parse_string(obj, field, 128)
    if voice.startswith(ELEVENLABS_PREFIX) and not voice.removeprefix(ELEVENLABS_PREFIX).strip():
        raise MessageError(f"{field} must name an ElevenLabs voice after {ELEVENLABS_PREFIX}", field)
    return voice


def _get_duplex(obj: JsonObject, field: str) -> bool:
    if obj[field] not in ("full", "half"):
        raise MessageError(f"{field} must be full or half.", field)
    return bool(obj[field] == "half")


_HELLO_DECODERS: dict[str, Callable[[JsonObject, str], Any]] = {
    "input": lambda obj, field: parse_format(obj[field], field),
    "output": lambda obj, field: parse_format(obj[field], field),
    "maxAheadMs": _get_max_ahead,
    "voice": _get_voice,
    "instructions": lambda obj, field: parse_string(obj, field, MAX_TEXT_CHARS),
    "language": lambda obj, field: parse_string(obj, field, 64),
    "turn": _get_turn,
    "duplex": _get_duplex,
    "consent": _get_flag,
    "tools": lambda obj, field: parse_tools(obj[field], field),
}

DECODERS: dict[str, Callable[[JsonObject], ev.ClientEvent]] = {
    "hello": _decode_hello,
    "playback": lambda obj: ev.Playback(
        parse_string(obj, "itemId", MAX_ID_CHARS), _get_milliseconds(obj, "playedMs", MAX_POSITION_MS)
    ),
    "toolResult": _decode_tool_result,
    "text": lambda obj: ev.UserText(parse_string(obj, "text", MAX_TEXT_CHARS)),
    "commit": lambda obj: ev.Commit(),
    "clear": lambda obj: ev.Clear(),
    "interrupt": lambda obj: ev.Interrupt(),
    "consent": lambda obj: ev.Consent(_get_flag(obj, "granted")),
    "bye": lambda obj: ev.Bye(),
}
