"""Decode the lines of format 2 that hold events and audio; `docs/recording-format.md` is their table."""

from collections.abc import Callable, Mapping
from typing import Any

from relay.json_types import JsonObject
from relay.recording.format.realtime import parse_event
from relay.recording.format.records import (
    AudioEnvelope,
    EventRecord,
    InputAudioRecord,
    JournalRecord,
    OutputAudioRecord,
    TtsAudioRecord,
)
from relay.recording.format.serialize import decode_value, from_json, to_json
from relay.recording.format.write import FORWARDED
from relay.session.common.model import Alignment
from relay.session.device.commands import SendTextDelta
from relay.session.device.events import TextDelta
from relay.session.realtime.events import RealtimeClientEvent, RealtimeServerEvent


def decode_record(line: JsonObject, now: float) -> JournalRecord:
    """Decode an event or audio. Raises ValueError that names the wrong member."""
    for name, decode in _DECODERS.items():
        if name in line:
            return decode(line, now)
    raise ValueError(f"the line must have one of {', '.join(_DECODERS)}, sent, gap, end")


def _decode_upstream_event(line: JsonObject, now: float) -> JournalRecord:
    raw = get_strings(line, "down")[0].encode()
    return decode_event_record(
        line, now, RealtimeServerEvent(raw, parse_event(raw) if line.get("read") is True else {}), (FORWARDED,)
    )


def _decode_output(line: JsonObject, now: float) -> JournalRecord:
    envelope, discarded = _decode_envelope(line), line.get("discarded") is True
    if envelope is not None:
        return OutputAudioRecord(now, get_int(line, "out"), discarded=discarded, envelope=envelope)
    n_bytes, (item_id, response_id) = get_int(line, "out"), get_strings(line, "item", "response")
    return OutputAudioRecord(now, n_bytes, response_id, item_id, get_int(line, "part"), discarded)


def _decode_tts_audio(line: JsonObject, now: float) -> JournalRecord:
    n_bytes, (context_id,) = get_int(line, "voice"), get_strings(line, "context")
    return TtsAudioRecord(
        now, n_bytes, context_id, _decode_alignment(line), line.get("discarded") is True, get_stored_commands(line, ())
    )


def _decode_text(line: JsonObject, now: float) -> JournalRecord:
    """Decode the short form of a text delta whose only command sent it to the client."""
    text, item_id, response_id = get_strings(line, "words", "item", "response")
    event = TextDelta(response_id, item_id, get_int(line, "part"), text, line.get("spoken") is True)
    return EventRecord(now, event, (to_json(SendTextDelta(text)),))


_DECODERS: Mapping[str, Callable[[JsonObject, float], JournalRecord]] = {
    "event": lambda line, now: decode_event_record(line, now, from_json(line["event"])),
    # a client's event without its audio
    "said": lambda line, now: decode_event_record(
        line, now, RealtimeClientEvent(_get_object(line, "said")), (FORWARDED,), get_int(line, "in")
    ),
    "up": lambda line, now: decode_event_record(line, now, RealtimeClientEvent(_get_object(line, "up")), (FORWARDED,)),
    "down": _decode_upstream_event,
    "in": lambda line, now: InputAudioRecord(now, get_int(line, "in"), _decode_envelope(line)),
    "out": _decode_output,
    "voice": _decode_tts_audio,
    "words": _decode_text,
}

# -- members ----------------------------------------------------------------------------------------------------------


def decode_event_record(
    line: JsonObject, now: float, event: Any, default_commands: tuple[Any, ...] = (), n_audio_bytes: int = 0
) -> EventRecord:
    """Return the record of an event; a line without `do` has `default_commands`."""
    raised = line.get("raised")
    if raised is not None:
        return EventRecord(now, event, None, str(raised), n_audio_bytes)
    return EventRecord(now, event, get_stored_commands(line, default_commands), None, n_audio_bytes)


def get_stored_commands(line: JsonObject, default_commands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the commands in `do`, as stored."""
    commands = line.get("do", default_commands)
    is_list = isinstance(commands, list | tuple)
    if not is_list or not all(command == FORWARDED or isinstance(command, dict) for command in commands):
        raise ValueError('do must be a list; each entry is a command or "="')
    return tuple(commands)


def get_strings(line: Mapping[str, Any], *names: str) -> list[str]:
    """Return members that must be strings. Raises ValueError."""
    values = [line.get(name) for name in names]
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{', '.join(names)} must be {'strings' if len(names) > 1 else 'a string'}")
    return values  # type: ignore[return-value]


def get_int(line: Mapping[str, Any], name: str) -> int:
    """Return a member that must be a whole number from 0. Raises ValueError."""
    value = line.get(name)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} must be a whole number from 0, not {value!r:.40}")
    return value


def get_time_s(line: Mapping[str, Any], name: str) -> float:
    """Return a member that must be a time in seconds. Raises ValueError."""
    value: Any = line.get(name)
    if type(value) not in (int, float) or not -1e12 < value < 1e12:
        raise ValueError(f"{name} must be a time in seconds, not {value!r:.40}")
    return float(value)


def _get_object(line: JsonObject, name: str) -> Mapping[str, Any]:
    value = line[name]
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an event, not {value!r:.40}")
    return value


def _decode_envelope(line: JsonObject) -> AudioEnvelope | None:
    if "head" not in line:
        return None
    head, tail = get_strings(line, "head", "tail")
    return AudioEnvelope(head, tail)


def _decode_alignment(line: JsonObject) -> Alignment | None:
    if "chars" not in line:
        return None
    obj = {"chars": line["chars"], "starts_ms": line.get("starts"), "durations_ms": line.get("lengths")}
    return decode_value(Alignment, obj)
