"""Events and commands as JSON, by their stored names: the round trip is exact, and invalid ones are refused by name."""

import json
import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.formats import PCM16_16K, PCM16_24K, PCMA, PCMU, AudioFormat
from audio.framing import BytesLike
from relay.recording.format.serialize import encode_value, from_json, to_json
from relay.recording.format.tags import COMMANDS, EVENTS
from relay.session.common.model import DeviceOptions, Item, SentAudio, SessionConfig
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime import events as rt

KINDS = sorted((row.python_type for row in (*EVENTS, *COMMANDS)), key=lambda kind: kind.__name__)
TAGS = {row.python_type: row.tag for row in (*EVENTS, *COMMANDS)}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a field's type."""
    if hint is Any:
        return JSON
    if hint == BytesLike:
        return st.text(max_size=20).map(str.encode)
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
    names = set(getattr(kind, "_fields", None) or kind.__dataclass_fields__) - {"n_members"}  # not stored
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
    event = ev.PlayoutCleared((SentAudio("item_1", 0, 900, 800),))
    assert to_json(event) == {
        "t": "playout_cleared",
        "parts": [{"item_id": "item_1", "content_index": 0, "sent_ms": 900, "played_ms": 800}],
    }
    created = cmd.CreateItem(Item("", "message", "user", text="hi"), "relay_1")
    assert from_json(to_json(created)) == created


@pytest.mark.parametrize("chunk", [b"{\xc3\xa9}", bytearray(b"{\xc3\xa9}"), memoryview(b"x{\xc3\xa9}x")[1:5]])
def test_an_event_in_any_kind_of_buffer_is_text(chunk: BytesLike) -> None:
    obj = to_json(rt.ForwardToClient(chunk))
    assert obj == {"t": "forward_to_client", "frame": "{é}"}
    assert from_json(obj) == rt.ForwardToClient("{é}".encode())


def test_fields_with_a_default_may_be_left_out() -> None:
    assert from_json({"t": "client_closed", "code": 1000}) == ev.ClientClosed(1000)


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({}, "unknown event or command None"),
        ({"t": None}, "unknown event or command None"),
        ({"t": ["deadline_reached"]}, "unknown event or command"),
        ({"t": "nonsense"}, "unknown event or command 'nonsense'"),
        ({"t": "item", "id": "i", "kind": "message"}, "unknown event or command 'item'"),
        ({"t": "Row"}, "unknown event or command"),
        ({"t": "deadline_reached", "extra": 1}, "deadline_reached has no field 'extra'"),
        ({"t": "playback", "item_id": "i"}, "playback: "),
        ({"t": "playback", "item_id": "i", "played_ms": "7"}, "'7' is not of type int"),
        ({"t": "playback", "item_id": "i", "played_ms": True}, "True is not of type int"),
        ({"t": "playback", "item_id": None, "played_ms": 7}, "None is not of type str"),
        ({"t": "hello", "turn": "sometimes"}, "'sometimes' is not one of"),
        ({"t": "hello", "turn": ["manual"]}, "is not one of"),
        ({"t": "hello", "fields": "voice"}, "'voice' is not a list"),
        ({"t": "hello", "fields": 7}, "7 is not a list"),
        ({"t": "hello", "fields": [7]}, "7 is not of type str"),
        ({"t": "hello", "input": {"encoding": "opus", "rate_hz": 48000}}, "'opus' is not one of 'pcm16'"),
        ({"t": "hello", "input": {"encoding": "pcmu", "rate_hz": 48000}}, "hello: rate of pcmu must be one of 8000"),
        ({"t": "hello", "input": [16000]}, "hello: [16000] is not an object"),
        ({"t": "playout_cleared", "parts": [{"item_id": "i"}]}, "playout_cleared: "),
        ({"t": "playout_cleared", "parts": ["i"]}, "playout_cleared: 'i' is not an object"),
        ({"t": "playout_cleared", "parts": [{"item": "i"}]}, "sent_part has no field 'item'"),
        ({"t": "forward_to_client", "frame": 7}, "forward_to_client: 7 is not a text"),
        ({"t": "forward_to_client"}, "forward_to_client: frame is missing"),
        ({"t": "SpeechStarted", "item_id": "i"}, "unknown event or command 'SpeechStarted'"),
        ([], "a JSON object"),
        ("deadline_reached", "a JSON object"),
        (None, "a JSON object"),
    ],
    ids=str,
)
def test_what_is_no_event_is_refused_by_name(obj: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        from_json(obj)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 300


@given(kind=st.sampled_from(KINDS), fields=st.dictionaries(st.text(max_size=8), JSON, max_size=3), data=st.data())
@settings(max_examples=100, deadline=None)
def test_no_line_raises_anything_but_a_value_error(kind: type, fields: dict[str, Any], data: st.DataObject) -> None:
    names = sorted(get_type_hints(kind))
    wrong = data.draw(st.dictionaries(st.sampled_from(names), JSON, max_size=4)) if names else {}
    try:
        back = from_json({"t": TAGS[kind], **fields, **wrong})
    except ValueError:
        return
    assert type(back) is kind


def test_what_is_none_by_default_is_not_stored() -> None:
    limits = {"max_output_tokens": 100, "effort": "low"}
    assert not limits.keys() & encode_value(SessionConfig()).keys()
    limited = encode_value(SessionConfig(max_output_tokens=100, effort="low"))
    assert {name: limited[name] for name in limits} == limits
    assert encode_value(DeviceOptions(max_ahead_ms=None))["max_ahead_ms"] is None  # not the default
