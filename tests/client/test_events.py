"""The typed events against the schema of the device protocol."""

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.formats import PCM16_24K, PCMU, AudioFormat
from relay.client import (
    AudioStartEvent,
    ConnectedEvent,
    LatencyEvent,
    ToolCallEvent,
    TranscriptEvent,
    UnknownEvent,
)
from relay.client.events import _EVENT_TYPES, parse_event
from relay.session.device.turn_metrics import EXAMPLE_TURNS, METRICS, camel_case
from tests.support.device_schema import DEFS, MESSAGES

WIRE = {"input_format": "input", "output_format": "output"}
NOT_TYPED = {"type", "name", "protocol"}


def test_every_message_to_a_client_has_an_event() -> None:
    assert set(_EVENT_TYPES) == set(MESSAGES["toClient"])


@pytest.mark.parametrize("wire", MESSAGES["toClient"])
def test_an_event_has_the_fields_of_its_message(wire: str) -> None:
    typed = {WIRE.get(one.name) or camel_case(one.name) for one in fields(_EVENT_TYPES[wire]) if one.name != "raw"}
    figures = {figure.wire_name for figure in METRICS} if wire == "latency" else set()
    properties = set(DEFS[wire]["properties"]) - {"type", "protocol"}
    is_event = "name" in DEFS[wire]["properties"] and "const" in DEFS[wire]["properties"]["name"]
    assert typed == properties - figures - ({"name"} if is_event else set())


@pytest.mark.parametrize("wire", MESSAGES["toClient"])
def test_the_examples_of_the_schema_are_read(wire: str) -> None:
    for example in DEFS[wire]["examples"]:
        event = parse_event(json.dumps(example))
        assert (type(event), event.raw) == (_EVENT_TYPES[wire], example)
        for one in fields(event):
            member = WIRE.get(one.name) or camel_case(one.name)
            if isinstance(example.get(member), str | int | bool):
                assert getattr(event, one.name) == example[member]


def test_formats_and_lists_are_converted() -> None:
    message = {
        "type": "ready", "input": {"format": "pcmu", "rate": 8000}, "output": {"rate": 24000}, "voice": None,
        "turn": "manual", "maxAheadMs": None, "duplex": "half", "language": None, "tools": ["a", 5, "b"],
    }  # fmt: skip
    event = parse_event(json.dumps(message))
    assert (event.input_format, event.output_format, event.tools) == (PCMU, PCM16_24K, ("a", "b"))  # type: ignore[attr-defined]


def test_a_format_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="rate of pcm16"):
        parse_event('{"type": "event", "name": "AIConnected", "input": {"rate": "fast"}}')


def test_a_relay_that_names_no_format_speaks_pcm16_at_16_khz() -> None:
    event = parse_event('{"type": "event", "name": "AIConnected"}')
    assert isinstance(event, ConnectedEvent)
    assert event.output_format == AudioFormat("pcm16", 16_000)


def test_what_has_another_type_has_its_default() -> None:
    event = parse_event('{"type": "transcript", "text": 5, "final": "yes", "role": null, "new": [1]}')
    assert event == TranscriptEvent(raw=event.raw)
    assert event.raw["new"] == [1]
    assert parse_event('{"type": "toolCall", "arguments": [1]}') == ToolCallEvent(
        raw={"type": "toolCall", "arguments": [1]}
    )


def test_latencies_are_named_as_the_metrics_of_a_turn() -> None:
    for turn in EXAMPLE_TURNS:
        event = parse_event(json.dumps({"type": "latency", "itemId": "item_7", **turn.to_wire()}))
        assert isinstance(event, LatencyEvent)
        assert event.total_ms == turn.total_ms
        assert all(getattr(turn, name) == ms for name, ms in event.metrics.items())


def test_an_item_id_that_is_too_long_counts_as_none() -> None:
    for item_id, kept in (("i" * 256, "i" * 256), ("i" * 257, "")):
        assert parse_event(json.dumps({"type": "audioStart", "itemId": item_id})) == AudioStartEvent(
            raw={"type": "audioStart", "itemId": item_id}, item_id=kept
        )


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "5", '"x"'])
def test_a_text_that_is_not_a_message_is_unknown(text: str) -> None:
    assert parse_event(text) == UnknownEvent()


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)
names = st.sampled_from([*MESSAGES["toClient"], "event", "?"])
members = st.sampled_from(
    ["name", "status", "text", "role", "final", "ms", "output", "input", "arguments", "totalMs", "itemId", "tools"]
)


@given(names, names | values, st.dictionaries(members, values))
def test_no_message_breaks_the_parser_but_a_format_that_does_not_exist(
    kind: str, name: object, more: dict[str, object]
) -> None:
    message = {"name": name, **more, "type": kind}
    try:
        event = parse_event(json.dumps(message))
    except ValueError:
        assert kind in ("event", "ready")
        assert isinstance(message.get("input"), dict) or isinstance(message.get("output"), dict)
    else:
        assert event.raw == message
