"""Journal lines: every event and command is read back, and an invalid line is refused by name."""

import contextlib
import json
from typing import Any

import pybase64
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.recording.format.realtime import join_audio
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
from relay.recording.format.serialize import from_json, to_json
from relay.recording.format.tags import COMMANDS, EVENTS
from relay.recording.format.write import (
    encode_commands,
    end_line,
    event_line,
    event_object,
    gap_line,
    input_event_line,
    input_lines,
    output_event_line,
    output_line,
    redacted_line,
    sent_audio_line,
    text_line,
    tts_audio_line,
)
from relay.recording.store.reader import decode_line
from relay.session.common.media_types import RawDelta
from relay.session.common.model import Alignment
from relay.session.common.redact import redact_value
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime import events as rt
from tests.recording.format.test_serialize import any_of

LINED_EVENTS = [
    row.python_type for row in EVENTS if row.python_type not in (rt.RealtimeClientEvent, rt.RealtimeServerEvent)
]
"""Those two have lines of their own."""


def read(raw: bytes) -> JournalRecord:
    (line,) = decode_line(raw, 2)
    return line


@pytest.mark.parametrize("kind", LINED_EVENTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_every_event_comes_back_from_its_line(kind: type, data: st.DataObject) -> None:
    event = data.draw(any_of(kind))
    line = read(event_line(event, 12.25, ()))
    assert isinstance(line, EventRecord)
    assert (line.time_s, line.stored_commands) == (12.25, ())
    assert to_json(line.event) == json.loads(json.dumps(redact_value(to_json(event))))


@pytest.mark.parametrize("kind", [row.python_type for row in COMMANDS], ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_every_command_comes_back_from_do(kind: type, data: st.DataObject) -> None:
    command = data.draw(any_of(kind))
    line = read(event_line(ev.DeadlineReached(), 1.0, (command,)))
    assert isinstance(line, EventRecord)
    assert line.stored_commands is not None
    assert list(line.stored_commands) == json.loads(json.dumps(encode_commands(ev.DeadlineReached(), (command,))))
    assert to_json(from_json(line.stored_commands[0])) == line.stored_commands[0]


@given(now=st.floats(-1e11, 1e11, allow_nan=False), n=st.integers(0, 1 << 40))
def test_times_and_numbers_are_exact(now: float, n: int) -> None:
    assert read(sent_audio_line(now, n, 7, is_stored=False)) == SentAudioRecord(now, n, 7)
    assert read(end_line(now, "closed")) == EndRecord(now, "closed")
    assert read(input_lines([now], n)) == InputAudioRecord(now, n)
    assert read(output_line(now, n, "resp_1", "item_1", 3)) == OutputAudioRecord(now, n, "resp_1", "item_1", 3)


@given(st.lists(st.floats(-1e11, 1e11, allow_nan=False), min_size=1), st.integers(0, 1 << 40))
def test_the_clients_audio_is_written_many_lines_at_once(times: list[float], n: int) -> None:
    lines = input_lines(times, n).splitlines(keepends=True)
    assert [read(raw) for raw in lines] == [InputAudioRecord(now, n) for now in times]


def test_audio_is_short() -> None:
    assert input_lines([1.5], 640) == b'{"now":1.5,"in":640}\n'
    assert json.loads(output_line(2, 480, "resp_1", "item_1", 1)) == {
        "now": 2, "out": 480, "item": "item_1", "response": "resp_1", "part": 1
    }  # fmt: skip
    assert json.loads(output_line(2, 480, "resp_1", "item_1", 1, True))["discarded"] is True


@given(any_of(Alignment) | st.none(), st.integers(0, 1 << 40), st.booleans(), st.booleans())
def test_what_a_voice_spoke_comes_back_but_for_its_audio(
    alignment: Alignment | None, n: int, is_last: bool, discarded: bool
) -> None:
    commands = (cmd.SendAudioEnd("item_1", 0, 900),) if is_last and not discarded else ()
    line = read(tts_audio_line(2.5, n, "ctx", alignment, commands, discarded))
    assert line == TtsAudioRecord(2.5, n, "ctx", alignment, discarded, tuple(encode_commands(None, commands)))


def test_when_the_characters_of_a_secret_sound_is_not_written() -> None:
    alignment = Alignment(tuple("key sk-abcdefgh"), tuple(range(15)), (1,) * 15)
    assert b"chars" not in tts_audio_line(1.0, 2, "ctx", alignment)
    assert b"chars" in tts_audio_line(1.0, 2, "ctx", Alignment(("h",), (0,), (1,)))


@given(st.text(max_size=20), st.booleans())
def test_words_that_are_only_told_are_short(text: str, spoken: bool) -> None:
    event = ev.TextDelta("resp_1", "item_1", 1, text, spoken)
    raw = text_line(event, 2.5, (cmd.SendTextDelta(text),))
    assert b"send_text_delta" not in raw
    assert read(raw) == EventRecord(2.5, event, ({"t": "send_text_delta", "text": text},))
    assert read(text_line(event, 2.5, ())) == read(event_line(event, 2.5, ()))


APPEND = '{"type":"input_audio_buffer.append","audio":"%s"}'
DELTA = '{"type":"response.output_audio.delta","event_id":"e","item_id":"i","delta":"%s"}'


@pytest.mark.parametrize(
    "shape",
    [
        APPEND,
        '{"type": "input_audio_buffer.append", "audio": "%s"}',
        '{"audio":"%s","type":"input_audio_buffer.append"}',
        '{"event_id":"é","type":"input_audio_buffer.append","audio":"%s"}\n',
    ],
)
@given(samples=st.binary(min_size=1, max_size=40))
def test_an_append_comes_back_as_it_was(shape: str, samples: bytes) -> None:
    frame = (shape % pybase64.b64encode_as_string(samples)).encode()
    raw, cut = input_event_line(1.5, frame)
    line = read(raw)
    assert isinstance(line, InputAudioRecord)
    assert (cut, line.n_bytes) == (samples, len(samples))
    assert join_audio(line.envelope or AudioEnvelope(), samples) == frame
    assert (line.envelope is None) == (shape == APPEND)


@given(samples=st.binary(min_size=1, max_size=40), is_usual=st.booleans())
def test_a_delta_comes_back_as_it_was(samples: bytes, is_usual: bool) -> None:
    frame = (DELTA % pybase64.b64encode_as_string(samples)).encode()
    raw, cut = output_event_line(1.5, RawDelta(frame, len(samples), DELTA.index("%s") if is_usual else -1))
    line = read(raw)
    assert isinstance(line, OutputAudioRecord)
    assert (cut, line.n_bytes, line.discarded) == (samples, len(samples), False)
    assert line.envelope is not None
    assert join_audio(line.envelope, samples) == frame


def test_bits_that_base64_does_not_use_are_not_kept() -> None:
    raw, samples = input_event_line(1.5, (APPEND % "AAB=").encode())
    assert (read(raw), samples) == (InputAudioRecord(1.5, 2), bytes(2))
    raw, samples = output_event_line(1.5, RawDelta((DELTA % "AAB=").encode(), 2, DELTA.index("%s")))
    line = read(raw)
    assert isinstance(line, OutputAudioRecord)
    assert (line.n_bytes, samples) == (2, bytes(2))


def test_an_append_without_audio_is_audio_of_no_length() -> None:
    assert input_event_line(1.5, (APPEND % "").encode()) == (b'{"now":1.5,"in":0}\n', b"")


@pytest.mark.parametrize("frame", [APPEND % "A", '{"type":"input_audio_buffer.append"}'])
def test_what_the_uplink_takes_for_no_append_is_no_line(frame: str) -> None:
    with pytest.raises(ValueError):
        input_event_line(1.5, frame.encode())


@pytest.mark.parametrize(("delta", "n_bytes"), [("Hello.", 0), ("abcd", 0), ("A", 1), ("é", 1)])
@pytest.mark.parametrize("is_usual", [True, False])
def test_a_delta_without_audio_in_base64_stands_in_its_line(delta: str, n_bytes: int, is_usual: bool) -> None:
    frame = (DELTA % delta).encode()
    raw, samples = output_event_line(1.5, RawDelta(frame, n_bytes, DELTA.index("%s") if is_usual else -1))
    assert (read(raw), samples) == (EventRecord(1.5, rt.RealtimeServerEvent(frame, {}), ("=",)), b"")
    assert b"read" not in raw


def test_an_event_passed_on_says_so_by_saying_nothing() -> None:
    client_event = rt.RealtimeClientEvent({"type": "response.create"})
    line, samples = event_object(client_event, 1.5, (rt.SendToUpstream(client_event.body),))
    assert (line, samples) == ({"now": 1.5, "up": {"type": "response.create"}}, b"")
    assert read(redacted_line(line)) == EventRecord(1.5, client_event, ("=",))
    server_event = rt.RealtimeServerEvent(b'{"type":"x"}', {"type": "x"})
    line, _ = event_object(server_event, 1.5, ())
    assert line == {"now": 1.5, "down": '{"type":"x"}', "read": True, "do": []}
    assert read(redacted_line(line)) == EventRecord(1.5, server_event, ())


def test_audio_in_an_event_that_was_read_stands_apart() -> None:
    body = {"type": "input_audio_buffer.append", "audio": "AAAA", "event_id": "e1"}
    line, samples = event_object(
        rt.RealtimeClientEvent(body), 1.5, (rt.SendToUpstream({**body, "audio": "AAAA" * 200}),)
    )
    assert samples == bytes(3)
    assert line["said"] == {"type": "input_audio_buffer.append", "event_id": "e1"}
    assert line["do"][0]["body"]["audio"] == "800 characters"
    back = read(redacted_line(line))
    assert isinstance(back, EventRecord)
    assert (back.n_audio_bytes, back.event) == (3, rt.RealtimeClientEvent(line["said"]))


def test_gaps_and_failures() -> None:
    assert read(gap_line(GapRecord(3, 1.0, 2.0))) == GapRecord(3, 1.0, 2.0)
    failed = read(event_line(ev.DeadlineReached(), 1.0, None, "ValueError: sk-abcdefgh"))
    assert isinstance(failed, EventRecord)
    assert (failed.stored_commands, failed.raised) == (None, "ValueError: […]")


def test_no_credential_gets_into_a_line() -> None:
    line = event_line(
        ev.ToolCallFinished(
            "call_1", "done", '{"api_key": "abcdef"} Bearer abcdefgh', 1, {"password": "xyzzy", "city": "Rome"}
        ),
        1.0,
        (cmd.SendError("upstream_error", "key=abcdef123"),),
    )
    for secret in (b"abcdef", b"xyzzy"):
        assert secret not in line
    assert b"Rome" in line


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "a JSON object"),
        (b"{}", "now must be a time"),
        (b'{"now":"x"}', "now must be a time"),
        (b'{"now":true,"end":""}', "now must be a time"),
        (b'{"now":1}', "must have one of event, said, up, down, in, out, voice"),
        (b'{"now":1,"in":-1}', "in must be a whole number"),
        (b'{"now":1,"in":1.5}', "in must be a whole number"),
        (b'{"now":1,"out":1}', "item, response must be strings"),
        (b'{"now":1,"sent":1}', "crc must be"),
        (b'{"now":1,"voice":-1,"context":"c"}', "voice must be a whole number"),
        (b'{"now":1,"voice":1}', "context must be a string"),
        (b'{"now":1,"voice":1,"context":"c","chars":"x"}', "alignment: 'x' is not a list"),
        (b'{"now":1,"voice":1,"context":"c","chars":["x"]}', "alignment: None is not a list"),
        (b'{"gap":7}', "records must be"),
        (b'{"now":1,"words":7}', "must be strings"),
        (b'{"now":1,"event":{"t":"nope"}}', "unknown event or command"),
        (b'{"now":1,"event":{"t":"deadline_reached"},"do":7}', "do must be a list"),
        (b'{"now":1,"event":{"t":"deadline_reached"},"do":[7]}', "do must be a list"),
        (b'{"now":1e300,"end":""}', "now must be a time"),
        (b"\xff", "not valid JSON"),
    ],
)
def test_what_is_no_line_is_refused_by_name(raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(raw)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({"now": 1, "event": text}).encode()))
def test_no_line_raises_anything_but_a_value_error(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        read(raw)


def test_cleaning_twice_is_cleaning_once() -> None:
    value: Any = {"text": "token=abc and sk-12345678", "token": "abc", "list": ["Bearer abcdefgh"]}
    assert redact_value(redact_value(value)) == redact_value(value)


@pytest.mark.parametrize(
    "line",
    [
        b'{"unredacted":5}', b'{"unredacted":[]}', b'{"unredacted":null}', b'{"unredacted":', b'{"unredacted":}',
        b'{"unredacted":{"now":1,"event":5}}', b'{"unredacted":{"now":1,"do":5,"up":{}}}',
        b'{"unredacted":{"now":1,"up":{},"do":[5]}}',
        b'{"unredacted":{"now":1,"up":{},"do":[{"frame":5,"t":"forward_to_client"}]}}',
        b'{"unredacted":{"now":1,"up":{},"do":[{"frame":"x"}]}}', b'{"unredacted":{"now":1,"down":5}}',
        b'{"unredacted":' * 5000 + b'{"now":1,"end":"x"}' + b"}" * 5000,
        b'{"now": 1,"event":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_a_line_that_nobody_wrote_is_a_value_error_and_nothing_else(line: bytes) -> None:
    with pytest.raises(ValueError):
        read(line + b"\n")


def test_a_delta_that_is_nested_deeply_is_written_down() -> None:
    raw = b'{"type":"response.output_text.delta","x":%b}' % (b"[" * 900 + b"]" * 900)
    line, _ = output_event_line(1.0, RawDelta(raw, 0, -1))
    assert read(line) == EventRecord(1.0, rt.RealtimeServerEvent(raw, {}), ("=",))
