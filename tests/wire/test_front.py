"""Frames between two ends that both speak the protocol: what goes on unread can be nothing but what it looks like."""

import base64
import json
import random
from collections.abc import Mapping
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
from relay.wire.front import FrontCodec, canonical_append, find_audio, is_untouched

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


# -- the upstream's audio ---------------------------------------------------------------------------------------------

KIND = "response.output_audio.delta"
DELTA: dict[str, Any] = {
    "type": KIND,
    "event_id": "event_1",
    "response_id": "resp_1",
    "item_id": "item_1",
    "output_index": 2,
    "content_index": 0,
    "delta": AUDIO,
}
COMPACT, SPACED = (",", ":"), (", ", ": ")
separators = pytest.mark.parametrize("separators", [COMPACT, SPACED], ids=["compact", "spaced"])


def frame_of(event: object, separators: tuple[str, str] = COMPACT) -> bytes:
    return json.dumps(event, separators=separators).encode()


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in DELTA.items() if name != key}


def decoded(raw: bytes, *, read_all: bool = False) -> AudioFrame | UpstreamSaid | MalformedUpstream:
    [event] = FrontCodec().decode_upstream(raw, read_all=read_all)
    return event


@separators
@pytest.mark.parametrize("tail", [{}, {"obfuscation": "x"}, {"more": {"delta": "AAAA"}}, {"delta_2": "AAAA"}])
def test_audio_is_found_in_its_usual_shapes(separators: tuple[str, str], tail: dict[str, Any]) -> None:
    raw = frame_of(DELTA | tail, separators)
    found = find_audio(raw)
    assert found == AudioFrame(raw, len(PCM), raw.index(AUDIO.encode()))
    assert found.raw is raw
    assert decoded(raw) == decoded(raw, read_all=True) == found


@given(pcm=st.binary(max_size=400), spaced=st.booleans(), tail=st.booleans())
def test_the_length_of_found_audio_is_its_decoded_length(pcm: bytes, spaced: bool, tail: bool) -> None:
    event = DELTA | {"delta": base64.b64encode(pcm).decode()} | ({"more": "AAAA"} if tail else {})
    found = find_audio(frame_of(event, SPACED if spaced else COMPACT))
    assert found is not None
    assert found.n_bytes == len(pcm)
    assert bytes(found.raw[found.audio_at :]).startswith(base64.b64encode(pcm) + b'"')


@pytest.mark.parametrize(
    "raw",
    [
        frame_of(dict(reversed(DELTA.items()))),
        frame_of({"event_id": "event_1"} | without("event_id")),
        frame_of(DELTA, (" , ", " : ")),
        frame_of(DELTA | {"delta": base64.b64encode(b"\xff" * 30).decode()}).replace(b"/", rb"\/"),
        frame_of({"type": KIND, "item_id": "x" * 600} | without("item_id")),
        frame_of({"type": KIND, "part": {"n": 1, "delta": "AAAA"}} | DELTA),
    ],
    ids=["type last", "id first", "wide", "escaped slashes", "long id", "delta of another object"],
)
@pytest.mark.parametrize("read_all", [False, True])
def test_audio_of_another_shape_is_counted_and_goes_on_as_it_came(raw: bytes, read_all: bool) -> None:
    event = decoded(raw, read_all=read_all)
    n_bytes = len(base64.b64decode(json.loads(raw)["delta"]))
    assert event == AudioFrame(raw, n_bytes, -1)
    assert FrontCodec().audio_to_client(event, None) == [raw]


@separators
@pytest.mark.parametrize(
    "event",
    [
        {"type": KIND, "item_id": "delta", "content_index": 0},
        {"type": KIND, "item_id": "delta", "content_index": "AAAA"},
        {"type": KIND, "item_id": '","delta":"AAAA'},
        {"type": KIND, 'x"delta': "AAAA"},
        {"type": KIND, "part": {"n": 1, "delta": "AAAA"}},
        {"type": KIND, "delta": None},
        {"type": KIND, "delta": ["AAAA"]},
        {"type": "response.output_text.delta", "delta": "AAAA"},
        {"type": "response.output_audio.delta.x", "delta": "AAAA"},
        {"note": "response.output_audio.delta", "delta": "AAAA"},
        {"type": "error", "error": {"type": KIND, "delta": "AAAA"}},
    ],
)
def test_what_is_no_audio_is_no_audio(separators: tuple[str, str], event: dict[str, Any]) -> None:
    raw = frame_of(event, separators)
    assert find_audio(raw) is None
    assert decoded(raw, read_all=True) == UpstreamSaid(raw, event)


names = st.sampled_from(["delta", "type", "item_id", "part", '","delta":"AAAA', 'x"delta', "{", "\\", ",", "é"])
members = st.dictionaries(
    names,
    st.recursive(
        names | st.none() | st.integers(0, 9) | st.just(AUDIO),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=5,
)


@given(kind=st.sampled_from([KIND, "response.output_text.delta", "error"]), more=members, spaced=st.booleans())
def test_nothing_but_audio_deltas_is_ever_found(kind: str, more: dict[str, Any], spaced: bool) -> None:
    event = {"type": kind} | more
    raw = frame_of(event, SPACED if spaced else COMPACT)
    found = find_audio(raw)
    if found is not None:
        assert event["type"] == KIND
        assert bytes(found.raw[found.audio_at :]).startswith(frame_of(event["delta"])[1:])
    is_audio = event["type"] == KIND and isinstance(event.get("delta"), str)
    assert isinstance(decoded(raw, read_all=True), AudioFrame) == is_audio
    assert isinstance(decoded(raw), AudioFrame) == is_audio


def renumbered(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """A view that moves what has an `output_index`, and leaves alone what has none."""
    index = event.get("output_index")
    return {**event, "output_index": index - 1} if type(index) is int else event


@given(
    order=st.permutations(list(without("type"))),
    dropped=st.sets(st.sampled_from(["output_index", "event_id", "content_index"])),
    item_id=st.text(max_size=8),
    pcm=st.binary(max_size=60),
    spaced=st.booleans(),
    dialects=st.tuples(st.booleans(), st.booleans()),
)
@example(["delta"], set(), "", PCM, False, (False, False))
@example(["output_index", "delta"], set(), "", PCM, False, (False, False))
@example(["delta", "output_index"], set(), "", PCM, True, (True, False))
@example(["output_index", "response_id", "item_id", "content_index", "delta"], set(), "", PCM, True, (True, True))
def test_audio_is_rewritten_as_if_its_whole_event_was_parsed(
    order: list[str], dropped: set[str], item_id: str, pcm: bytes, spaced: bool, dialects: tuple[bool, bool]
) -> None:
    has_beta_client, has_beta_upstream = dialects
    codec = FrontCodec(BetaClient() if has_beta_client else None, BetaUpstream() if has_beta_upstream else None)
    audio = base64.b64encode(pcm).decode()
    event = {"type": KIND} | {
        key: {"item_id": item_id, "delta": audio}.get(key, DELTA[key]) for key in order if key not in dropped
    }
    is_audio = "delta" in event
    said = event | ({"type": "response.audio.delta"} if has_beta_upstream else {})
    for frame in codec.decode_upstream(frame_of(said, SPACED if spaced else COMPACT), read_all=True):
        assert isinstance(frame, AudioFrame) == is_audio
        if isinstance(frame, AudioFrame):
            assert frame.n_bytes == len(pcm)
            [message] = codec.audio_to_client(frame, renumbered)
            shown = {**renumbered(event)} | ({"type": "response.audio.delta"} if has_beta_client else {})
            assert json.loads(bytes(message)) == shown
            assert bytes(message).count(b'"' + audio.encode() + b'"') >= 1, "the audio is untouched"


@separators
def test_audio_at_the_end_of_its_event_is_rewritten_without_being_read(separators: tuple[str, str]) -> None:
    raw = frame_of(DELTA | {"delta": "no base64, and @ is not even text"}, separators).replace(b"@", b"\xff")
    frame = decoded(raw, read_all=True)
    assert isinstance(frame, AudioFrame)
    [message] = FrontCodec().audio_to_client(frame, renumbered)
    assert message == frame_of(DELTA | {"output_index": 1, "delta": ""})[:-2] + raw[frame.audio_at :]


def test_audio_that_the_view_leaves_alone_is_not_written_anew() -> None:
    for raw in (frame_of(DELTA), frame_of(dict(reversed(DELTA.items())))):
        frame = decoded(raw, read_all=True)
        assert isinstance(frame, AudioFrame)
        [message] = FrontCodec().audio_to_client(frame, lambda event: event)
        assert message is raw


@given(data=st.data())
def test_no_damaged_audio_breaks_its_rewriting(data: st.DataObject) -> None:
    raw = bytearray(frame_of(DELTA | data.draw(st.sampled_from([{}, {"more": [1]}, {"output_index": "x"}]))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1) | st.integers(0, 160))
        piece = data.draw(st.binary(max_size=2) | st.sampled_from([b'"delta":"', b'"type":"x",', b"[" * 300, b'"}']))
        raw[at : at + data.draw(st.integers(0, 2))] = piece
    codec = FrontCodec(BetaClient() if data.draw(st.booleans()) else None)
    for told in codec.decode_upstream(bytes(raw), read_all=True):
        if isinstance(told, AudioFrame):
            assert len(codec.audio_to_client(told, renumbered)) == 1
