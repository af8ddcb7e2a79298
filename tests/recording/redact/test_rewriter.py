"""Lines as they are written again."""

from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from relay.recording.format.lines import End, Frame, Gap, Happened, InputAudio, Line, OutputAudio, Sent, SpeechAudio
from relay.recording.format.serialize import to_json
from relay.recording.format.write import PASSED_ON
from relay.recording.redact.rewriter import RedactedCopy, rendered
from relay.recording.redact.rules import redaction
from relay.recording.store.header import Beginning, Header, RealtimeStart
from relay.recording.store.layout import HEADER, JOURNAL
from relay.recording.store.reader import Recording, read_line
from relay.session.common.model import Alignment, DeviceOptions, SessionConfig
from relay.session.common.policy import Principal
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime.events import ClientSaid, UpstreamSaid

SAID = {"type": "input_audio_buffer.append", "note": "x"}
DOWN = b'{"type":"brand.new", "n": 1e3}'
TOLD = to_json(cmd.SendTextDelta("It is"))
DELTA = ev.TextDelta("resp_1", "item_a", 0, "It is", True)


@pytest.mark.parametrize(
    "line",
    [
        Happened(1.5, ev.Commit(), (to_json(cmd.CommitInput("relay_1")),)),
        Happened(1.5, ev.Commit(), None, "ValueError: x"),
        Happened(1.5, DELTA, (TOLD,)),
        Happened(1.5, DELTA, (to_json(cmd.SendResponseStart()), TOLD)),
        Happened(1.5, ClientSaid({"type": "response.create"}), (PASSED_ON,)),
        Happened(1.5, ClientSaid({"type": "response.create"}), ()),
        Happened(1.5, UpstreamSaid(DOWN, {}), (PASSED_ON,)),
        Happened(1.5, UpstreamSaid(DOWN, orjson.loads(DOWN)), ()),
        InputAudio(1.5, 640),
        InputAudio(1.5, 640, Frame('{"event_id":"e","audio":"', '"}')),
        OutputAudio(1.5, 640, "resp_1", "item_a", 1),
        OutputAudio(1.5, 640, "resp_1", "item_a", 1, discarded=True),
        OutputAudio(1.5, 640, frame=Frame('{"delta":"', '"}')),
        SpeechAudio(1.5, 640, "c", Alignment(("a",), (0,), (9,)), do=(to_json(cmd.SendAudioEnd("item_a", 0, 9)),)),
        SpeechAudio(1.5, 640, "c", discarded=True),
        Sent(1.5, 640, 77, kept=True),
        Gap(3, 1.0, 1.5),
        End(1.5, "closed"),
    ],
    ids=str,
)
def test_a_line_is_read_as_it_was_written(line: Line) -> None:
    assert read_line(rendered(line), 2) == [line]


def test_a_clients_audio_stands_in_its_file_alone() -> None:
    event = ClientSaid({**SAID, "audio": "AAAA"})
    raw = rendered(Happened(1.5, event, (PASSED_ON,), None, 3))
    assert orjson.loads(raw) == {"now": 1.5, "in": 3, "said": SAID}


def test_a_silenced_span_takes_audio_that_stands_in_its_event(tmp_path: Path) -> None:
    beginning = Beginning("rs_1", SessionConfig(), DeviceOptions(), Principal("key"), 1.0, realtime=RealtimeStart())
    folder = tmp_path / "recording"
    folder.mkdir()
    (folder / HEADER).write_bytes(Header(beginning, datetime(2026, 12, 1, tzinfo=UTC)).to_json())
    append = ClientSaid({"type": "input_audio_buffer.append", "audio": "AAAA AAAA"})  # no base64 that is cut out
    lines: list[Line] = [Happened(1.5, append, (PASSED_ON,)), Happened(9.5, append, (PASSED_ON,)), End(9.5, "closed")]
    (folder / JOURNAL).write_bytes(b"".join(map(rendered, lines)))
    (tmp_path / "copy").mkdir()
    RedactedCopy(Recording(folder), tmp_path / "copy", redaction((), (), ["0-1"]), None).write()
    told = [orjson.loads(line) for line in (tmp_path / "copy" / JOURNAL).read_bytes().splitlines()]
    assert [line["up"]["audio"] for line in told[:2]] == ["", "AAAA AAAA"]
