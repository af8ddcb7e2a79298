"""The upstream codec: any message becomes an event, and every message sent is valid by OpenAI's types."""

import base64
import copy
import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel, TypeAdapter

from audio.formats import PCM16_24K, AudioFormat
from relay.protocols.openai.audio_events import APPEND_TEMPLATE, MAX_ID_CHARS, decode_audio
from relay.protocols.openai.server_events import (
    DECODERS,
    MAX_OUTPUT_ITEMS,
    MAX_TEXT_CHARS,
    REQUEST_METADATA_KEY,
    UNUSED_EVENT_TYPES,
)
from relay.protocols.openai.upstream_codec import OpenAIUpstreamCodec
from relay.session.common.media_types import AudioDelta
from relay.session.common.model import Item, SessionConfig, ToolSpec, TurnDetection, Usage
from relay.session.device import commands as cmd
from relay.session.device import events as ev

CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)
SERVER_EVENTS: tuple[type[BaseModel], ...] = get_args(get_args(RealtimeServerEvent)[0])

Obj = dict[str, Any]


def encoded(command: cmd.UpstreamCommand) -> Obj:
    """An encoded command, validated strictly against OpenAI's types, without unknown keys."""
    frame = OpenAIUpstreamCodec().encode(command)
    event = CLIENT_EVENT.validate_json(frame, strict=True)
    assert list(unknown_keys(event)) == []
    decoded: Obj = json.loads(frame)
    return decoded


def unknown_keys(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (f"{path}.{key}" for key in value.model_extra or ())
        for key in type(value).model_fields:
            yield from unknown_keys(getattr(value, key), f"{path}.{key}")
    elif isinstance(value, list):
        for member in value:
            yield from unknown_keys(member, f"{path}[]")


def decoded(event: object) -> ev.UpstreamEvent | AudioDelta:
    return OpenAIUpstreamCodec().decode(json.dumps(event).encode())


# -- encoding ---------------------------------------------------------------------------------------------------------

TOOL = ToolSpec(
    "clock",
    "Tells the time.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    examples=("what time is it in {city}",),
)
TURNS = [
    TurnDetection("server_vad"),
    TurnDetection("server_vad", threshold=0.6, prefix_padding_ms=300, silence_duration_ms=450),
    TurnDetection("server_vad", create_response=False, interrupt_response=False),
    TurnDetection("semantic_vad"),
    *[TurnDetection("semantic_vad", eagerness=eagerness) for eagerness in ("low", "medium", "high", "auto")],
    TurnDetection("manual"),
]


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: f"{turn.kind}-{turn.eagerness}-{turn.threshold}")
@pytest.mark.parametrize("audio", [PCM16_24K, AudioFormat("pcmu", 8000), AudioFormat("pcma", 8000)], ids=str)
@pytest.mark.parametrize("full", [False, True], ids=["bare", "full"])
def test_every_configuration_is_a_session_update(turn: TurnDetection, audio: AudioFormat, full: bool) -> None:
    config = SessionConfig(turn=turn, input_format=audio, output_format=audio)
    if full:
        config = SessionConfig(
            "marin",
            "Be brief.",
            "German",
            "Scottish",
            "calm",
            turn,
            "gpt-transcribe",
            "near_field",
            audio,
            audio,
            (TOOL,),
        )
    event = encoded(cmd.ConfigureSession(config, "relay_1", include_examples=False))
    session = event["session"]
    assert (event["type"], event["event_id"], session["type"]) == ("session.update", "relay_1", "realtime")
    assert ("tools" in session, "instructions" in session, "voice" in session["audio"]["output"]) == (full, full, full)
    detection = session["audio"]["input"]["turn_detection"]
    assert (detection or {"type": "manual"})["type"] == turn.kind
    assert None not in (detection or {}).values()


def test_manual_turns_set_turn_detection_to_null() -> None:
    session = encoded(cmd.ConfigureSession(SessionConfig(turn=TurnDetection("manual")), "relay_1"))["session"]
    assert session["audio"]["input"] == {"format": {"type": "audio/pcm", "rate": 24000}, "turn_detection": None}


def test_empty_values_are_left_out() -> None:
    session = encoded(cmd.ConfigureSession(SessionConfig(instructions="  ", language=" "), "relay_1"))["session"]
    assert session.keys() == {"type", "output_modalities", "audio"}
    assert session["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24000}}


def test_example_sentences_go_only_to_an_engine_that_learns_from_them() -> None:
    config = SessionConfig(tools=(TOOL,))
    session = encoded(cmd.ConfigureSession(config, "relay_1", include_examples=False))["session"]["tools"][0]
    taught = encoded(cmd.ConfigureSession(config, "relay_1", include_examples=True))["session"]["tools"][0]
    assert session["parameters"] == TOOL.parameters
    assert taught["parameters"] == {**TOOL.parameters, "x-examples": ["what time is it in {city}"]}
    assert "x-examples" not in TOOL.parameters


@pytest.mark.parametrize(
    ("command", "event"),
    [
        (cmd.CommitInput("relay_1"), {"type": "input_audio_buffer.commit", "event_id": "relay_1"}),
        (cmd.ClearInput("relay_1"), {"type": "input_audio_buffer.clear", "event_id": "relay_1"}),
        (
            cmd.CreateItem(Item("", "message", "user", text="hi"), "relay_1"),
            {
                "type": "conversation.item.create",
                "event_id": "relay_1",
                "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            },
        ),
        (
            cmd.CreateItem(Item("item_1", "message", "assistant", text="hello"), "relay_1"),
            {
                "type": "conversation.item.create",
                "event_id": "relay_1",
                "item": {
                    "type": "message",
                    "id": "item_1",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "hello"}],
                },
            },
        ),
        (
            cmd.CreateItem(Item("", "message", "system", text="be kind"), "relay_1"),
            {
                "type": "conversation.item.create",
                "event_id": "relay_1",
                "item": {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "be kind"}]},
            },
        ),
        (
            cmd.CreateItem(Item("", "function_call_output", call_id="call_1", text='{"ok":true}'), "relay_1"),
            {
                "type": "conversation.item.create",
                "event_id": "relay_1",
                "item": {"type": "function_call_output", "call_id": "call_1", "output": '{"ok":true}'},
            },
        ),
        (
            cmd.DeleteItem("item_1", "relay_1"),
            {"type": "conversation.item.delete", "event_id": "relay_1", "item_id": "item_1"},
        ),
        (
            cmd.TruncateItem("item_1", 0, 1500, "relay_1"),
            {
                "type": "conversation.item.truncate",
                "event_id": "relay_1",
                "item_id": "item_1",
                "content_index": 0,
                "audio_end_ms": 1500,
            },
        ),
        (
            cmd.CreateResponse("relay_1"),
            {
                "type": "response.create",
                "event_id": "relay_1",
                "response": {"metadata": {REQUEST_METADATA_KEY: "relay_1"}},
            },
        ),
        (
            cmd.CreateResponse("relay_1", allow_tools=False),
            {
                "type": "response.create",
                "event_id": "relay_1",
                "response": {"metadata": {REQUEST_METADATA_KEY: "relay_1"}, "tool_choice": "none"},
            },
        ),
        (
            cmd.CancelResponse("resp_1", "relay_1"),
            {"type": "response.cancel", "event_id": "relay_1", "response_id": "resp_1"},
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)
def test_every_command_is_a_client_event(command: cmd.UpstreamCommand, event: Obj) -> None:
    assert encoded(command) == event


def test_no_command_to_the_upstream_is_missing_here() -> None:
    [mark] = [mark for mark in test_every_command_is_a_client_event.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    covered = {type(command) for command, _ in mark.args[1]} | {cmd.ConfigureSession}
    assert covered == set(get_args(cmd.UpstreamCommand))


def test_audio_is_an_append() -> None:
    event = CLIENT_EVENT.validate_json(APPEND_TEMPLATE % base64.b64encode(b"\x01\x02\x03"), strict=True)
    assert event.type == "input_audio_buffer.append"
    assert decode_audio(event.audio.encode()) == b"\x01\x02\x03"


# -- decoding: what OpenAI's types know --------------------------------------------------------------------------------


def instance(annotation: Any, *, full: bool) -> Any:
    """JSON for a type: with the required fields only, or with every optional field."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return instance(get_args(annotation)[0], full=full)
    if origin is Literal:
        return get_args(annotation)[0]
    if origin in (Union, types.UnionType):
        choices = [choice for choice in get_args(annotation) if choice is not type(None)]
        return instance(choices[0], full=full)
    if origin in (list, tuple):
        return [instance(get_args(annotation)[0], full=full)] if full else []
    if origin is dict:
        return {"key": instance(get_args(annotation)[1], full=full)} if full else {}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {
            field.alias or name: instance(field.annotation, full=full)
            for name, field in annotation.model_fields.items()
            if full or field.is_required()
        }
    return {str: "text", int: 7, float: 0.5, bool: True, object: {}}[annotation]


EXAMPLES: dict[str, list[Obj]] = {
    model.__name__: [instance(model, full=False), instance(model, full=True)] for model in SERVER_EVENTS
}
USED = {
    "session.created": ev.SessionCreated,
    "session.updated": ev.SessionUpdated,
    "input_audio_buffer.speech_started": ev.SpeechStarted,
    "input_audio_buffer.speech_stopped": ev.SpeechStopped,
    "input_audio_buffer.committed": ev.InputCommitted,
    "input_audio_buffer.cleared": ev.InputCleared,
    "conversation.item.input_audio_transcription.delta": ev.UserTranscript,
    "conversation.item.input_audio_transcription.completed": ev.UserTranscript,
    "conversation.item.input_audio_transcription.failed": ev.UserTranscriptFailed,
    "conversation.item.added": ev.ItemAdded,
    "conversation.item.deleted": ev.ItemDeleted,
    "conversation.item.truncated": ev.ItemTruncated,
    "response.created": ev.ResponseCreated,
    "response.output_item.added": ev.OutputItemAdded,
    "response.output_audio.delta": AudioDelta,
    "response.output_audio.done": ev.OutputAudioDone,
    "response.output_audio_transcript.delta": ev.TextDelta,
    "response.output_audio_transcript.done": ev.TextDone,
    "response.output_text.delta": ev.TextDelta,
    "response.output_text.done": ev.TextDone,
    "response.done": ev.ResponseDone,
    "error": ev.UpstreamErrorEvent,
}


def test_the_inventory_is_the_one_the_tests_are_written_for() -> None:
    assert len(SERVER_EVENTS) == 46
    for model in SERVER_EVENTS:
        for example in EXAMPLES[model.__name__]:
            model.model_validate(example)
    assert USED.keys() <= {example["type"] for examples in EXAMPLES.values() for example in examples}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_event_of_the_api_is_decoded_or_ignored(name: str) -> None:
    for example in EXAMPLES[name]:
        ids = example if name not in ("ResponseCreatedEvent", "ResponseDoneEvent") else example["response"]
        if ids is not example:
            ids["id"] = "resp_1"  # optional in the types, yet what all else hangs on
        event = decoded(example)
        expected = USED.get(example["type"], ev.IgnoredUpstreamEvent)
        assert type(event) is expected, event
        if type(event) is ev.IgnoredUpstreamEvent:
            assert event.type == example["type"]


# -- decoding: what matters of each -----------------------------------------------------------------------------------


def test_the_end_of_a_response_with_all_that_the_session_needs() -> None:
    event = decoded(
        {
            "type": "response.done",
            "response": {
                "id": "resp_1",
                "status": "completed",
                "metadata": {REQUEST_METADATA_KEY: "relay_7"},
                "output": [
                    {
                        "id": "item_1",
                        "type": "function_call",
                        "status": "completed",
                        "call_id": "call_1",
                        "name": "clock",
                        "arguments": '{"city":"Oslo"}',
                    },
                    {
                        "id": "item_2",
                        "type": "message",
                        "role": "assistant",
                        "content": [
                            {"type": "output_audio", "transcript": "One "},
                            {"type": "output_text", "text": "two"},
                        ],
                    },
                ],
                "usage": {
                    "total_tokens": 30,
                    "input_tokens": 20,
                    "output_tokens": 10,
                    "input_token_details": {"audio_tokens": 12, "text_tokens": 8, "cached_tokens": 5},
                    "output_token_details": {"audio_tokens": 9, "text_tokens": 1},
                },
            },
        }
    )
    assert event == ev.ResponseDone(
        "resp_1",
        "completed",
        output=(
            Item("item_1", "function_call", None, "completed", "call_1", "clock", '{"city":"Oslo"}'),
            Item("item_2", "message", "assistant", text="One two"),
        ),
        usage=Usage(20, 10, 30, 12, 8, 5, 9, 1),
        request_id="relay_7",
    )


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (
            {"status": "cancelled", "status_details": {"type": "cancelled", "reason": "turn_detected"}},
            {"status": "cancelled", "reason": "turn_detected"},
        ),
        (
            {"status": "incomplete", "status_details": {"reason": "max_output_tokens"}, "usage": None},
            {"status": "incomplete", "reason": "max_output_tokens"},
        ),
        (
            {
                "status": "failed",
                "status_details": {"error": {"type": "server_error", "code": None, "message": "with key sk-abcd1234"}},
            },
            {"status": "failed", "error_code": "server_error", "error_message": "with key […]"},
        ),
        ({"status": "a_new_one", "output": None, "status_details": None, "metadata": None}, {"status": "failed"}),
    ],
)
def test_the_ways_a_response_can_end(response: Obj, expected: Obj) -> None:
    event = decoded({"type": "response.done", "response": {"id": "resp_1", **response}})
    assert event == ev.ResponseDone("resp_1", **expected)


def test_an_error_keeps_its_event_id_and_loses_the_secret() -> None:
    event = decoded(
        {
            "type": "error",
            "event_id": "event_9",
            "error": {
                "type": "invalid_request_error",
                "code": "invalid_api_key",
                "message": "Incorrect API key provided: sk-proj-abc****xyz.",
                "param": "session.voice",
                "event_id": "relay_3",
            },
        }
    )
    assert event == ev.UpstreamErrorEvent(
        "invalid_api_key",
        "Incorrect API key provided: […].",
        "invalid_request_error",
        "session.voice",
        "relay_3",
    )


def test_session_created_reports_the_engine() -> None:
    session = {"id": "sess_1", "model": "small", "engine": "relay-local", "expires_at": 1_800_000_000}
    event = decoded({"type": "session.created", "session": session})
    assert event == ev.SessionCreated("small", "relay-local", 1_800_000_000)


def test_numbers_beyond_all_measure_are_cut_so_that_sums_and_json_hold_them() -> None:
    usage = b'{"input_tokens":1e308,"output_tokens":-5,"total_tokens":18446744073709551615}'
    frame = b'{"type":"response.done","response":{"id":"r","usage":' + usage + b"}}"
    event = OpenAIUpstreamCodec().decode(frame)
    assert isinstance(event, ev.ResponseDone)
    assert event.usage == Usage(input_tokens=2**53 - 1, total_tokens=2**53 - 1)


# -- decoding: what nobody should send --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b" ",
        b"null",
        b"0",
        b'"response.done"',
        b"[]",
        b'["type"]',
        b"{}",
        b'{"type":null}',
        b'{"type":["error"]}',
        b'{"type":{}}',
        b'{"type":"error"}',
        b'{"type":"error","error":null}',
        b'{"type":"error","error":"no"}',
        b'{"type":"response.done"}',
        b'{"type":"response.done","response":[]}',
        b'{"type":"response.done","response":{"id":7}}',
        b'{"type":"response.done","response":{"id":"r","output":7}}',
        b'{"type":"response.done","response":{"id":"r","output":[null]}}',
        b'{"type":"response.done","response":{"id":"r","output":["x"]}}',
        b'{"type":"response.done","response":{"id":"r","output":{"a":1}}}',
        b'{"type":"response.done","response":{"id":"r","output":[{"type":"message","content":7}]}}',
        b'{"type":"response.done","response":{"id":"r","status_details":"x"}}',
        b'{"type":"response.done","response":{"id":"r","usage":{"input_token_details":[1]}}}',
        b'{"type":"response.created","response":null}',
        b'{"type":"conversation.item.added","item":"x"}',
        b'{"type":"response.output_audio.delta"}',
        b'{"type":"response.output_audio.delta","item_id":"i","response_id":"r","delta":7}',
        b'{"type":"response.output_audio.delta","item_id":"i","response_id":"r","delta":"AAAA',
        b'{"type":"session.updated"',
        b'{"type":"session.updated"} trailing',
        b'\xff\xfe{"type":"error"}',
        b'{"type":"err\xffor"}',
        b'{"type":"\\ud800"}',
        b'{"type":1e999}',
        b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    ],
    ids=lambda frame: frame[:60].decode(errors="replace") or "empty",
)
def test_an_invalid_event_is_malformed(frame: bytes) -> None:
    event = OpenAIUpstreamCodec().decode(frame)
    assert isinstance(event, ev.MalformedUpstreamMessage | ev.IgnoredUpstreamEvent), event
    assert isinstance(event, ev.MalformedUpstreamMessage) or event.type == "None"
    assert len(getattr(event, "what", "")) <= 200


LONG = "i" * (MAX_ID_CHARS + 1)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_audio.delta", "response_id": "r", "item_id": LONG, "delta": "AAAA"},
        {"type": "response.output_audio.delta", "response_id": LONG, "item_id": "i", "delta": "AAAA"},
        {"type": "response.output_audio_transcript.delta", "response_id": "r", "item_id": LONG, "delta": "word"},
        {"type": "response.output_text.done", "response_id": LONG, "item_id": "i", "text": "words"},
        {"type": "response.created", "response": {"id": LONG}},
        {"type": "response.done", "response": {"id": LONG, "status": "completed"}},
        {"type": "input_audio_buffer.committed", "item_id": LONG},
        {"type": "conversation.item.input_audio_transcription.delta", "item_id": LONG, "delta": "word"},
        {"type": "conversation.item.deleted", "item_id": LONG},
    ],
    ids=lambda event: event["type"],
)
def test_events_with_excessively_long_ids_are_ignored(event: Obj) -> None:
    assert isinstance(decoded(event), ev.MalformedUpstreamMessage)
    assert isinstance(decoded({"event_id": "event_1"} | event), ev.MalformedUpstreamMessage)


def test_no_name_of_an_item_is_longer_than_an_id() -> None:
    item = {"id": LONG, "type": "function_call", "role": LONG, "call_id": LONG, "name": LONG}
    event = decoded({"type": "conversation.item.added", "item": item})
    assert isinstance(event, ev.ItemAdded)
    assert event.item == Item("", "function_call")


def test_a_response_with_more_items_than_any_has_is_cut() -> None:
    items = [{"id": f"item_{number}", "type": "message"} for number in range(MAX_OUTPUT_ITEMS + 1)]
    done = decoded({"type": "response.done", "response": {"id": "resp_1", "status": "completed", "output": items}})
    assert isinstance(done, ev.ResponseDone)
    assert [item.id for item in done.output] == [item["id"] for item in items[:MAX_OUTPUT_ITEMS]]


def test_text_beyond_the_limit_is_dropped() -> None:
    codec = OpenAIUpstreamCodec()
    for n_chars, n_kept in ((10, 10), (MAX_TEXT_CHARS + 10, MAX_TEXT_CHARS)):
        delta = '{"type":"response.output_audio_transcript.delta","event_id":"e","response_id":"r","item_id":"i",'
        event = codec.decode(f'{delta}"content_index":0,"delta":"{"x" * n_chars}"}}'.encode())
        assert isinstance(event, ev.TextDelta)
        assert len(event.text) == n_kept
    ids = {"response_id": "r", "item_id": "i"}
    done = decoded({"type": "response.output_text.done", "text": "x" * (MAX_TEXT_CHARS + 10), **ids})
    assert isinstance(done, ev.TextDone)
    assert len(done.text) == MAX_TEXT_CHARS


def test_of_two_equal_keys_the_last_one_counts_as_in_any_json_reader() -> None:
    event = OpenAIUpstreamCodec().decode(b'{"type":"error","type":"session.updated"}')
    assert event == ev.SessionUpdated()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FULL = [example for examples in EXAMPLES.values() for example in examples]


def paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in pairs:
        yield (*path, key)
        yield from paths(member, (*path, key))


def mutate(data: st.DataObject, event: Obj) -> Obj:
    """Remove or replace something, somewhere."""
    event = copy.deepcopy(event)
    for _ in range(data.draw(st.integers(1, 3))):
        places = [path for path in paths(event) if path != ("type",)]
        if not places:
            break
        *parents, last = data.draw(st.sampled_from(places))
        target: Any = event
        for key in parents:
            target = target[key]
        if data.draw(st.booleans()):
            del target[last]
        else:
            target[last] = data.draw(JSON)
    return event


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_mutation_of_an_event_gets_past_the_decoder_as_an_exception(data: st.DataObject) -> None:
    event = mutate(data, data.draw(st.sampled_from(FULL)))
    frame = json.dumps(event).encode()  # with NaN and infinity, which are no JSON
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, len(frame)))
        frame = frame[:cut] + data.draw(st.binary(max_size=4)) + frame[cut + data.draw(st.integers(0, 4)) :]
    well_typed(OpenAIUpstreamCodec().decode(frame))


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_bytes_get_past_the_decoder_as_an_exception(frame: bytes) -> None:
    assert isinstance(OpenAIUpstreamCodec().decode(frame), ev.MalformedUpstreamMessage | ev.IgnoredUpstreamEvent)


def well_typed(event: ev.UpstreamEvent | AudioDelta) -> None:
    """Ids are strings and counts are small integers, whatever was sent: the core may use them as keys and add them."""
    for name in ("item_id", "response_id", "text", "message", "what"):
        assert isinstance(getattr(event, name, ""), str)
    for name in ("content_index", "audio_start_ms", "audio_end_ms", "n_bytes"):
        number = getattr(event, name, 0)
        assert type(number) is int
        assert 0 <= number < 2**53


def test_every_event_of_the_protocol_is_either_read_or_known_to_be_of_no_use() -> None:
    from typing import get_args

    from openai.types.realtime import RealtimeServerEvent

    union = get_args(RealtimeServerEvent)[0] if get_args(RealtimeServerEvent) else RealtimeServerEvent
    types = {get_args(member.model_fields["type"].annotation)[0] for member in get_args(union)}
    assert types == DECODERS.keys() | UNUSED_EVENT_TYPES
    assert not DECODERS.keys() & UNUSED_EVENT_TYPES
