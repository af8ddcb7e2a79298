"""Reads journals of format 1 into the lines of format 2.

In format 1 audio was an event, `Forwarded`, that the rules passed on as a command. Here it is a line of its own. All
else that the rules did at it becomes the commands of an `OutputAudioStarted` before it. Names are those of format 1's
classes and fields, frozen in `format1_names.json`: that table does not follow the code.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Any, Final

import orjson

from relay.json_types import JsonObject
from relay.recording.format import version2
from relay.recording.format.lines import EventRecord, InputAudioRecord, JournalRecord, OutputAudioRecord, TtsAudioRecord
from relay.recording.format.serialize import Schema, to_json
from relay.recording.format.tags import COMMANDS, EVENTS, VALUES, StoredType
from relay.recording.format.version2 import event_record, int_member, stored_commands, text_members
from relay.recording.format.write import FORWARDED
from relay.session.device import events as ev

_NAMES: Final[dict[str, Any]] = orjson.loads(files(__package__).joinpath("format1_names.json").read_bytes())
CLASSES: Final[Mapping[str, str]] = _NAMES["classes"]
"""The tags of format 2 and the names of format 1 for the same."""
FIELDS: Final[Mapping[str, Mapping[str, str]]] = _NAMES["fields"]
"""The fields that had another name in format 1, by tag."""
_AUDIO: Final = "Forwarded"
_AS_IN_FORMAT_2: Final = frozenset({"in", "out", "voice", "words", "up", "down"})
_DELTA: Final = "response.output_audio.delta"


def format_1_type(row: StoredType) -> StoredType:
    """A row of the table with the names that format 1 had."""
    former = FIELDS.get(row.tag, {})
    fields = {name: former.get(stored, stored) for name, stored in row.fields.items()}
    return StoredType(row.python_type, CLASSES.get(row.tag, row.tag), fields)


FORMAT_1: Final = Schema(
    [format_1_type(row) for row in (*EVENTS, *COMMANDS) if row.tag in CLASSES], map(format_1_type, VALUES)
)


def decode_record(line: JsonObject, now: float) -> list[JournalRecord]:
    """An event or audio, as one line or two of format 2. Raises ValueError naming what is wrong with it."""
    if "event" in line:
        return _event(line, now)
    if not line.keys() & _AS_IN_FORMAT_2:
        raise ValueError("there is none of event, in, out, voice, words, sent, gap, end in it")
    found = version2.decode_record(line, now)
    match found:
        case EventRecord() if "words" not in line:
            return [_converted(found)]
        case InputAudioRecord():
            return [*_besides(line, now, ev.DeadlineReached()), found]
        case OutputAudioRecord():
            part = found.response_id, found.item_id, found.content_index
            event = ev.OutputAudioStarted(*part) if found.envelope is None else ev.DeadlineReached()
            return [*_besides(line, now, event), replace(found, discarded=stored_commands(line, (FORWARDED,)) == ())]
        case TtsAudioRecord():
            return _speech(found)
    return [found]


def _besides(line: JsonObject, now: float, event: ev.Event) -> list[JournalRecord]:
    """What followed audio besides passing it on, as what followed `event`."""
    if line.get("raised") is not None:
        return [event_record(line, now, event)]
    do = _commands(stored_commands(line, ()))
    return [EventRecord(now, event, do)] if do else []


def _speech(audio: TtsAudioRecord) -> list[JournalRecord]:
    do, is_heard = _commands(audio.stored_commands), any(map(_is_audio, audio.stored_commands))
    if is_heard or not do:
        return [replace(audio, discarded=not is_heard, stored_commands=do)]
    event = ev.TtsAudio(audio.context_id, audio.n_bytes, audio.alignment)
    return [replace(audio, discarded=True, stored_commands=()), EventRecord(audio.time_s, event, do)]


def _event(line: JsonObject, now: float) -> list[JournalRecord]:
    obj = line["event"]
    name = obj.get("t") if isinstance(obj, Mapping) else None
    if name == _AUDIO:  # its audio was no usual base64, or our own code failed at it
        return _besides(line, now, _started(obj))
    if name == CLASSES["voice_audio"]:
        obj = {member: value for member, value in obj.items() if member != "raw"}
    return [_converted(event_record(line, now, FORMAT_1.from_json(obj)))]


def _started(obj: Mapping[str, Any]) -> ev.Event:
    if obj.get("kind") != "output_audio":
        return ev.DeadlineReached()
    item_id, response_id = text_members(obj, "item_id", "response_id")
    return ev.OutputAudioStarted(response_id, item_id, int_member(obj, "content_index"))


def _converted(line: EventRecord) -> EventRecord:
    return (
        line
        if line.stored_commands is None
        else replace(line, stored_commands=_commands(line.stored_commands, keep=True))
    )


def _commands(do: tuple[Any, ...], *, keep: bool = False) -> tuple[Any, ...]:
    """Commands as format 2 stores them, but for audio and events that were held back; `keep`: with "="."""
    commands: list[Any] = []
    for command in do:
        if command == FORWARDED:
            commands += [command] if keep else []
        elif not _is_audio(command) and command.get("t") != CLASSES["forward_to_client"]:
            commands.append(to_json(FORMAT_1.from_json(command)))
    return tuple(commands)


def _is_audio(command: Any) -> bool:
    """Whether a command passed audio on: as it came, or in an event with another number in it."""
    if command == FORWARDED:
        return True
    body = command.get("body")
    is_delta = isinstance(body, Mapping) and body.get("type") == _DELTA
    return command.get("t") == _AUDIO or (is_delta and command.get("t") == CLASSES["send_to_client"])
