"""The proxy codec: a message that is forwarded unparsed can be nothing but what it looks like."""

import base64
import json
import random
from typing import Any

import orjson
import pybase64
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.protocols.openai.beta import BetaClientDialect, BetaUpstreamDialect
from relay.protocols.openai.proxy import ProxyCodec, append_audio_bytes, delta_audio_bytes
from relay.session.common.media_types import PASSTHROUGH_EVENTS, RawDelta
from relay.session.device.events import MalformedUpstreamMessage
from relay.session.realtime.events import InvalidClientMessage, RealtimeClientEvent, RealtimeServerEvent
from tests.support.media import decode_deltas_and_events

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
"""As SDKs serialize it: the second is `json.dumps`, the third pydantic with an indent, the last pydantic without."""

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
def test_plain_appends_are_recognized(text: str) -> None:
    assert append_audio_bytes(text.encode()) == (len(PCM) if "AAEC" in text else 0)


@pytest.mark.parametrize("text", OTHER)
def test_other_shapes_are_read(text: str) -> None:
    assert append_audio_bytes(text.encode()) == -1
    assert isinstance(ProxyCodec().decode_client(text.encode()), RealtimeClientEvent | InvalidClientMessage)


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
    assert append_audio_bytes(frame) == n_bytes


def holds_only_audio(raw: bytes) -> None:
    """The expected result of `append_audio_bytes`, by a parser that sees every key, including duplicates."""
    pairs: list[tuple[str, Any]] = json.loads(raw, object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert sorted(names) in (["audio", "type"], ["audio", "event_id", "type"])
    members = dict(pairs)
    assert members["type"] == "input_audio_buffer.append"
    base64.b64decode(members["audio"], validate=True)
    assert not str(members.get("event_id", "")).startswith("relay_")


def mutated(source: random.Random) -> bytes:
    """A plain append with a few bytes cut, doubled, inserted or replaced."""
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
    codec, passed, read = ProxyCodec(), 0, 0
    for _ in range(runs):
        raw = mutated(source)
        if append_audio_bytes(raw) >= 0:
            passed += 1
            holds_only_audio(raw)
        else:
            event = codec.decode_client(raw)
            assert isinstance(event, RealtimeClientEvent | InvalidClientMessage)
            if isinstance(event, RealtimeClientEvent):
                read += 1
                orjson.dumps(event.body)
        for decoded in decode_deltas_and_events(codec, raw):
            assert isinstance(decoded, RealtimeServerEvent | MalformedUpstreamMessage)
    return passed, read


def test_nothing_hides_after_an_append() -> None:
    passed, read = fuzz(FUZZ_RUNS)
    assert passed > FUZZ_RUNS / 100, "too few messages are still plain appends"
    assert read > FUZZ_RUNS / 100


@pytest.mark.long
def test_no_message_of_a_million_hides_anything_after_an_append() -> None:
    assert min(fuzz(LONG_FUZZ_RUNS)) > LONG_FUZZ_RUNS / 100


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
@example(b'{"type":"a"}')
@example(b'{"type":"a","n":' + b"9" * 400 + b"}")
@example(b'{"type":"a","s":"\\ud800"}')
@example(b'{"type":"' + b"a" * 300 + b'"}')
@example(b"[" * 100_000)
@example(b'{"type":"a","x":' + b"[" * 300 + b"]" * 300 + b"}")
def test_no_frame_breaks_a_decoder(raw: bytes) -> None:
    for codec in (ProxyCodec(), ProxyCodec(BetaClientDialect(), BetaUpstreamDialect())):
        event = codec.decode_client(raw)
        if isinstance(event, RealtimeClientEvent):
            assert codec.encode_for_upstream(event.body)
        for decoded in decode_deltas_and_events(codec, raw):
            if isinstance(decoded, RealtimeServerEvent):
                codec.forward(decoded.raw)
            elif isinstance(decoded, RawDelta):
                codec.encode_delta(bytes(decoded.raw), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type":"response.output_text.delta","delta":"AAAA"}', 0),
        ('{"type": "response.output_audio_transcript.delta", "delta": "AAAA"}', 0),
        ('{"type":"conversation.item.input_audio_transcription.delta"', 0),
        ('{"type":"response.output_audio.delta","delta":"AAAA"}', 3),
        ('{"type":"response.output_audio.delta","delta":""}', -1),
        ('{ "event_id" : "e" , "type" : "response.output_text.delta" }', -1),
        ('{"type":"response.done"}', -1),
        ('{"delta":"x","type":"response.output_audio.delta"}', -1),
        ("", -1),
    ],
)
def test_a_delta_is_matched_by_its_prefix(text: str, expected: int) -> None:
    assert delta_audio_bytes(text.encode()) == ProxyCodec().delta_audio_bytes(text.encode()) == expected
    assert ProxyCodec(upstream=BetaUpstreamDialect()).delta_audio_bytes(text.encode()) == -1, (
        "another dialect is always read"
    )


@pytest.mark.parametrize("kind", sorted(PASSTHROUGH_EVENTS - {"response.output_audio.delta"}))
def test_a_delta_of_text_holds_no_audio_whatever_its_shape(kind: str) -> None:
    for event in ({"type": kind, "delta": "AAAA"}, {"event_id": "e", "type": kind, "delta": "AAAA"}):
        raw = json.dumps(event).encode()
        assert decode_deltas_and_events(ProxyCodec(), raw) == [RawDelta(raw, 0, -1)]


@pytest.mark.parametrize("kind", [["error"], {"a": 1}, None, 3])
def test_what_has_no_text_as_its_type_is_no_delta(kind: Any) -> None:
    raw = json.dumps({"type": kind, "delta": "AAAA"}).encode()
    assert decode_deltas_and_events(ProxyCodec(), raw) == [RealtimeServerEvent(raw, json.loads(raw))]


def test_audio_for_a_beta_client_is_not_parsed() -> None:
    codec = ProxyCodec(BetaClientDialect())
    raw = b'{"event_id":"e", "type":"response.output_audio.delta","delta":"AAAA", "x" : 1}'
    assert codec.forward(raw) == [raw.replace(b"output_audio", b"audio")]
    assert codec.encode_delta(raw, None) == [raw.replace(b"output_audio", b"audio")]
