"""The journal's lines: every event and command comes back from its line, and what is no line is refused by name."""

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.journal import from_json, to_json
from relay.core.journal_lines import (
    End,
    Gap,
    Happened,
    Sent,
    audio_line,
    clean,
    done_of,
    end_line,
    event_line,
    gap_line,
    read_line,
    sent_line,
    voice_line,
    words_line,
)
from relay.core.values import Alignment
from tests.core.test_journal import KINDS, any_of

EVENTS = [kind for kind in KINDS if kind.__module__ == ev.__name__ and kind is not ev.Forwarded]
COMMANDS = [kind for kind in KINDS if kind.__module__ == cmd.__name__]


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_every_event_comes_back_from_its_line(kind: type, data: st.DataObject) -> None:
    event = data.draw(any_of(kind))
    line = read_line(event_line(event, 12.25, ()))
    assert isinstance(line, Happened)
    assert (line.now, line.do) == (12.25, ())
    whole, cleaned = to_json(event), clean(to_json(event))
    expected = {name: whole[name] if isinstance(getattr(event, name, None), bytes) else cleaned[name] for name in whole}
    assert to_json(line.event) == json.loads(json.dumps(expected))


def test_audio_that_looks_like_a_token_in_base64_is_kept() -> None:
    audio = base64.b64decode("eyJhbGciOiJIUzI1NiJ9")
    line = read_line(event_line(ev.VoiceSpoke("context", len(audio), audio), 1.0, ()))
    assert isinstance(line, Happened)
    assert line.event.raw == audio


@pytest.mark.parametrize("kind", COMMANDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_every_command_comes_back_from_do(kind: type, data: st.DataObject) -> None:
    command = data.draw(any_of(kind))
    line = read_line(event_line(ev.Tick(), 1.0, (command,)))
    assert isinstance(line, Happened)
    assert line.do is not None
    assert list(line.do) == json.loads(json.dumps(done_of(ev.Tick(), (command,))))
    assert to_json(from_json(line.do[0])) == line.do[0]


@given(now=st.floats(-1e11, 1e11, allow_nan=False), n=st.integers(0, 1 << 40))
def test_times_and_numbers_are_exact(now: float, n: int) -> None:
    assert read_line(sent_line(now, n, 7, kept=False)) == Sent(now, n, 7)
    assert read_line(end_line(now, "closed")) == End(now, "closed")
    event = ev.Forwarded("input_audio", "", n, b"")
    assert read_line(audio_line(event, now, (event,))) == Happened(now, event, ("=",), n_audio_bytes=n)


def test_audio_that_is_only_passed_on_is_short() -> None:
    microphone = ev.Forwarded("input_audio", "", 640, bytes(640))
    assert audio_line(microphone, 1.5, (microphone,)) == b'{"now":1.5,"in":640}\n'
    voice = ev.Forwarded("output_audio", "item_1", 480, b"", "resp_1", 1)
    assert json.loads(audio_line(voice, 2, (voice,))) == {
        "now": 2, "out": 480, "item": "item_1", "response": "resp_1", "part": 1
    }  # fmt: skip
    assert json.loads(audio_line(voice, 2, ()))["do"] == []


def test_audio_that_had_to_wait_is_told_by_its_length_and_sum() -> None:
    early = ev.Forwarded("input_audio", "", 4, b"\x01\x02\x03\x04")
    (told,) = json.loads(event_line(ev.SessionUpdated(), 1.0, (early,)))["do"]
    assert told == {
        "t": "Forwarded", "kind": "input_audio", "item_id": "", "n_bytes": 4, "response_id": "", "content_index": 0,
        "crc": 3057449933,
    }  # fmt: skip


@given(any_of(ev.VoiceSpoke), st.booleans())
def test_what_a_voice_spoke_comes_back_but_for_its_sound(event: ev.VoiceSpoke, is_heard: bool) -> None:
    event = event._replace(n_bytes=abs(event.n_bytes))
    sound = ev.Forwarded("output_audio", "item_1", event.n_bytes, event.raw, "resp_1")
    commands = (sound,) if is_heard else ()
    line = read_line(voice_line(event, 2.5, commands))
    assert line == Happened(2.5, event._replace(raw=b""), tuple(done_of(event, commands)), n_audio_bytes=event.n_bytes)


def test_when_the_characters_of_a_secret_sound_is_not_written() -> None:
    told = Alignment(tuple("key sk-abcdefgh"), tuple(range(15)), (1,) * 15)
    assert b"chars" not in voice_line(ev.VoiceSpoke("ctx", 2, b"AAA=", told), 1.0, ())
    assert b"chars" in voice_line(ev.VoiceSpoke("ctx", 2, b"AAA=", Alignment(("h",), (0,), (1,))), 1.0, ())


@given(st.text(max_size=20), st.booleans())
def test_words_that_are_only_told_are_short(text: str, spoken: bool) -> None:
    event = ev.TextDelta("resp_1", "item_1", 1, text, spoken)
    raw = words_line(event, 2.5, (cmd.TellText(text),))
    assert b"TellText" not in raw
    assert read_line(raw) == Happened(2.5, event, ({"t": "TellText", "text": text},))
    assert read_line(words_line(event, 2.5, ())) == read_line(event_line(event, 2.5, ()))


def test_gaps_and_failures() -> None:
    assert read_line(gap_line(Gap(3, 1.0, 2.0))) == Gap(3, 1.0, 2.0)
    failed = read_line(event_line(ev.Tick(), 1.0, None, "ValueError: sk-abcdefgh"))
    assert isinstance(failed, Happened)
    assert (failed.do, failed.raised) == (None, "ValueError: […]")


def test_no_credential_gets_into_a_line() -> None:
    line = event_line(
        ev.ToolReturned(
            "call_1", "done", '{"api_key": "abcdef"} Bearer abcdefgh', 1, {"password": "xyzzy", "city": "Rome"}
        ),
        1.0,
        (cmd.TellError("upstream_error", "key=abcdef123"),),
    )
    for secret in (b"abcdef", b"xyzzy"):
        assert secret not in line
    assert b"Rome" in line


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "a JSON object"),
        (b"{}", "now must be a time"),
        (b'{"now":"x"}', "now must be a time"),
        (b'{"now":true,"end":""}', "now must be a time"),
        (b'{"now":1}', "none of event, in, out, voice"),
        (b'{"now":1,"in":-1}', "in must be a whole number"),
        (b'{"now":1,"in":1.5}', "in must be a whole number"),
        (b'{"now":1,"out":1}', "item and response"),
        (b'{"now":1,"sent":1}', "crc must be"),
        (b'{"now":1,"voice":-1,"context":"c"}', "voice must be a whole number"),
        (b'{"now":1,"voice":1}', "context must be a text"),
        (b'{"now":1,"voice":1,"context":"c","chars":"x"}', "Alignment: 'x' is not a list"),
        (b'{"now":1,"voice":1,"context":"c","chars":["x"]}', "Alignment: None is not a list"),
        (b'{"gap":7}', "records must be"),
        (b'{"now":1,"words":7}', "must be texts"),
        (b'{"now":1,"event":{"t":"Nope"}}', "unknown event or command"),
        (b'{"now":1,"event":{"t":"Tick"},"do":7}', "do must be a list"),
        (b'{"now":1,"event":{"t":"Tick"},"do":[7]}', "do must be a list"),
        (b'{"now":1e300,"end":""}', "now must be a time"),
        (b"\xff", "not JSON"),
    ],
)
def test_what_is_no_line_is_refused_by_name(raw: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_line(raw)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: json.dumps({"now": 1, "event": text}).encode()))
def test_no_line_raises_anything_but_a_value_error(raw: bytes) -> None:
    with contextlib.suppress(ValueError):
        read_line(raw)


def test_cleaning_twice_is_cleaning_once() -> None:
    value: Any = {"text": "token=abc and sk-12345678", "token": "abc", "list": ["Bearer abcdefgh"]}
    assert clean(clean(value)) == clean(value)


@pytest.mark.parametrize(
    "line",
    [
        b'{"unredacted":5}', b'{"unredacted":[]}', b'{"unredacted":null}', b'{"unredacted":', b'{"unredacted":}',
        b'{"unredacted":{"now":1,"event":5}}', b'{"unredacted":{"now":1,"do":5,"up":{}}}',
        b'{"unredacted":{"now":1,"up":{},"do":[5]}}',
        b'{"unredacted":{"now":1,"up":{},"do":[{"frame":5,"t":"PassDown"}]}}',
        b'{"unredacted":{"now":1,"up":{},"do":[{"frame":"x"}]}}', b'{"unredacted":{"now":1,"down":5}}',
        b'{"unredacted":' * 5000 + b'{"now":1,"end":"x"}' + b"}" * 5000,
        b'{"now": 1,"event":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_a_line_that_nobody_wrote_is_a_value_error_and_nothing_else(line: bytes) -> None:
    with pytest.raises(ValueError):
        read_line(line + b"\n")
