"""Audio deltas matched without parsing: the same events as from the full decoder, or none."""

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.protocols.openai.audio_events import APPEND_TEMPLATE, AudioDeltaMatcher, decode_audio, decoded_length
from relay.protocols.openai.upstream_codec import OpenAIUpstreamCodec
from relay.session.common.media_types import AudioDelta
from relay.session.device.events import MalformedUpstreamMessage

PCM = bytes(range(256)) * 4
TEXT = base64.b64encode(PCM).decode()
DELTA: dict[str, Any] = {
    "type": "response.output_audio.delta",
    "event_id": "event_1",
    "response_id": "resp_1",
    "item_id": "item_1",
    "output_index": 0,
    "content_index": 1,
    "delta": TEXT,
}
COMPACT = (",", ":")


def frame_of(event: object, separators: tuple[str, str] = COMPACT, **options: Any) -> bytes:
    return json.dumps(event, separators=separators, **options).encode()


def find_audio_delta(frame: bytes) -> AudioDelta | None:
    """The match in the first message of a connection."""
    return AudioDeltaMatcher().match(frame)


def slowly(frame: bytes) -> object:
    """The full decoder's result: with a line end after it, a message does not have the usual shape."""
    padded = frame + b"\n"
    assert find_audio_delta(padded) is None
    return OpenAIUpstreamCodec().decode(padded)


def test_the_usual_message_is_matched() -> None:
    frame = frame_of(DELTA)
    found = find_audio_delta(frame)
    assert found == AudioDelta("resp_1", "item_1", 1, TEXT.encode())
    assert decode_audio(found.audio) == PCM


@pytest.mark.parametrize("n_bytes", [0, 1, 2, 3, 4, 960, 961, 962])
def test_any_padding_has_the_right_length(n_bytes: int) -> None:
    frame = frame_of(DELTA | {"delta": base64.b64encode(bytes(n_bytes)).decode()})
    found = find_audio_delta(frame)
    assert found is not None
    assert found == slowly(frame)
    assert decoded_length(found.audio) == len(decode_audio(found.audio)) == n_bytes


@pytest.mark.parametrize(
    "order", [list(DELTA), list(reversed(DELTA)), sorted(DELTA)], ids=["usual", "reverse", "sorted"]
)
@pytest.mark.parametrize("separators", [COMPACT, (", ", ": "), (",", ": "), (" , ", " :\t")])
def test_every_order_of_keys_and_every_spacing_decodes_alike(order: list[str], separators: tuple[str, str]) -> None:
    frame = frame_of({key: DELTA[key] for key in order}, separators)
    assert find_audio_delta(frame) in (None, slowly(frame))
    decoded = OpenAIUpstreamCodec().decode(frame)
    assert decoded == AudioDelta("resp_1", "item_1", 1, TEXT.encode())


@pytest.mark.parametrize(
    "more",
    [{"obfuscation": "x"}, {"obfuscation": "x" * 1000}, {"n": 1, "s": ""}, {"logprobs": [{"a": "b"}]}, {"x": None}],
)
def test_keys_after_the_audio_are_not_taken_for_audio(more: dict[str, Any]) -> None:
    frame = frame_of(DELTA | more)
    decoded = OpenAIUpstreamCodec().decode(frame)
    assert isinstance(decoded, AudioDelta)
    assert decode_audio(decoded.audio) == PCM


def test_a_slash_may_be_escaped() -> None:
    pcm = b"\xff" * 30
    frame = frame_of(DELTA | {"delta": base64.b64encode(pcm).decode()}).replace(b"/", rb"\/")
    decoded = OpenAIUpstreamCodec().decode(frame)
    assert isinstance(decoded, AudioDelta)
    assert decode_audio(decoded.audio) == pcm


def test_an_escaped_slash_after_unescaped_deltas_is_decoded() -> None:
    codec, pcm = OpenAIUpstreamCodec(), b"\xff" * 30
    assert codec.decode(frame_of(DELTA)) == AudioDelta("resp_1", "item_1", 1, TEXT.encode())
    escaped = frame_of(DELTA | {"delta": base64.b64encode(pcm).decode()}).replace(b"/", rb"\/")
    assert codec.decode(escaped) == AudioDelta("resp_1", "item_1", 1, base64.b64encode(pcm))


def test_a_missing_content_index_is_the_first_part() -> None:
    frame = frame_of({key: value for key, value in DELTA.items() if key != "content_index"})
    assert find_audio_delta(frame) == slowly(frame)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta", "item_id": 'response.output_audio.delta"', "delta": TEXT},
        {"type": "response.output_text.delta", "item_id": '.output_audio.delta","delta":"AAAA', "delta": TEXT},
        {"type": "conversation.item.added", "note": "response.output_audio.delta", "delta": "AAAA"},
        {"type": "x.output_audio.delta", "item_id": "i", "response_id": "r", "delta": "AAAA"},
        {"note": {"type": "response.output_audio.delta", "item_id": "i", "response_id": "r", "delta": "AAAA"}},
        {"type": "response.output_audio.delta", "item_id": "i", "response_id": "r", "part": {"delta": "AAAA"}},
    ],
)
def test_lookalikes_of_deltas_are_left_to_the_full_decoder(event: dict[str, Any]) -> None:
    for frame in (frame_of(event), frame_of(event, (", ", ": "))):
        assert find_audio_delta(frame) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"item_id": 7},
        {"item_id": None},
        {"item_id": ["item_1"]},
        {"response_id": {"id": "resp_1"}},
        {"response_id": None},
    ],
)
def test_ids_that_are_no_strings_make_no_delta(wrong: dict[str, Any]) -> None:
    assert isinstance(OpenAIUpstreamCodec().decode(frame_of(DELTA | wrong)), MalformedUpstreamMessage)


@pytest.mark.parametrize("index", [None, "0", [0], {}, True, -1, 1.5, 10**30])
def test_a_content_index_that_is_no_index_never_leaves_the_decoder(index: object) -> None:
    decoded = OpenAIUpstreamCodec().decode(frame_of(DELTA | {"content_index": index}))
    assert isinstance(decoded, AudioDelta)
    assert type(decoded.content_index) is int
    assert 0 <= decoded.content_index < 2**53


@pytest.mark.parametrize("text", ["AAA", "A", "AAAA=", "A===", "AA=A", "AA AA", "AAAA\n", "ÄÄÄÄ", "AAA*", "AAAAAA"])
def test_invalid_base64_fails_at_decoding_only(text: str) -> None:
    decoded = OpenAIUpstreamCodec().decode(frame_of(DELTA | {"delta": text}, ensure_ascii=False))
    assert isinstance(decoded, AudioDelta)
    with pytest.raises(ValueError):
        decode_audio(decoded.audio)


def test_an_invalid_byte_in_the_text_fails_at_decoding() -> None:
    frame = bytearray(frame_of(DELTA))
    frame[-10] = 0xFF
    decoded = OpenAIUpstreamCodec().decode(bytes(frame))
    assert isinstance(decoded, AudioDelta)
    with pytest.raises(ValueError):
        decode_audio(decoded.audio)


@given(pcm=st.binary(max_size=400), index=st.integers(0, 9), item=st.text(max_size=20), spaced=st.booleans())
@example(pcm=b"", index=0, item='"delta":"', spaced=False)
@example(pcm=b"\x00" * 3, index=0, item="\\", spaced=False)
@settings(max_examples=100, deadline=None)
def test_fast_and_full_decoder_agree(pcm: bytes, index: int, item: str, spaced: bool) -> None:
    event = DELTA | {"item_id": item, "content_index": index, "delta": base64.b64encode(pcm).decode()}
    frame = frame_of(event, (", ", ": ") if spaced else COMPACT)
    fast, full = find_audio_delta(frame), slowly(frame)
    assert full == AudioDelta("resp_1", item, index, base64.b64encode(pcm))
    assert fast in (None, full)
    assert spaced or fast is not None or len(json.dumps(item)) > 300


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "event_id": st.text(st.sampled_from('ab"\\,:é'), max_size=6),
        "item_id": st.sampled_from(["item_1", "item_2", 'item","x":"', 7, None]),
        "response_id": st.sampled_from(["resp_1", "resp_2"]),
        "content_index": st.sampled_from([0, 1, "1", 2**60]),
        "delta": st.text(st.sampled_from("AB+/= \\"), max_size=9) | st.just(TEXT),
        "type": st.sampled_from(["response.output_text.delta", "x.output_audio.delta", "error"]),
        "more": st.just("x"),
    },
)


@given(changes=st.lists(CHANGES, min_size=2, max_size=6))
@example([{}, {"delta": "="}, {"delta": "AA="}, {"delta": ""}])
@example([{"event_id": "a"}, {"event_id": 'a"', "item_id": "item_2"}, {"event_id": "b"}])
@settings(max_examples=150, deadline=None)
def test_what_is_remembered_of_one_frame_never_changes_the_next(changes: list[dict[str, Any]]) -> None:
    deltas = AudioDeltaMatcher()
    for change in changes:
        frame = frame_of(DELTA | change)
        assert deltas.match(frame) == find_audio_delta(frame)


def test_deltas_of_one_item_are_matched_by_the_remembered_bytes() -> None:
    deltas = AudioDeltaMatcher()
    for number, item in enumerate(["item_1", "item_1", "item_2", "item_2", "item_1"]):
        frame = frame_of(DELTA | {"event_id": f"event_{number}", "item_id": item})
        found = deltas.match(frame)
        assert found == AudioDelta("resp_1", item, 1, TEXT.encode())


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_frame_is_no_audio_of_another_kind(data: st.DataObject) -> None:
    frame = bytearray(frame_of(DELTA))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(frame) - 1))
        frame[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    fast = find_audio_delta(bytes(frame))
    if fast is None:
        return
    full = slowly(bytes(frame))
    if isinstance(full, MalformedUpstreamMessage):  # JSON forbids what base64 forbids too: found out at decoding
        with pytest.raises(ValueError):
            decode_audio(fast.audio)
    else:
        assert fast == full


@given(st.binary(max_size=600))
@settings(max_examples=100, deadline=None)
def test_the_length_is_the_decoded_length(pcm: bytes) -> None:
    assert decoded_length(base64.b64encode(pcm)) == len(pcm)


@given(
    st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(memoryview), st.binary(max_size=9).map(bytearray))
)
@settings(max_examples=100, deadline=None)
def test_an_append_is_the_event_that_the_api_knows(pcm: bytes) -> None:
    event = json.loads(APPEND_TEMPLATE % base64.b64encode(pcm))
    assert event == {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(pcm)).decode()}


_WORDS = (
    b'{"type":"response.output_audio_transcript.delta","event_id":"event_%d","response_id":"resp_%s","item_id":"item_1",'
    b'"output_index":0,"content_index":0,"delta":"%s"}'
)
_ids = st.sampled_from([b"1", b"2", b'1","item_id":"x', b"\\u0031"])
_texts = st.sampled_from(
    [
        b"",
        b"hello ",
        b"\xc3\xa9t\xc3\xa9",
        b"a\\nb",
        b'a\\"b',
        b"\x01",
        b"\xff",
        b'","response_id":"other',
        b"\\",
        b'"}',
    ]
) | st.binary(max_size=6)


@given(st.lists(st.tuples(_ids, _texts), max_size=8))
def test_remembered_transcripts_are_read_as_the_full_decoder_reads_them(frames: list[tuple[bytes, bytes]]) -> None:
    codec = OpenAIUpstreamCodec()
    for number, (response_id, text) in enumerate(frames):
        frame = _WORDS % (number, response_id, text)
        assert codec.decode(frame) == OpenAIUpstreamCodec().decode(frame)
