"""Lines as they are written again."""

from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from relay.recording.format.encode import encode_record
from relay.recording.format.records import (
    AudioEnvelope,
    EndRecord,
    EventRecord,
    GapRecord,
    InputAudioRecord,
    JournalRecord,
    OutputAudioRecord,
    SentAudioRecord,
    TtsAudioRecord,
)
from relay.recording.format.serialize import to_json
from relay.recording.format.write import FORWARDED
from relay.recording.redact.rewriter import RedactedCopy
from relay.recording.redact.rules import parse_redaction
from relay.recording.store.header import RealtimeSetup, RecordingHeader, SessionSetup
from relay.recording.store.layout import HEADER_FILE, JOURNAL_FILE
from relay.recording.store.reader import Recording, decode_line
from relay.session.common.model import Alignment, DeviceOptions, SessionConfig
from relay.session.common.policy import Principal
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime.events import RealtimeClientEvent, RealtimeServerEvent

SAID = {"type": "input_audio_buffer.append", "note": "x"}
DOWN = b'{"type":"brand.new", "n": 1e3}'
TOLD = to_json(cmd.SendTextDelta("It is"))
DELTA = ev.TextDelta("resp_1", "item_a", 0, "It is", True)


@pytest.mark.parametrize(
    "line",
    [
        EventRecord(1.5, ev.Commit(), (to_json(cmd.CommitInput("relay_1")),)),
        EventRecord(1.5, ev.Commit(), None, "ValueError: x"),
        EventRecord(1.5, DELTA, (TOLD,)),
        EventRecord(1.5, DELTA, (to_json(cmd.SendResponseStart()), TOLD)),
        EventRecord(1.5, RealtimeClientEvent({"type": "response.create"}), (FORWARDED,)),
        EventRecord(1.5, RealtimeClientEvent({"type": "response.create"}), ()),
        EventRecord(1.5, RealtimeServerEvent(DOWN, {}), (FORWARDED,)),
        EventRecord(1.5, RealtimeServerEvent(DOWN, orjson.loads(DOWN)), ()),
        InputAudioRecord(1.5, 640),
        InputAudioRecord(1.5, 640, AudioEnvelope('{"event_id":"e","audio":"', '"}')),
        OutputAudioRecord(1.5, 640, "resp_1", "item_a", 1),
        OutputAudioRecord(1.5, 640, "resp_1", "item_a", 1, discarded=True),
        OutputAudioRecord(1.5, 640, envelope=AudioEnvelope('{"delta":"', '"}')),
        TtsAudioRecord(
            1.5, 640, "c", Alignment(("a",), (0,), (9,)), stored_commands=(to_json(cmd.SendAudioEnd("item_a", 0, 9)),)
        ),
        TtsAudioRecord(1.5, 640, "c", discarded=True),
        SentAudioRecord(1.5, 640, 77, is_stored=True),
        GapRecord(3, 1.0, 1.5),
        EndRecord(1.5, "closed"),
    ],
    ids=str,
)
def test_a_line_is_read_as_it_was_written(line: JournalRecord) -> None:
    assert decode_line(encode_record(line), 2) == [line]


def test_a_clients_audio_stands_in_its_file_alone() -> None:
    event = RealtimeClientEvent({**SAID, "audio": "AAAA"})
    raw = encode_record(EventRecord(1.5, event, (FORWARDED,), None, 3))
    assert orjson.loads(raw) == {"now": 1.5, "in": 3, "said": SAID}


def test_a_silenced_span_takes_audio_that_stands_in_its_event(tmp_path: Path) -> None:
    setup = SessionSetup("rs_1", SessionConfig(), DeviceOptions(), Principal("key"), 1.0, realtime=RealtimeSetup())
    folder = tmp_path / "recording"
    folder.mkdir()
    (folder / HEADER_FILE).write_bytes(RecordingHeader(setup, datetime(2026, 12, 1, tzinfo=UTC)).to_json())
    append = RealtimeClientEvent(
        {"type": "input_audio_buffer.append", "audio": "AAAA AAAA"}
    )  # no base64 that is cut out
    lines: list[JournalRecord] = [
        EventRecord(1.5, append, (FORWARDED,)),
        EventRecord(9.5, append, (FORWARDED,)),
        EndRecord(9.5, "closed"),
    ]
    (folder / JOURNAL_FILE).write_bytes(b"".join(map(encode_record, lines)))
    (tmp_path / "copy").mkdir()
    RedactedCopy(Recording(folder), tmp_path / "copy", parse_redaction((), (), ["0-1"]), None).write()
    lines = [orjson.loads(line) for line in (tmp_path / "copy" / JOURNAL_FILE).read_bytes().splitlines()]
    assert [line["up"]["audio"] for line in lines[:2]] == ["", "AAAA AAAA"]
