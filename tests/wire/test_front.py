"""Frames between two ends that both speak the protocol: what goes on unread can be nothing but what it looks like."""

import base64
import json
import random
from typing import Any

import orjson
import pybase64
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.events import MalformedUpstream
from relay.core.realtime_events import ClientBabbled, ClientSaid, UpstreamSaid
from relay.session.common.media_types import AudioFrame
from relay.wire.beta import BetaClient, BetaUpstream
from relay.wire.front import FrontCodec, canonical_append, is_untouched

PCM = bytes(range(250))
AUDIO = base64.b64encode(PCM).decode()
FUZZ_RUNS = 20_000
LONG_FUZZ_RUNS = 1_000_000

CANONICAL = [
    f'{{"type":"input_audio_buffer.append","audio":"{AUDIO}"}}',
    f'{{"type": "input_audio_buffer.append", "audio": "{AUDIO}"}}',
    f'{{\n  "type": "input_audio_buffer.append",\n  "audio": "{AUDIO}"\n}}',
    f'{{"type":"input_audio_buffer.append","event_id":"evt_1","audio":"{AUDIO}"}}',
    f'{{"event_id":"evt_1","type":"input_audio_buffer.append","audio":"{AUDIO}"}}',
    '{"type":"input_audio_buffer.append","audio":""}',
    f'{{"audio":"{AUDIO}","type":"input_audio_buffer.append"}}',
]
"""As the SDKs write it; the second is `json.dumps`, the third pydantic with an indent, the last pydantic without."""

OTHER = [
    f'{{"audio":"{AUDIO}","type":"input_audio_buffer.append","event_id":"a"}}',
    f'{{"audio":"{AUDIO}","audio":"{AUDIO}","type":"input_audio_buffer.append"}}',
    '{"audio":"","type":"input_audio_buffer.append"}',
    '{"audio":"AA","type":"input_audio_buffer.append"}',
    '{"audio":"","type":"input_audio_buffer.append","audio":"AAAA","type":"input_audio_buffer.append"}',
    '{"type":"input_audio_buffer.append","audio":"}',
    f'{{"type":"input_audio_buffer.append","audio":"{AUDIO}","event_id":"a"}}',
    f'{{"type":"input_audio_buffer.append","audio":"{AUDIO}"}}{{}}',
    f'{{"type":"input_audio_buffer.append","audio":"{AUDIO}\\u0041"}}',
    f'{{"type":"input_audio_buffer.append","audio":"{AUDIO}","audio":"{AUDIO}"}}',
    f'{{"type":"input_audio_buffer.append","event_id":"relay_7","audio":"{AUDIO}"}}',
    f'{{"type":"input_audio_buffer.append","event_id":"{"x" * 513}","audio":"{AUDIO}"}}',
    f'{{"event_id":"a","type":"input_audio_buffer.append","event_id":"b","audio":"{AUDIO}"}}',
    '{"type":"input_audio_buffer.append","audio":"AAA"}',
    '{"type":"input_audio_buffer.append","audio":"AA-_"}',
    '{"type":"input_audio_buffer.append","audio":"AA==AAAA"}',
    '{"type":"input_audio_buffer.append","audio":null}',
    '{"type":"input_audio_buffer.appendix","audio":"AAAA"}',
]


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_appends_are_known(text: str) -> None:
    assert canonical_append(text.encode()) == (len(PCM) if "AAEC" in text else 0)


@pytest.mark.parametrize("text", OTHER)
def test_other_shapes_are_read(text: str) -> None:
    assert canonical_append(text.encode()) == -1
    assert isinstance(FrontCodec().decode_client(text.encode()), ClientSaid | ClientBabbled)


@given(st.text("AQgw+/=-_ \n", max_size=12))
@example("A===")
@example("====")
@example("AA=A")
def test_what_counts_as_audio_is_what_can_be_decoded(text: str) -> None:
    try:
        n_bytes = len(pybase64.b64decode(text, validate=True))
    except ValueError:
        n_bytes = -1
    frame = json.dumps({"type": "input_audio_buffer.append", "audio": text}).encode()
    assert canonical_append(frame) == n_bytes


def holds_only_audio(raw: bytes) -> None:
    """What the short way lets pass, by a reader that sees every key, also those given twice."""
    pairs: list[tuple[str, Any]] = json.loads(raw, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert sorted(names) in (["audio", "type"], ["audio", "event_id", "type"])
    members = dict(pairs)
    assert members["type"] == "input_audio_buffer.append"
    base64.b64decode(members["audio"], validate=True)
    assert not str(members.get("event_id", "")).startswith("relay_")


def mutated(source: random.Random) -> bytes:
    """A canonical append with a few bytes cut, doubled, put in or exchanged."""
    raw = bytearray(source.choice(CANONICAL + OTHER).encode())
    pieces = [
        b'"',
        b"\\",
        b"{",
        b"}",
        b",",
        b":",
        b" ",
        b"=",
        b"\n",
        b"\xff",
        b"\x00",
        b'"type"',
        b'"audio":"',
        b'","a":"',
    ]
    for _ in range(source.randint(1, 4)):
        # Nearer to the ends than to the middle, where there is nothing but base64.
        at = source.choice([source.randrange(len(raw) + 1), source.randrange(70), len(raw) - source.randrange(12)])
        at = max(0, min(at, len(raw)))
        kind = source.randrange(4)
        if kind == 0:
            del raw[at : at + source.randint(1, 5)]
        elif kind == 1:
            raw[at:at] = source.choice(pieces)
        elif kind == 2:
            raw[at:at] = raw[max(0, at - 20) : at]
        else:
            raw[at : at + 1] = bytes([source.randrange(256)])
    return bytes(raw)


def fuzz(runs: int) -> tuple[int, int]:
    source = random.Random(20261121)
    codec, passed, read = FrontCodec(), 0, 0
    for _ in range(runs):
        raw = mutated(source)
        if canonical_append(raw) >= 0:
            passed += 1
            holds_only_audio(raw)
        else:
            event = codec.decode_client(raw)
            assert isinstance(event, ClientSaid | ClientBabbled)
            if isinstance(event, ClientSaid):
                read += 1
                orjson.dumps(event.body)
        for told in codec.decode_upstream(raw, read_all=bool(passed % 2)):
            assert isinstance(told, UpstreamSaid | MalformedUpstream)
    return passed, read


def test_nothing_hides_behind_an_append() -> None:
    passed, read = fuzz(FUZZ_RUNS)
    assert passed > FUZZ_RUNS / 100, "some must still be canonical, or nothing was tried"
    assert read > FUZZ_RUNS / 100


@pytest.mark.long
def test_nothing_hides_behind_a_million_appends() -> None:
    assert min(fuzz(LONG_FUZZ_RUNS)) > LONG_FUZZ_RUNS / 100


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
@example(b'{"type":"a"}')
@example(b'{"type":"a","n":' + b"9" * 400 + b"}")
@example(b'{"type":"a","s":"\\ud800"}')
@example(b'{"type":"' + b"a" * 300 + b'"}')
@example(b"[" * 100_000)
@example(b'{"type":"a","x":' + b"[" * 300 + b"]" * 300 + b"}")
def test_no_frame_breaks_a_decoder(raw: bytes) -> None:
    for codec in (FrontCodec(), FrontCodec(BetaClient(), BetaUpstream())):
        event = codec.decode_client(raw)
        if isinstance(event, ClientSaid):
            assert codec.to_upstream(event.body)
        for told in codec.decode_upstream(raw, read_all=False):
            if isinstance(told, UpstreamSaid):
                codec.pass_down(told.raw)
            elif isinstance(told, AudioFrame):
                codec.audio_to_client(told, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"response.output_text.delta","delta":"AAAA"}', True),
        ('{"type":"response.output_audio.delta","delta":"AAAA"}', False),  # nor read, but counted
        ('{ "event_id" : "e" , "type" : "response.output_text.delta" }', True),
        ('{"type":"response.done"}', False),
        ('{"delta":"x","type":"response.output_audio.delta"}', False),
        ("", False),
    ],
)
def test_what_is_untouched_is_found_by_its_beginning(text: str, expected: bool) -> None:
    assert is_untouched(text.encode()) is expected


def test_a_beta_client_gets_audio_without_its_being_parsed() -> None:
    codec = FrontCodec(BetaClient())
    raw = b'{"event_id":"e", "type":"response.output_audio.delta","delta":"AAAA", "x" : 1}'
    assert codec.pass_down(raw) == [raw.replace(b"output_audio", b"audio")]
    assert codec.audio_to_client(AudioFrame(raw, 3, -1), None) == [raw.replace(b"output_audio", b"audio")]
