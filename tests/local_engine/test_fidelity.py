"""Fields, event orders and error codes that clients of OpenAI rely on. Every event is checked strictly."""

import base64
from typing import Any, get_args

import pytest
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent

from relay.local_engine.realtime.commands import CloseConnection, SetIdleTimer
from relay.local_engine.realtime.conversation import _HANDLERS
from relay.local_engine.realtime.input_turns import InputRingBuffer
from relay.local_engine.realtime.items import MAX_CACHED_AUDIO_BYTES, ItemAudioCache
from tests.local_engine.engine_harness import TOOLS, EngineHarness, last, types_of

MANUAL = {"input": {"turn_detection": None}}
TRANSCRIBED = {"input": {"transcription": {"model": "any"}}}
IDLE = {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000}}}
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


def kinds_of(union: Any) -> set[str]:
    members = get_args(get_args(union)[0]) or get_args(union)
    return {get_args(model.model_fields["type"].annotation)[0] for model in members}


NEVER_SENT = {
    "conversation.created": "beta",
    "conversation.item.created": "beta",
    "conversation.item.input_audio_transcription.segment": "diarisation",
    "input_audio_buffer.dtmf_event_received": "SIP",
    "output_audio_buffer.started": "WebRTC and SIP",
    "output_audio_buffer.stopped": "WebRTC and SIP",
    "output_audio_buffer.cleared": "WebRTC and SIP",
    "mcp_list_tools.in_progress": "MCP",
    "mcp_list_tools.completed": "MCP",
    "mcp_list_tools.failed": "MCP",
    "response.mcp_call_arguments.delta": "MCP",
    "response.mcp_call_arguments.done": "MCP",
    "response.mcp_call.in_progress": "MCP",
    "response.mcp_call.completed": "MCP",
    "response.mcp_call.failed": "MCP",
}
"""Events that do not apply to a WebSocket without MCP servers, and why."""


def appended(ms: int) -> str:
    return base64.b64encode(bytes(48 * ms)).decode()


def error_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert types_of(events) == ["error"]
    error: dict[str, Any] = events[0]["error"]
    return error


def all_events() -> list[dict[str, Any]]:
    """Return the events of a session that sends every applicable event at least once."""
    engine = EngineHarness(tools=TOOLS, audio=TRANSCRIBED)
    engine.client_sends("input_audio_buffer.append", audio=appended(2000))
    engine.user_says("roll two dice")
    engine.user_says("hello")
    item_id = last(engine.assistant_speaks(), "response.output_item.done")["item"]["id"]
    engine.client_sends("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=100)
    engine.client_sends("conversation.item.retrieve", item_id=item_id)
    engine.client_sends("conversation.item.delete", item_id=item_id)
    engine.client_sends("input_audio_buffer.clear")
    engine.client_sends("response.cancel")
    engine.client_sends("response.create", response={"output_modalities": ["text"]})
    engine.record(engine.conversation.on_speech_started(3000))
    engine.user_says(None, failure="gone")
    engine.assistant_speaks()
    engine.client_sends("session.update", session={"type": "realtime", "audio": IDLE})
    engine.record(engine.conversation.on_idle_timeout())
    return engine.sent


def test_every_event_that_applies_is_sent_and_valid():
    assert kinds_of(RealtimeServerEvent) == {event["type"] for event in all_events()} | set(NEVER_SENT)


def test_every_client_event_is_known():
    assert set(_HANDLERS) == kinds_of(RealtimeClientEvent)


def test_no_event_has_a_null_where_clients_want_no_key():
    may_be_null = {"previous_item_id", "usage", "status_details", "metadata", "transcript", "conversation_id"}
    may_be_null |= {"param", "event_id", "audio"}  # in errors; in retrieved parts
    for event in all_events():
        if event["type"] not in ("session.created", "session.updated"):
            assert nulls(event) <= may_be_null, event


def nulls(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {key for key, entry in value.items() if entry is None}
        return own.union(*(nulls(entry) for entry in value.values()))
    if isinstance(value, list):
        return set().union(*(nulls(entry) for entry in value))
    return set()


# -- codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "code", "param"),
    [
        ("response.cancel", {"extra": 1}, "unknown_parameter", "extra"),
        (
            "session.update",
            {"session": {"type": "realtime", "temperature": 1}},
            "unknown_parameter",
            "session.temperature",
        ),
        ("session.update", {"session": {}}, "missing_required_parameter", "session.type"),
        (
            "session.update",
            {"session": {"type": "realtime", "instructions": 7}},
            "invalid_type",
            "session.instructions",
        ),
        (
            "session.update",
            {"session": {"type": "realtime", "max_output_tokens": 0}},
            "integer_below_min_value",
            "session.max_output_tokens",
        ),
        (
            "session.update",
            {"session": {"type": "realtime", "audio": {"output": {"speed": 9}}}},
            "decimal_above_max_value",
            "session.audio.output.speed",
        ),
        (
            "session.update",
            {"session": {"type": "realtime", "audio": {"output": {"voice": "nobody"}}}},
            "invalid_value",
            "session.audio.output.voice",
        ),
        ("session.update", {"session": {"type": "realtime", "tracing": "on"}}, "invalid_value", "session.tracing"),
        (
            "session.update",
            {"session": {"type": "realtime", "truncation": {"type": "retention_ratio"}}},
            "missing_required_parameter",
            "session.truncation.retention_ratio",
        ),
        ("conversation.item.create", {"item": MESSAGE | {"id": "x" * 33}}, "string_above_max_length", "item.id"),
        ("conversation.item.create", {"item": MESSAGE | {"extra": 1}}, "unknown_parameter", "item.extra"),
        (
            "conversation.item.create",
            {"item": {"type": "function_call_output", "call_id": "a/b", "output": ""}},
            "invalid_value",
            "item.call_id",
        ),
        (
            "conversation.item.create",
            {"item": {"type": "function_call_output", "call_id": "call_9", "output": ""}},
            "invalid_tool_call_id",
            "item.call_id",
        ),
        (
            "conversation.item.create",
            {"item": MESSAGE, "previous_item_id": "nobody"},
            "item_create_invalid_previous_item_id",
            "previous_item_id",
        ),
        ("conversation.item.delete", {"item_id": "nobody"}, "item_delete_invalid_item_id", "item_id"),
        ("conversation.item.retrieve", {"item_id": "nobody"}, "item_retrieve_invalid_item_id", "item_id"),
        (
            "conversation.item.truncate",
            {"item_id": "nobody", "content_index": 0, "audio_end_ms": 0},
            "item_truncate_invalid_item_id",
            "item_id",
        ),
        ("input_audio_buffer.commit", {}, "input_audio_buffer_commit_empty", None),
        ("response.cancel", {}, "response_cancel_not_active", None),
        ("nonsense", {}, "invalid_value", "type"),
    ],
)
def test_an_error_has_openais_code_and_names_the_field(kind: str, fields: dict[str, Any], code: str, param: str | None):
    engine = EngineHarness()
    error = error_of(engine.client_sends(kind, event_id="mine", **fields))
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert error["event_id"] == "mine"
    assert types_of(engine.client_sends("session.update", session={"type": "realtime"})) == ["session.updated"]


# -- retrieved audio -------------------------------------------------------------------------------------------------


def test_a_retrieved_turn_has_its_audio():
    engine = EngineHarness(audio=MANUAL)
    pcm = bytes(range(240)) * 40
    engine.client_sends("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())
    item_id = engine.client_sends("input_audio_buffer.commit")[0]["item_id"]
    item = engine.client_sends("conversation.item.retrieve", item_id=item_id)[0]["item"]
    assert base64.b64decode(item["content"][0]["audio"]) == pcm


def test_a_retrieved_turn_of_turn_detection_has_its_span_of_the_stream():
    engine = EngineHarness()
    engine.client_sends("input_audio_buffer.append", audio=appended(1000))
    pcm = b"\x01\x02" * 24 * 500
    engine.record(engine.conversation.on_speech_started(1000))
    engine.client_sends("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())
    item_id = engine.record(engine.conversation.on_speech_stopped(1500))[0]["item_id"]
    item = engine.client_sends("conversation.item.retrieve", item_id=item_id)[0]["item"]
    assert base64.b64decode(item["content"][0]["audio"]) == pcm


def test_a_retrieved_answer_has_its_audio_up_to_the_truncation():
    engine = EngineHarness()
    engine.user_says("hello")
    item_id = last(engine.assistant_speaks(), "response.output_item.done")["item"]["id"]
    whole = engine.client_sends("conversation.item.retrieve", item_id=item_id)[0]["item"]["content"][0]
    assert len(base64.b64decode(whole["audio"])) == 3000 * 48
    engine.client_sends("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1500)
    cut = engine.client_sends("conversation.item.retrieve", item_id=item_id)[0]["item"]["content"][0]
    assert len(base64.b64decode(cut["audio"])) == 1500 * 48


def test_the_audio_cache_has_a_bound():
    cache = ItemAudioCache()
    for number in range(4):
        cache.append(f"item_{number}", bytes(MAX_CACHED_AUDIO_BYTES // 3))
    assert [len(cache.get(f"item_{number}")) for number in (0, 3)] == [0, MAX_CACHED_AUDIO_BYTES // 3]
    cache.discard("item_3")
    assert cache.get("item_3") == b""


def test_the_ring_buffer_keeps_the_longest_prefix():
    ring_buffer = InputRingBuffer()
    for _ in range(100):
        ring_buffer.append(bytes(4800), 48, in_turn=False)
    assert (ring_buffer.position_ms, len(ring_buffer.slice_ms(0, 10_000))) == (10_000, 6000 * 48)


# -- responses and idle timeouts ------------------------------------------------------------------------------


def test_a_response_begins_with_its_rate_limits():
    engine = EngineHarness(output_modalities=["text"])
    engine.user_types("hello")
    events = engine.client_sends("response.create")
    assert [event["type"] for event in events][:2] == ["response.created", "rate_limits.updated"]
    limits = {limit["name"]: limit["remaining"] for limit in events[1]["rate_limits"]}
    assert limits["requests"] == 10_000 - 2
    assert limits["tokens"] < 10_000_000


def test_arguments_come_in_several_deltas():
    events = EngineHarness(tools=TOOLS).user_says("convert five miles to kilometers")
    deltas = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    done = last(events, "response.function_call_arguments.done")
    assert len(deltas) > 1
    assert "".join(deltas) == done["arguments"]


def test_a_silent_user_is_asked():
    engine = EngineHarness(audio=IDLE)
    engine.client_sends("input_audio_buffer.append", audio=appended(9000))
    engine.user_says("hello", start_ms=1000, end_ms=2000)
    engine.assistant_speaks(ms=1000)
    assert engine.commands[-1] == SetIdleTimer(3000 + 6000)
    events = engine.record(engine.conversation.on_idle_timeout())
    assert types_of(events)[:5] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    assert (events[0]["audio_start_ms"], events[0]["audio_end_ms"]) == (3000, 9000)
    assert engine.last_synthesis.sentences[0] == "Are you still there?"


def test_a_speaking_user_is_not_asked():
    engine = EngineHarness(audio=IDLE)
    engine.user_says("hello")
    engine.assistant_speaks()
    engine.record(engine.conversation.on_speech_started(5000))
    assert engine.commands[-1] == SetIdleTimer(None)
    assert engine.record(engine.conversation.on_idle_timeout()) == []


def test_a_session_that_expires():
    engine = EngineHarness()
    error = error_of(engine.record(engine.conversation.on_session_expired(60)))
    assert (error["code"], error["message"]) == (
        "session_expired",
        "Your session hit the maximum duration of 60 minutes.",
    )
    assert engine.commands[-1] == CloseConnection(1001, error["message"])


def test_lost_speech_ends_as_a_turn_without_a_transcript():
    engine = EngineHarness(audio=TRANSCRIBED)
    events = engine.user_says(None, failure="the recognizer ended")
    assert types_of(events)[1:7] == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.failed",
        "response.created",
    ]
    assert "did not understand" in engine.last_synthesis.sentences[0]


def test_a_transcript_during_the_next_turn_waits_for_that_turn():
    engine = EngineHarness(audio=TRANSCRIBED, tools=TOOLS)
    engine.record(engine.conversation.on_speech_started(0))
    engine.record(engine.conversation.on_speech_stopped(1000))
    first = last(engine.sent, "input_audio_buffer.committed")["item_id"]
    engine.record(engine.conversation.on_speech_started(1500))
    assert "response.created" not in types_of(engine.record(engine.conversation.on_transcript(first, "roll two dice")))
    engine.record(engine.conversation.on_speech_stopped(2500))
    second = last(engine.sent, "input_audio_buffer.committed")["item_id"]
    events = engine.record(engine.conversation.on_transcript(second, "what time is it in paris"))
    assert types_of(events).count("response.created") == 1
    [call] = last(events, "response.done")["response"]["output"]
    assert call["name"] == "current_time"


# -- sessions that only transcribe --------------------------------------------------------------------------


def test_a_transcription_session_transcribes_and_answers_nothing():
    engine = EngineHarness(kind="transcription")
    session = engine.sent[0]["session"]
    assert (session["type"], "tools" in session, "output" in session["audio"]) == ("transcription", False, False)
    events = engine.user_says("hello")
    assert types_of(events)[-1] == "conversation.item.input_audio_transcription.completed"
    assert "transcription session" in error_of(engine.client_sends("response.create"))["message"]
    audio = {"input": {"turn_detection": None, "format": {"type": "audio/pcmu"}}}
    [updated] = engine.client_sends("session.update", session={"type": "transcription", "audio": audio})
    assert updated["session"]["audio"]["input"]["format"] == {"type": "audio/pcmu"}


@pytest.mark.parametrize("kind", ["realtime", "transcription"])
def test_the_type_of_a_session_cannot_change(kind: str):
    other = "transcription" if kind == "realtime" else "realtime"
    error = error_of(EngineHarness(kind=kind).client_sends("session.update", session={"type": other}))
    assert error["param"] == "session.type"


def test_a_transcription_session_has_no_voice():
    session = {"type": "transcription", "audio": {"output": {}}}
    error = error_of(EngineHarness(kind="transcription").client_sends("session.update", session=session))
    assert (error["code"], error["param"]) == ("unknown_parameter", "session.audio.output")
