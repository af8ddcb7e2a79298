"""The beta dialect against golden pairs in both directions, each valid by the official types of its dialect."""

import copy
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types import beta, realtime
from openai.types.beta.realtime import RealtimeServerEvent as BetaServerEvent
from pydantic import TypeAdapter

from relay.protocols.openai.beta import (
    MAX_OPEN_ITEMS,
    BetaClientDialect,
    BetaUpstreamDialect,
    client_event_to_beta,
    client_event_to_ga,
)

Obj = dict[str, Any]
GOLDEN = json.loads((Path(__file__).parents[1] / "golden/beta.json").read_text())
_GA: TypeAdapter[Any] = TypeAdapter(realtime.RealtimeServerEvent)
_BETA: TypeAdapter[Any] = TypeAdapter(BetaServerEvent)
# Shapes that the SDK's beta types require or refuse and the wire does not: see each place.
LOOSE = {"transcription_session.updated"}


def label(pair: Obj) -> str:
    first = pair["beta"][-1] if isinstance(pair["beta"], list) else pair["beta"]
    return str(first["type"])


@pytest.mark.parametrize("pair", GOLDEN["client"], ids=label)
def test_client_events(pair: Obj) -> None:
    before = copy.deepcopy(pair)
    assert client_event_to_ga(pair["beta"]) == pair["ga"]
    assert client_event_to_beta(pair["ga"]) == pair["beta"]
    assert pair == before, "events are never changed in place"


@pytest.mark.parametrize("pair", GOLDEN["server"], ids=label)
def test_server_events(pair: Obj) -> None:
    before = copy.deepcopy(pair)
    upstream = BetaUpstreamDialect()
    assert [ga for event in pair["beta"] for ga in upstream.to_client(event)] == pair["ga"]
    assert [event for ga in pair["ga"] for event in BetaClientDialect().to_client(ga)] == pair["beta"]
    assert pair == before


@pytest.mark.parametrize("pair", GOLDEN["server"], ids=label)
def test_the_golden_events_are_valid_in_their_dialects(pair: Obj) -> None:
    for event in pair["ga"]:
        _GA.validate_python(event, strict=True)
    for event in pair["beta"]:
        if event["type"] not in LOOSE:
            _BETA.validate_python(event, strict=True)


def types_of(union: Any) -> set[str]:
    members = get_args(get_args(union)[0])
    return {get_args(member.model_fields["type"].annotation)[0] for member in members}


def test_the_golden_files_hold_every_event_of_both_dialects() -> None:
    ga_only = {
        "conversation.item.created",  # typed in GA still, never sent
        "conversation.item.input_audio_transcription.segment",
        "input_audio_buffer.dtmf_event_received",
        "input_audio_buffer.timeout_triggered",
    } | {kind for kind in types_of(realtime.RealtimeServerEvent) if "mcp" in kind}
    server = GOLDEN["server"]
    assert {event["type"] for pair in server for event in pair["beta"]} == types_of(BetaServerEvent)
    assert {event["type"] for pair in server for event in pair["ga"]} == types_of(
        realtime.RealtimeServerEvent
    ) - ga_only
    client = GOLDEN["client"]
    assert {pair["beta"]["type"] for pair in client} == types_of(beta.realtime.RealtimeClientEvent)
    assert {pair["ga"]["type"] for pair in client} == types_of(realtime.RealtimeClientEvent)


def test_members_of_one_dialect_are_dropped_or_forwarded() -> None:
    update = {"type": "session.update", "session": {"temperature": 0.8, "client_secret": {}, "voice": "cedar"}}
    assert client_event_to_ga(update)["session"] == {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    create = {"type": "response.create", "response": {"temperature": 0.8}}
    assert client_event_to_ga(create)["response"] == {}
    ga = {
        "type": "session.updated",
        "session": {"type": "realtime", "truncation": "auto", "reasoning": {"effort": "low"}},
    }
    assert BetaClientDialect().to_client(ga)[0]["session"] == {}
    mcp = {"type": "response.mcp_call.completed", "item_id": "i", "output_index": 0}
    assert BetaClientDialect().to_client(mcp) == [mcp]


def test_a_ga_session_on_a_beta_connection_is_taken_as_it_is() -> None:
    session = {"type": "realtime", "output_modalities": ["text"], "audio": {"input": {"turn_detection": None}}}
    assert client_event_to_ga({"type": "session.update", "session": session})["session"] == session


def test_a_transcription_without_usage_has_none() -> None:
    event = {"type": "conversation.item.input_audio_transcription.completed", "item_id": "i", "transcript": "hi"}
    [translated] = BetaUpstreamDialect().to_client(event)
    assert translated["usage"] == {"type": "tokens", "input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


def test_what_is_remembered_of_items_is_bounded() -> None:
    upstream = BetaUpstreamDialect()
    for number in range(MAX_OPEN_ITEMS + 50):
        item = {"id": f"item_{number}", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        upstream.to_client({"type": "conversation.item.created", "previous_item_id": None, "item": item})
    assert len(upstream._open_items) == MAX_OPEN_ITEMS


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_SERVER = {event["type"] for pair in GOLDEN["server"] for event in pair["beta"] + pair["ga"]}
_CLIENT = {pair[dialect]["type"] for pair in GOLDEN["client"] for dialect in ("beta", "ga")}
_kinds = st.sampled_from(sorted(_SERVER | _CLIENT))
_members = st.sampled_from(["session", "response", "item", "item_id", "previous_item_id", "part", "event_id", "name"])


@example({"type": "transcription_session.update", "session": 5})
@given(st.builds(lambda kind, rest: {"type": kind} | rest, _kinds | st.text(), st.dictionaries(_members, _json)))
def test_no_shape_breaks_it(event: Obj) -> None:
    upstream = BetaUpstreamDialect()
    for events in (
        *upstream.to_client(event),
        *BetaClientDialect().to_client(event),
        *upstream.to_upstream(event),
        *BetaClientDialect().to_upstream(event),
    ):
        assert json.loads(json.dumps(events)) == events
