"""The server encoder: its events are decoded again by our decoder, and accepted by OpenAI's types."""

from typing import Any

import orjson
import pybase64
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._models import construct_type, validate_type
from openai.types.realtime import RealtimeServerEvent

from relay.protocols.openai.audio_events import APPEND_TEMPLATE
from relay.protocols.openai.server_encoder import ServerEventEncoder, decode_append
from relay.protocols.openai.server_events import REQUEST_METADATA_KEY
from relay.protocols.openai.upstream_codec import OpenAIUpstreamCodec
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import Item, Usage
from relay.session.device import events as ev

CALL = Item("item_c", "function_call", status="completed", call_id="call_1", name="clock", arguments="{}")
EVENTS: list[ev.UpstreamEvent | AudioDelta] = [
    ev.SessionCreated("gpt-realtime", None, 1_800_000_000),
    ev.SessionUpdated(),
    ev.SpeechStarted("item_u", 120),
    ev.SpeechStopped("item_u", 920),
    ev.InputCommitted("item_u", "item_0"),
    ev.InputCleared(),
    ev.UserTranscript("item_u", "what ti", False),
    ev.UserTranscript("item_u", "what time is it", True),
    ev.UserTranscriptFailed("item_u", "too quiet"),
    ev.ItemAdded(Item("item_u", "message", "user", status="completed", text="hi"), "item_0"),
    ev.ItemAdded(Item("item_a", "message", "assistant", status="in_progress")),
    ev.ItemAdded(Item("item_o", "function_call_output", status="completed", call_id="call_1")),
    ev.ItemDeleted("item_u"),
    ev.ItemTruncated("item_a", 700),
    ev.ResponseCreated("resp_1"),
    ev.ResponseCreated("resp_1", "relay_3"),
    ev.OutputItemAdded("resp_1", Item("item_a", "message", "assistant", status="in_progress")),
    ev.TextDelta("resp_1", "item_a", 0, "No", True),
    ev.TextDelta("resp_1", "item_a", 0, "No", False),
    ev.TextDone("resp_1", "item_a", 0, "Noon", True),
    ev.TextDone("resp_1", "item_a", 0, "Noon", False),
    AudioDelta("resp_1", "item_a", 0, b"AAAAAA=="),
    ev.OutputAudioDone("resp_1", "item_a", 0),
    ev.ResponseDone("resp_1", "completed", output=(CALL,), usage=Usage(10, 5, 15, 4, 6, 0, 3, 2), request_id="relay_3"),
    ev.ResponseDone("resp_1", "cancelled", reason="turn_detected"),
    ev.ResponseDone("resp_1", "failed", error_code="server_error", error_message="it broke"),
    ev.UpstreamErrorEvent("bad", "It is bad.", "invalid_request_error", "session", "event_1"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_what_is_encoded_is_decoded_again(event: ev.UpstreamEvent | AudioDelta) -> None:
    server_events = ServerEventEncoder({}).encode(event)
    assert OpenAIUpstreamCodec().decode(orjson.dumps(server_events[-1])) == event


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_openai_s_types_accept_it(event: ev.UpstreamEvent | AudioDelta) -> None:
    for server_event in ServerEventEncoder({"model": "gpt-realtime"}).encode(event):
        validate_type(type_=RealtimeServerEvent, value=server_event)  # type: ignore[arg-type]
        read: Any = construct_type(type_=RealtimeServerEvent, value=server_event)
        assert (read.type, read.event_id) == (server_event["type"], server_event["event_id"])


def test_a_response_has_the_metadata_of_its_request() -> None:
    encoder = ServerEventEncoder({})
    (created,) = encoder.encode(ev.ResponseCreated("resp_1", "relay_3"), {"mine": "yes"})
    assert created["response"]["metadata"] == {"mine": "yes"}
    (created,) = encoder.encode(ev.ResponseCreated("resp_1", "relay_3"))
    assert created["response"]["metadata"] == {REQUEST_METADATA_KEY: "relay_3"}


def test_items_keep_their_place_in_their_response() -> None:
    encoder = ServerEventEncoder({})
    items = [Item(f"item_{n}", "message", "assistant") for n in range(2)]
    places = [encoder.encode(ev.OutputItemAdded("resp_1", item))[0]["output_index"] for item in items]
    places += [encoder.encode(ev.OutputAudioDone("resp_1", item.id, 0))[0]["output_index"] for item in items]
    assert places == [0, 1, 0, 1]
    assert encoder.encode(ev.OutputAudioDone("resp_2", "item_9", 0))[0]["output_index"] == 0


@pytest.mark.parametrize(
    "event",
    [ev.UpstreamOpened(), ev.UpstreamBackpressure(1), ev.IgnoredUpstreamEvent("x"), ev.MalformedUpstreamMessage("y")],
)
def test_an_invalid_message_is_none(event: ev.UpstreamEvent) -> None:
    assert ServerEventEncoder({}).encode(event) == []


@given(st.binary(max_size=30))
@settings(max_examples=20)
def test_appended_audio_is_read(pcm: bytes) -> None:
    frame = orjson.loads(APPEND_TEMPLATE % pybase64.b64encode(pcm))
    assert decode_append(frame) == pcm
    assert decode_append({"type": "input_audio_buffer.append", "audio": "ä"}) is None
    assert decode_append({"type": "input_audio_buffer.append"}) is None
    assert decode_append({"type": "response.create"}) is None
