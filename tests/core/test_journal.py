"""Events and commands as JSON lines: the round trip is exact, and what is no event is refused by name."""

import json
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.formats import PCM16_16K, PCM16_24K, PCMA, PCMU, AudioFormat
from audio.framing import Chunk
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.journal import from_json, plain, to_json
from relay.core.values import ClipHanded, Item, SessionConfig

KINDS = sorted({*get_args(ev.Event), *get_args(cmd.Command)}, key=lambda kind: kind.__name__)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    if hint is Any:
        return JSON
    if hint == Chunk:
        return st.binary(max_size=40)
    if hint is AudioFormat:
        return st.sampled_from([PCM16_16K, PCM16_24K, PCMU, PCMA])
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, types.UnionType):
        return st.one_of([st.none() if arg is type(None) else values_of(arg) for arg in args])
    if origin is tuple:
        return st.lists(values_of(args[0]), max_size=3).map(tuple)
    if origin is Mapping:
        return st.dictionaries(st.text(max_size=8), JSON, max_size=3)
    if is_dataclass(hint):
        return any_of(hint)
    scalars = {
        str: st.text(max_size=20),
        int: st.integers(),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
    }
    return scalars[hint]


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    names = getattr(kind, "_fields", None) or [*kind.__dataclass_fields__]
    return st.builds(kind, **{name: values_of(hints[name]) for name in names})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=6, deadline=None)
def test_every_event_and_command_comes_back_as_it_was(kind: type, data: st.DataObject) -> None:
    value = data.draw(any_of(kind))
    line = json.dumps(to_json(value))
    assert "\n" not in line
    back = from_json(json.loads(line))
    assert back == value
    assert type(back) is kind
    assert json.dumps(to_json(back)) == line


def test_a_line_is_readable_by_itself() -> None:
    event = ev.AudioDropped((ClipHanded("item_1", 0, 900, 800),))
    assert to_json(event) == {
        "t": "AudioDropped",
        "clips": [{"item_id": "item_1", "content_index": 0, "handed_ms": 900, "estimated_ms": 800}],
    }
    created = cmd.CreateItem(Item("", "message", "user", text="hi"), "relay_1")
    assert from_json(to_json(created)) == created


@pytest.mark.parametrize("chunk", [b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"x\x00\xffx")[1:3]])
def test_audio_of_any_kind_of_buffer_is_base64(chunk: Chunk) -> None:
    obj = to_json(ev.Forwarded("output_audio", "item_1", 2, chunk, "resp_1"))
    assert obj["raw"] == "AP8="
    assert from_json(obj) == ev.Forwarded("output_audio", "item_1", 2, b"\x00\xff", "resp_1")


def test_fields_with_a_default_may_be_left_out() -> None:
    assert from_json({"t": "ClientClosed", "code": 1000}) == ev.ClientClosed(1000)


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        ({}, "unknown event or command None"),
        ({"t": None}, "unknown event or command None"),
        ({"t": ["Tick"]}, "unknown event or command"),
        ({"t": "Nonsense"}, "unknown event or command 'Nonsense'"),
        ({"t": "Item", "id": "i", "kind": "message"}, "unknown event or command 'Item'"),
        ({"t": "Enum"}, "unknown event or command"),
        ({"t": "Tick", "extra": 1}, "Tick has no field 'extra'"),
        ({"t": "Playback", "item_id": "i"}, "Playback: "),
        ({"t": "Playback", "item_id": "i", "played_ms": "7"}, "'7' is not of type int"),
        ({"t": "Playback", "item_id": "i", "played_ms": True}, "True is not of type int"),
        ({"t": "Playback", "item_id": None, "played_ms": 7}, "None is not of type str"),
        ({"t": "Hello", "turn": "sometimes"}, "'sometimes' is none of"),
        ({"t": "Hello", "turn": ["manual"]}, "is none of"),
        ({"t": "Hello", "given": "voice"}, "'voice' is not a list"),
        ({"t": "Hello", "given": 7}, "7 is not a list"),
        ({"t": "Hello", "given": [7]}, "7 is not of type str"),
        ({"t": "Hello", "input": {"encoding": "opus", "rate_hz": 48000}}, "'opus' is none of 'pcm16'"),
        ({"t": "Hello", "input": {"encoding": "pcmu", "rate_hz": 48000}}, "Hello: rate of pcmu must be one of 8000"),
        ({"t": "Hello", "input": [16000]}, "Hello: [16000] is not an object"),
        ({"t": "AudioDropped", "clips": [{"item_id": "i"}]}, "AudioDropped: "),
        ({"t": "AudioDropped", "clips": ["i"]}, "AudioDropped: 'i' is not an object"),
        ({"t": "AudioDropped", "clips": [{"item": "i"}]}, "ClipHanded has no field 'item'"),
        (
            {"t": "Forwarded", "kind": "input_audio", "item_id": "", "n_bytes": 0, "raw": 7},
            "Forwarded: 7 is not base64",
        ),
        ({"t": "Forwarded", "kind": "input_audio", "item_id": "", "n_bytes": 0, "raw": "A"}, "Forwarded: "),
        ({"t": "Forwarded", "kind": "input_audio", "item_id": "", "n_bytes": 0, "raw": "ä"}, "Forwarded: "),
        ([], "a JSON object"),
        ("Tick", "a JSON object"),
        (None, "a JSON object"),
    ],
    ids=str,
)
def test_what_is_no_event_is_refused_by_name(obj: Any, words: str) -> None:
    with pytest.raises(ValueError) as raised:
        from_json(obj)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 300


@given(kind=st.sampled_from(KINDS), fields=st.dictionaries(st.text(max_size=8), JSON, max_size=3), data=st.data())
@settings(max_examples=100, deadline=None)
def test_no_line_raises_anything_but_a_value_error(kind: type, fields: dict[str, Any], data: st.DataObject) -> None:
    names = sorted(get_type_hints(kind))
    wrong = data.draw(st.dictionaries(st.sampled_from(names), JSON, max_size=4)) if names else {}
    try:
        back = from_json({"t": kind.__name__, **fields, **wrong})
    except ValueError:
        return
    assert type(back) is kind


def test_fields_that_older_recordings_do_not_have_are_written_only_where_they_are_set() -> None:
    limits = {"max_output_tokens": 100, "effort": "low"}
    assert not limits.keys() & plain(SessionConfig()).keys()
    limited = plain(SessionConfig(max_output_tokens=100, effort="low"))
    assert {name: limited[name] for name in limits} == limits
