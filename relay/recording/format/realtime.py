"""A Realtime client's events as lines: events of both ends as they came, audio cut out of them and put back."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import pybase64

from audio.framing import BytesLike
from relay.json_types import JsonObject
from relay.recording.format.lines import APPEND_PREFIX, APPEND_SUFFIX, AudioEnvelope
from relay.session.common.redact import redact, redact_value
from relay.session.realtime.events import RealtimeClientEvent, RealtimeServerEvent

APPEND_TYPE: Final = "input_audio_buffer.append"
_PREFIX, _SUFFIX = APPEND_PREFIX.encode(), APPEND_SUFFIX.encode()
_AUDIO = re.compile(rb'"audio"[ \t\r\n]*:[ \t\r\n]*"([A-Za-z0-9+/]*={0,2})"')
_DELTA = re.compile(rb'"delta"[ \t\r\n]*:[ \t\r\n]*"([A-Za-z0-9+/]*={0,2})"')

MAX_NESTING: Final = 300
"""No event that was recorded is nested deeper: orjson writes 254 levels. What reads one calls itself for each."""

# -- writing ----------------------------------------------------------------------------------------------------------


def event_members(event: RealtimeClientEvent | RealtimeServerEvent) -> tuple[JsonObject, bytes]:
    """The members of an event's line, and the client's audio in it."""
    if isinstance(event, RealtimeServerEvent):
        read: JsonObject = {"read": True} if event.body else {}
        return {"down": bytes(event.raw).decode(errors="replace"), **read}, b""
    audio = event.body.get("audio")
    if event.body.get("type") == APPEND_TYPE and isinstance(audio, str):
        samples = _samples(audio.encode(errors="replace"))
        if samples is not None:
            rest = {name: member for name, member in event.body.items() if name != "audio"}
            return {"in": len(samples), "said": rest}, samples
    return {"up": event.body}, b""


def split_append(raw: bytes) -> tuple[JsonObject, bytes]:
    """What is unusual around the audio of an append, and the audio. Raises ValueError if there is none in base64."""
    if raw.startswith(_PREFIX) and raw.endswith(_SUFFIX):
        return {}, pybase64.b64decode(raw[len(_PREFIX) : -len(_SUFFIX)], validate=True)
    return _cut(raw, *_found(_AUDIO, raw))


def split_delta(raw: bytes, start: int) -> tuple[JsonObject, bytes]:
    """What is around the audio of a delta, which begins at `start` (-1: unknown), and the audio. Raises ValueError."""
    if start >= 0:
        return _cut(raw, start, raw.index(b'"', start))
    return _cut(raw, *_found(_DELTA, raw))


def redact_members(line: JsonObject) -> JsonObject:
    """A line whose members of this module have nothing in them that looks like a credential."""
    return {name: _CLEANERS[name](member) if name in _CLEANERS else member for name, member in line.items()}


def redact_event_text(text: str) -> str:
    """An event as text, without anything that looks like a credential."""
    try:
        body = check_nesting(orjson.loads(text))
    except ValueError:
        return redact(text, len(text))
    cleaned = redact_value(body)
    return text if cleaned == body else orjson.dumps(cleaned).decode()


def _found(audio: re.Pattern[bytes], raw: bytes) -> tuple[int, int]:
    found = audio.search(raw)
    if found is None:
        raise ValueError("the event has no audio")
    return found.span(1)


def _cut(raw: bytes, start: int, end: int) -> tuple[JsonObject, bytes]:
    samples = pybase64.b64decode(raw[start:end], validate=True)
    return {"head": raw[:start].decode(), "tail": raw[end:].decode()}, samples


def _samples(base64_text: bytes) -> bytes | None:
    """The audio in base64; None if there is none, or if encoding it again would not give the same text."""
    try:
        samples = pybase64.b64decode(base64_text, validate=True)
    except ValueError:
        return None
    return samples if samples and pybase64.b64encode(samples) == base64_text else None


def _clean_text(text: str) -> str:
    return redact(text, len(text))


_CLEANERS: Mapping[str, Callable[[Any], Any]] = {
    "up": redact_value, "said": redact_value, "down": redact_event_text, "head": _clean_text, "tail": _clean_text
}  # fmt: skip

# -- reading ----------------------------------------------------------------------------------------------------------


def with_audio(event: RealtimeClientEvent, samples: BytesLike) -> RealtimeClientEvent:
    """A client's event with its audio in it."""
    return RealtimeClientEvent({**event.body, "audio": pybase64.b64encode_as_string(samples)})


def join_audio(envelope: AudioEnvelope, samples: BytesLike) -> bytes:
    """The whole event around audio."""
    return b"".join((envelope.prefix.encode(), pybase64.b64encode(samples), envelope.suffix.encode()))


def parse_event(raw: bytes) -> Mapping[str, Any]:
    """The event in a frame. Raises ValueError."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the event in it is not JSON: {error}") from None
    check_nesting(body)
    if not isinstance(body, dict):
        raise ValueError("the event in it is no object")
    return body


def check_nesting(value: Any) -> Any:
    """The value of a JSON text. Raises ValueError if it is nested deeper than anything that was recorded."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_NESTING):
        members = [one.values() if isinstance(one, dict) else one for one in level]
        level = [member for of_one in members for member in of_one if isinstance(member, dict | list)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")
