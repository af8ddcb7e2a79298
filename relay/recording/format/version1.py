"""Decode journals of format 1 into the records of format 2.

In format 1 audio was an event, `Forwarded`, which the rules returned as a command. In format 2 it is a record of its
own. The other commands of that event become those of an `OutputAudioStarted` before it. The names of format 1 are
frozen in `format1_names.json`: that table does not follow the code.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Any, Final

import orjson

from relay.json_types import JsonObject
from relay.recording.format import version2
from relay.recording.format.records import (
    EventRecord,
    InputAudioRecord,
    JournalRecord,
    OutputAudioRecord,
    TtsAudioRecord,
)
from relay.recording.format.serialize import Schema, to_json
from relay.recording.format.tags import COMMANDS, EVENTS, VALUES, StoredType
from relay.recording.format.version2 import decode_event_record, get_int, get_stored_commands, get_strings
from relay.recording.format.write import FORWARDED
from relay.session.device import events as ev

_NAMES: Final[dict[str, Any]] = orjson.loads(files(__package__).joinpath("format1_names.json").read_bytes())
CLASSES: Final[Mapping[str, str]] = _NAMES["classes"]
"""By the tag of format 2, the class name that format 1 stored."""
FIELDS: Final[Mapping[str, Mapping[str, str]]] = _NAMES["fields"]
"""By tag, the fields that had another name in format 1."""
_AUDIO: Final = "Forwarded"
_AS_IN_FORMAT_2: Final = frozenset({"in", "out", "voice", "words", "up", "down"})
_DELTA: Final = "response.output_audio.delta"


def format_1_type(row: StoredType) -> StoredType:
    """Create a row of the table with the names of format 1."""
    old_names = FIELDS.get(row.tag, {})
    fields = {name: old_names.get(stored, stored) for name, stored in row.fields.items()}
    return StoredType(row.python_type, CLASSES.get(row.tag, row.tag), fields)


FORMAT_1: Final = Schema(
    [format_1_type(row) for row in (*EVENTS, *COMMANDS) if row.tag in CLASSES], map(format_1_type, VALUES)
)


def decode_record(line: JsonObject, now: float) -> list[JournalRecord]:
    """Decode an event or audio as one or two records. Raises ValueError that names the wrong member."""
    if "event" in line:
        return _decode_event(line, now)
    if not line.keys() & _AS_IN_FORMAT_2:
        raise ValueError("the line must have one of event, in, out, voice, words, sent, gap, end")
    record = version2.decode_record(line, now)
    match record:
        case EventRecord() if "words" not in line:
            return [_convert_record(record)]
        case InputAudioRecord():
            return [*_decode_other_commands(line, now, ev.DeadlineReached()), record]
        case OutputAudioRecord():
            part = record.response_id, record.item_id, record.content_index
            event = ev.OutputAudioStarted(*part) if record.envelope is None else ev.DeadlineReached()
            return [
                *_decode_other_commands(line, now, event),
                replace(record, discarded=get_stored_commands(line, (FORWARDED,)) == ()),
            ]
        case TtsAudioRecord():
            return _convert_tts_audio(record)
    return [record]


def _decode_other_commands(line: JsonObject, now: float, event: ev.Event) -> list[JournalRecord]:
    """Return the commands of an audio event other than forwarding it, as a record of `event`."""
    if line.get("raised") is not None:
        return [decode_event_record(line, now, event)]
    commands = _convert_commands(get_stored_commands(line, ()))
    return [EventRecord(now, event, commands)] if commands else []


def _convert_tts_audio(record: TtsAudioRecord) -> list[JournalRecord]:
    commands, is_accepted = _convert_commands(record.stored_commands), any(map(_is_audio, record.stored_commands))
    if is_accepted or not commands:
        return [replace(record, discarded=not is_accepted, stored_commands=commands)]
    event = ev.TtsAudio(record.context_id, record.n_bytes, record.alignment)
    return [replace(record, discarded=True, stored_commands=()), EventRecord(record.time_s, event, commands)]


def _decode_event(line: JsonObject, now: float) -> list[JournalRecord]:
    obj = line["event"]
    name = obj.get("t") if isinstance(obj, Mapping) else None
    if name == _AUDIO:  # its audio was not canonical base64, or the rules raised
        return _decode_other_commands(line, now, _decode_audio_event(obj))
    if name == CLASSES["voice_audio"]:
        obj = {member: value for member, value in obj.items() if member != "raw"}
    return [_convert_record(decode_event_record(line, now, FORMAT_1.from_json(obj)))]


def _decode_audio_event(obj: Mapping[str, Any]) -> ev.Event:
    if obj.get("kind") != "output_audio":
        return ev.DeadlineReached()
    item_id, response_id = get_strings(obj, "item_id", "response_id")
    return ev.OutputAudioStarted(response_id, item_id, get_int(obj, "content_index"))


def _convert_record(record: EventRecord) -> EventRecord:
    if record.stored_commands is None:
        return record
    return replace(record, stored_commands=_convert_commands(record.stored_commands, keep_forwarded=True))


def _convert_commands(stored: tuple[Any, ...], *, keep_forwarded: bool = False) -> tuple[Any, ...]:
    """Convert commands to format 2, without audio and delayed events; `keep_forwarded`: with "="."""
    commands: list[Any] = []
    for command in stored:
        if command == FORWARDED:
            commands += [command] if keep_forwarded else []
        elif not _is_audio(command) and command.get("t") != CLASSES["forward_to_client"]:
            commands.append(to_json(FORMAT_1.from_json(command)))
    return tuple(commands)


def _is_audio(command: Any) -> bool:
    """Return whether a command forwarded audio, unchanged or in a rewritten event."""
    if command == FORWARDED:
        return True
    body = command.get("body")
    is_delta = isinstance(body, Mapping) and body.get("type") == _DELTA
    return command.get("t") == _AUDIO or (is_delta and command.get("t") == CLASSES["send_to_client"])
