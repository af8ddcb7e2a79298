"""Events of the Realtime protocol as journal lines: audio is cut out of them, and put back when they are read."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import pybase64

from audio.framing import BytesLike
from relay.json_types import JsonObject
from relay.recording.format.records import APPEND_PREFIX, APPEND_SUFFIX, AudioEnvelope
from relay.session.common.redact import redact, redact_value
from relay.session.realtime.events import RealtimeClientEvent, RealtimeServerEvent

APPEND_TYPE: Final = "input_audio_buffer.append"
_PREFIX, _SUFFIX = APPEND_PREFIX.encode(), APPEND_SUFFIX.encode()
_AUDIO = re.compile(rb'"audio"[ \t\r\n]*:[ \t\r\n]*"([A-Za-z0-9+/]*={0,2})"')
_DELTA = re.compile(rb'"delta"[ \t\r\n]*:[ \t\r\n]*"([A-Za-z0-9+/]*={0,2})"')

MAX_NESTING: Final = 300
"""No recorded event is nested deeper: orjson encodes 254 levels. Code that reads one may recurse."""

# -- writing ----------------------------------------------------------------------------------------------------------


def encode_event(event: RealtimeClientEvent | RealtimeServerEvent) -> tuple[JsonObject, bytes]:
    """Return the members of an event's line, and the client's audio in it, if any."""
    if isinstance(event, RealtimeServerEvent):
        read: JsonObject = {"read": True} if event.body else {}
        return {"down": bytes(event.raw).decode(errors="replace"), **read}, b""
    audio = event.body.get("audio")
    if event.body.get("type") == APPEND_TYPE and isinstance(audio, str):
        samples = _decode_samples(audio.encode(errors="replace"))
        if samples is not None:
            rest = {name: member for name, member in event.body.items() if name != "audio"}
            return {"in": len(samples), "said": rest}, samples
    return {"up": event.body}, b""


def split_append(raw: bytes) -> tuple[JsonObject, bytes]:
    """Split an append into envelope (empty for the usual one) and audio. Raises ValueError if there is none."""
    if raw.startswith(_PREFIX) and raw.endswith(_SUFFIX):
        return {}, pybase64.b64decode(raw[len(_PREFIX) : -len(_SUFFIX)], validate=True)
    return _split(raw, *_find_span(_AUDIO, raw))


def split_delta(raw: bytes, start: int) -> tuple[JsonObject, bytes]:
    """Split a delta into envelope and audio, which begins at `start` (-1: unknown). Raises ValueError."""
    if start >= 0:
        return _split(raw, start, raw.index(b'"', start))
    return _split(raw, *_find_span(_DELTA, raw))


def redact_members(line: JsonObject) -> JsonObject:
    """Redact the members of a line that hold Realtime events."""
    return {name: _REDACTORS[name](member) if name in _REDACTORS else member for name, member in line.items()}


def redact_event_text(text: str) -> str:
    """Redact an event that is stored as text."""
    try:
        body = check_nesting(orjson.loads(text))
    except ValueError:
        return redact(text, len(text))
    redacted = redact_value(body)
    return text if redacted == body else orjson.dumps(redacted).decode()


def _find_span(pattern: re.Pattern[bytes], raw: bytes) -> tuple[int, int]:
    match = pattern.search(raw)
    if match is None:
        raise ValueError("the event has no audio")
    return match.span(1)


def _split(raw: bytes, start: int, end: int) -> tuple[JsonObject, bytes]:
    samples = pybase64.b64decode(raw[start:end], validate=True)
    return {"head": raw[:start].decode(), "tail": raw[end:].decode()}, samples


def _decode_samples(base64_text: bytes) -> bytes | None:
    """Decode base64; None if it is empty, invalid or not canonical: it could not be restored exactly."""
    try:
        samples = pybase64.b64decode(base64_text, validate=True)
    except ValueError:
        return None
    return samples if samples and pybase64.b64encode(samples) == base64_text else None


def _redact_text(text: str) -> str:
    return redact(text, len(text))


_REDACTORS: Mapping[str, Callable[[Any], Any]] = {
    "up": redact_value, "said": redact_value, "down": redact_event_text, "head": _redact_text, "tail": _redact_text
}  # fmt: skip

# -- reading ----------------------------------------------------------------------------------------------------------


def restore_audio(event: RealtimeClientEvent, samples: BytesLike) -> RealtimeClientEvent:
    """Put audio back into an event of a client."""
    return RealtimeClientEvent({**event.body, "audio": pybase64.b64encode_as_string(samples)})


def join_audio(envelope: AudioEnvelope, samples: BytesLike) -> bytes:
    """Put audio back into its envelope."""
    return b"".join((envelope.prefix.encode(), pybase64.b64encode(samples), envelope.suffix.encode()))


def parse_event(raw: bytes) -> Mapping[str, Any]:
    """Parse an event. Raises ValueError."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the event is not JSON: {error}") from None
    check_nesting(body)
    if not isinstance(body, dict):
        raise ValueError("the event is not a JSON object")
    return body


def check_nesting(value: Any) -> Any:
    """Return a parsed value. Raises ValueError if it is nested deeper than `MAX_NESTING`."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_NESTING):
        children = [node.values() if isinstance(node, dict) else node for node in level]
        level = [child for siblings in children for child in siblings if isinstance(child, dict | list)]
        if not level:
            return value
    raise ValueError("the JSON is nested too deeply")
