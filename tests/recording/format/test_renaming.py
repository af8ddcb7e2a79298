"""Classes and fields may be renamed: recordings hold the stored names, and only a row of the table follows Python."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from relay.recording.format import version1, version2
from relay.recording.format.records import EventRecord
from relay.recording.format.serialize import Schema
from relay.recording.format.tags import COMMANDS, EVENTS, VALUES, StoredType
from relay.recording.store import reader
from relay.recording.store.layout import JOURNAL_FILE
from relay.recording.store.reader import Recording, decode_commands
from relay.session.device.commands import SendSpeechState
from relay.session.device.events import SpeechStarted

GOLDEN = Path(__file__).parents[3] / "recordings" / "golden"


class UserBeganToSpeak(NamedTuple):
    """`SpeechStarted` by other names."""

    turn_id: str
    began_ms: int = 0


@dataclass(frozen=True, slots=True)
class SendVoiceActivity:
    """`SendSpeechState` by other names."""

    has_begun: bool


RENAMED = {
    SpeechStarted: (UserBeganToSpeak, {"turn_id": "item_id", "began_ms": "audio_start_ms"}),
    SendSpeechState: (SendVoiceActivity, {"has_begun": "started"}),
}


def renamed(row: StoredType) -> StoredType:
    kind, fields = RENAMED.get(row.python_type, (row.python_type, row.fields))
    return StoredType(kind, row.tag, fields)


ROWS = [renamed(row) for row in (*EVENTS, *COMMANDS)]
FORMAT_1 = Schema(
    [version1.format_1_type(row) for row in ROWS if row.tag in version1.CLASSES],
    map(version1.format_1_type, VALUES),
)
FORMAT_2 = Schema(ROWS, VALUES)


@pytest.mark.parametrize("name", ["barge-in-pcmu", "format-1-two-tools-pcmu"])
def test_a_golden_recording_is_read_by_classes_and_fields_of_other_names(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version1, "FORMAT_1", FORMAT_1)
    monkeypatch.setattr(version1, "to_json", FORMAT_2.to_json)
    monkeypatch.setattr(version2, "from_json", FORMAT_2.from_json)
    monkeypatch.setattr(reader, "from_json", FORMAT_2.from_json)
    recording = Recording(GOLDEN / name)
    happened = [entry for entry in recording.entries() if isinstance(entry.record, EventRecord)]
    began = [entry for entry in happened if isinstance(entry.record.event, UserBeganToSpeak)]
    assert began
    assert all(SendVoiceActivity(has_begun=True) in decode_commands(recording, entry) for entry in began)
    assert all(entry.record.event.turn_id.startswith("item_") for entry in began)


def test_what_is_written_by_other_names_is_stored_as_before() -> None:
    stored = [orjson.loads(raw) for raw in (GOLDEN / "barge-in-pcmu" / JOURNAL_FILE).read_bytes().splitlines()]
    events = [line["event"] for line in stored if line.get("event", {}).get("t") == "speech_started"]
    assert events
    assert [FORMAT_2.to_json(FORMAT_2.from_json(event)) for event in events] == events
