"""Upstream audio in the proxy codec: counted and rewritten without decoding it."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.protocols.openai.beta import BetaClientDialect, BetaUpstreamDialect
from relay.protocols.openai.proxy import ProxyCodec, audio_offset, delta_audio_bytes
from relay.session.common.media_types import RawDelta
from relay.session.device.events import MalformedUpstreamMessage
from relay.session.realtime.events import RealtimeServerEvent
from tests.support.media import decode_deltas_and_events

PCM = bytes(range(250))
AUDIO = base64.b64encode(PCM).decode()
KIND = "response.output_audio.delta"
TEXT_KIND = "response.output_text.delta"
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


def found(raw: bytes) -> RawDelta | None:
    """The audio matched without parsing the message."""
    n_bytes = delta_audio_bytes(raw)
    return RawDelta(raw, n_bytes, audio_offset(raw)) if n_bytes > 0 else None


def decoded(raw: bytes) -> RawDelta | RealtimeServerEvent | MalformedUpstreamMessage:
    [event] = decode_deltas_and_events(ProxyCodec(), raw)
    return event


def read_in_full(raw: bytes) -> RawDelta | RealtimeServerEvent | MalformedUpstreamMessage:
    [event] = ProxyCodec().decode_upstream(raw)
    return event


@separators
@pytest.mark.parametrize("tail", [{}, {"obfuscation": "x"}, {"more": {"delta": "AAAA"}}, {"delta_2": "AAAA"}])
def test_audio_is_matched_in_its_usual_shapes(separators: tuple[str, str], tail: dict[str, Any]) -> None:
    raw = frame_of(DELTA | tail, separators)
    audio = found(raw)
    assert audio == RawDelta(raw, len(PCM), raw.index(AUDIO.encode()))
    assert decoded(raw) == read_in_full(raw) == audio
    [message] = ProxyCodec().encode_delta(raw, None)
    assert message is raw


@given(pcm=st.binary(max_size=400), spaced=st.booleans(), tail=st.booleans())
def test_the_length_of_found_audio_is_its_decoded_length(pcm: bytes, spaced: bool, tail: bool) -> None:
    event = DELTA | {"delta": base64.b64encode(pcm).decode()} | ({"more": "AAAA"} if tail else {})
    raw = frame_of(event, SPACED if spaced else COMPACT)
    audio = found(raw)
    if not pcm:
        assert audio is None
        assert decoded(raw) == RawDelta(raw, 0, -1)
        return
    assert audio is not None
    assert audio.n_bytes == len(pcm)
    assert raw[audio.audio_offset :].startswith(base64.b64encode(pcm) + b'"')


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
def test_audio_of_unusual_shape_is_counted_and_forwarded_unchanged(raw: bytes) -> None:
    event = decoded(raw)
    n_bytes = len(base64.b64decode(json.loads(raw)["delta"]))
    assert event == RawDelta(raw, n_bytes, -1)
    assert ProxyCodec().encode_delta(raw, None) == [raw]


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
        {"type": "response.output_audio.delta.x", "delta": "AAAA"},
        {"note": "response.output_audio.delta", "delta": "AAAA"},
        {"type": "error", "error": {"type": KIND, "delta": "AAAA"}},
    ],
)
def test_other_events_hold_no_audio(separators: tuple[str, str], event: dict[str, Any]) -> None:
    raw = frame_of(event, separators)
    assert found(raw) is None
    assert decoded(raw) == RealtimeServerEvent(raw, event)


@separators
def test_a_delta_of_text_is_no_audio(separators: tuple[str, str]) -> None:
    raw = frame_of({"type": "response.output_text.delta", "delta": "AAAA"}, separators)
    assert found(raw) is None
    assert decoded(raw) == read_in_full(raw) == RawDelta(raw, 0, -1)


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


@given(kind=st.sampled_from([KIND, TEXT_KIND, "error"]), more=members, spaced=st.booleans())
def test_nothing_but_audio_deltas_is_ever_found(kind: str, more: dict[str, Any], spaced: bool) -> None:
    event = {"type": kind} | more
    raw = frame_of(event, SPACED if spaced else COMPACT)
    audio = found(raw)
    if audio is not None:
        assert event["type"] == KIND
        assert raw[audio.audio_offset :].startswith(frame_of(event["delta"])[1:])
    is_delta = event["type"] in (KIND, TEXT_KIND) and isinstance(event.get("delta"), str)
    assert isinstance(read_in_full(raw), RawDelta) == is_delta
    if event["type"] == TEXT_KIND:
        assert decoded(raw) == RawDelta(raw, 0, -1), "matched by its prefix alone"
    else:
        assert isinstance(decoded(raw), RawDelta) == is_delta


def renumbered(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """A rewriter that changes `output_index`, and leaves events without one alone."""
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
    codec = ProxyCodec(
        BetaClientDialect() if has_beta_client else None, BetaUpstreamDialect() if has_beta_upstream else None
    )
    audio = base64.b64encode(pcm).decode()
    event = {"type": KIND} | {
        key: {"item_id": item_id, "delta": audio}.get(key, DELTA[key]) for key in order if key not in dropped
    }
    is_audio = "delta" in event
    upstream_event = event | ({"type": "response.audio.delta"} if has_beta_upstream else {})
    for frame in decode_deltas_and_events(codec, frame_of(upstream_event, SPACED if spaced else COMPACT)):
        assert isinstance(frame, RawDelta) == is_audio
        if isinstance(frame, RawDelta):
            assert frame.n_bytes == len(pcm)
            [message] = codec.encode_delta(bytes(frame.raw), renumbered)
            client_event = {**renumbered(event)} | ({"type": "response.audio.delta"} if has_beta_client else {})
            assert json.loads(bytes(message)) == client_event
            assert bytes(message).count(b'"' + audio.encode() + b'"') >= 1, "the audio is untouched"


@separators
def test_audio_at_the_end_of_its_event_is_rewritten_without_being_read(separators: tuple[str, str]) -> None:
    raw = frame_of(DELTA | {"delta": "no base64, and @ is not even text"}, separators).replace(b"@", b"\xff")
    frame = decoded(raw)
    assert isinstance(frame, RawDelta)
    [message] = ProxyCodec().encode_delta(raw, renumbered)
    assert message == frame_of(DELTA | {"output_index": 1, "delta": ""})[:-2] + raw[frame.audio_offset :]


def test_audio_that_needs_no_rewriting_is_the_same_object() -> None:
    for raw in (frame_of(DELTA), frame_of(dict(reversed(DELTA.items())))):
        assert isinstance(decoded(raw), RawDelta)
        [message] = ProxyCodec().encode_delta(raw, lambda event: event)
        assert message is raw


@given(data=st.data())
def test_no_damaged_audio_breaks_its_rewriting(data: st.DataObject) -> None:
    raw = bytearray(frame_of(DELTA | data.draw(st.sampled_from([{}, {"more": [1]}, {"output_index": "x"}]))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1) | st.integers(0, 160))
        piece = data.draw(st.binary(max_size=2) | st.sampled_from([b'"delta":"', b'"type":"x",', b"[" * 300, b'"}']))
        raw[at : at + data.draw(st.integers(0, 2))] = piece
    codec = ProxyCodec(BetaClientDialect() if data.draw(st.booleans()) else None)
    for decoded in decode_deltas_and_events(codec, bytes(raw)):
        if isinstance(decoded, RawDelta):
            assert len(codec.encode_delta(bytes(decoded.raw), renumbered)) == 1


@pytest.mark.parametrize("kind", [KIND, TEXT_KIND])
@pytest.mark.parametrize(
    "rest", [b',"x":', b',"x":' + b"[" * 250 + b"]" * 250 + b"}", b',"x":[' + b"0," * 60_000 + b"0]}"]
)
def test_a_delta_that_cannot_be_rewritten_is_forwarded_unchanged(kind: str, rest: bytes) -> None:
    raw = frame_of(DELTA | {"type": kind})[:-1] + rest
    assert isinstance(decoded(raw), RawDelta)
    assert ProxyCodec().encode_delta(raw, renumbered) == [raw]


def test_a_duplicate_delta_key_is_forwarded_unchanged() -> None:
    raw = frame_of(DELTA).replace(b'"event_id"', b'"delta" : "AA==","event_id"')
    assert ProxyCodec().encode_delta(raw, renumbered) == [raw]
