"""Lines that no session of the recording's kind has: each is refused with its number, whatever reads it."""

from pathlib import Path

import pytest

from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.replay.verify import verify
from relay.recording.store.header import RealtimeSetup, RecordingHeader, SessionSetup
from relay.recording.store.layout import RecordingError
from relay.recording.store.reader import Recording
from relay.recording.store.writer import RecordingFiles, WriteBatch
from relay.session.common.policy import Principal
from tests.support.scripted_recordings import STARTED, STARTED_AT_S, make_recording

REALTIME = SessionSetup.for_realtime("rs_1", (), RealtimeSetup(), Principal(), STARTED_AT_S)


def recording_of(root: Path, kind: str, line: str) -> Recording:
    journal = f'{{"now":{STARTED_AT_S},{line}}}\n{{"now":{STARTED_AT_S},"end":"closed"}}\n'.encode()
    if kind == "device":
        return Recording(make_recording(root, change=lambda _: journal))
    files = RecordingFiles(root / "20261120T101530Z-rs_1", RecordingHeader(REALTIME, STARTED).to_json())
    files.write_batch(WriteBatch((b"ABCD",) * 4, journal, 2, STARTED_AT_S, STARTED_AT_S))
    files.close()
    return Recording(files.folder)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("device", '"in":4,"head":"","tail":""'),
        ("device", '"in":4,"said":{"type":"input_audio_buffer.append"}'),
        ("device", '"out":4,"head":"","tail":""'),
        ("device", '"up":{"type":"response.create"}'),
        ("device", '"down":"{}"'),
        ("device", '"down":"{}","read":true'),
        ("realtime", '"out":4,"item":"item_1","response":"resp_1","part":0'),
        ("realtime", '"out":4,"item":"item_1","response":"resp_1","part":0,"discarded":true'),
        ("realtime", '"voice":4,"context":"c"'),
        ("realtime", '"voice":4,"context":"c","discarded":true'),
        ("realtime", '"sent":4,"crc":1,"kept":true'),
    ],
)
def test_a_line_of_another_kind_of_session_is_refused(kind: str, line: str, tmp_path: Path) -> None:
    recording = recording_of(tmp_path, kind, line)
    for read in (verify, build_timeline):
        with pytest.raises(RecordingError, match=r"journal.jsonl line 1: a .*'s session cannot have this record"):
            read(recording)
