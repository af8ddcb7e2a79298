"""Conversations without audio: client events in, server events out, in their order."""

import json
from typing import Any

import pybase64
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.local_engine.realtime.commands import ClearInputBuffer, ConfigureInput, FeedAudio, TranscribeTurn
from tests.local_engine.engine_harness import TOOLS, EngineHarness, last, types_of

TRANSCRIBED = {"input": {"transcription": {"model": "any"}}}
MANUAL = {"input": {"turn_detection": None}}
MESSAGE = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}


def appended(ms: int) -> str:
    return pybase64.b64encode(bytes(48 * ms)).decode()


def error_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert types_of(events) == ["error"]
    assert events[0]["error"]["type"] == "invalid_request_error"
    error: dict[str, Any] = events[0]["error"]
    return error


# -- session -------------------------------------------------------------------------------------------------


def test_the_session_says_that_it_is_the_local_engine():
    session = EngineHarness().sent[0]["session"]
    assert session["type"] == "realtime"
    assert session["engine"] == "relay-local"
    assert session["model"] == "relay-local"
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"


def test_a_later_update_keeps_what_earlier_ones_said():
    engine = EngineHarness(tools=TOOLS)
    engine.client_sends("session.update", session={"type": "realtime", "instructions": "Be kind."})
    [event] = engine.client_sends(
        "session.update", session={"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    )
    session = event["session"]
    assert [tool["name"] for tool in session["tools"]] == ["current_time", "roll_dice", "convert_units"]
    assert session["instructions"] == "Be kind."
    assert session["audio"]["output"]["voice"] == "cedar"


def test_null_clears():
    engine = EngineHarness(tools=TOOLS, instructions="Be kind.")
    nulls = {"turn_detection": None, "transcription": None, "noise_reduction": None, "format": None}
    cleared = {"type": "realtime", "tools": None, "instructions": None, "tracing": None, "audio": {"input": nulls}}
    [event] = engine.client_sends("session.update", session=cleared)
    session = event["session"]
    assert (session["tools"], session["instructions"]) == ([], "")
    assert session["audio"]["input"]["turn_detection"] is None
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}


def test_what_sdks_send_is_accepted():
    engine = EngineHarness()
    tool = TOOLS[0] | {"strict": True, "parameters": TOOLS[0]["parameters"] | {"$schema": "http://json-schema.org"}}
    sent = {
        "type": "realtime",
        "model": "gpt-realtime-2.1",
        "max_output_tokens": "inf",
        "tracing": "auto",
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
        "tools": [tool],
        "audio": {
            "input": {
                "noise_reduction": None,
                "transcription": {"model": "gpt-4o-mini-transcribe", "language": None},
                "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
            },
            "output": {"speed": 1, "voice": {"id": "voice_123"}, "format": {"type": "audio/pcmu"}},
        },
    }
    events = engine.record(
        engine.conversation.receive(json.dumps({"type": "session.update", "session": sent | {"tools": []}}))
    )
    assert types_of(events) == ["session.updated"]
    turn_detection = events[0]["session"]["audio"]["input"]["turn_detection"]
    assert turn_detection["create_response"] is turn_detection["interrupt_response"] is True
    # The SDK's type has no key `strict`, so this event is read without the strict check.
    [sent_back] = engine.conversation.receive(json.dumps({"type": "session.update", "session": sent}))[:1]
    assert sent_back.event["session"]["tools"][0]["strict"] is True


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({}, "session.type"),
        ({"type": "transcription"}, "session.type"),
        ({"type": "realtime", "modalities": ["audio"]}, "session.modalities"),
        ({"type": "realtime", "output_modalities": ["audio", "text"]}, "session.output_modalities"),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}},
            "session.audio.input.format.rate",
        ),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "none"}}}},
            "session.audio.input.turn_detection.type",
        ),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}},
            "session.audio.input.turn_detection.threshold",
        ),
        ({"type": "realtime", "audio": {"output": {"speed": "fast"}}}, "session.audio.output.speed"),
        ({"type": "realtime", "tools": [{"type": "mcp", "server_label": "x"}]}, "session.tools[0].type"),
        ({"type": "realtime", "tools": [TOOLS[0], TOOLS[0]]}, "session.tools"),
        ({"type": "realtime", "max_output_tokens": 0}, "session.max_output_tokens"),
        ("nonsense", "session"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_changes(session: Any, param: str):
    engine = EngineHarness(instructions="before")
    error = error_of(engine.client_sends("session.update", event_id="mine", session=session))
    assert (error["param"], error["event_id"]) == (param, "mine")
    [event] = engine.client_sends("session.update", session={"type": "realtime"})
    assert event["session"]["instructions"] == "before"


def test_the_voice_cannot_change_after_the_first_audio():
    engine = EngineHarness()
    engine.user_types("hello")
    engine.assistant_speaks()
    change = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    assert error_of(engine.client_sends("session.update", session=change))["code"] == "cannot_update_voice"


def test_updates_configure_the_input():
    engine = EngineHarness(tools=TOOLS, audio={"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}})
    configured = [effect for effect in engine.commands if isinstance(effect, ConfigureInput)][-1]
    assert (configured.input_format, configured.turn_detection) == ("audio/pcmu", None)
    assert [tool["name"] for tool in json.loads(configured.tools)] == ["current_time", "roll_dice", "convert_units"]


# -- malformed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '{"type":7}',
        '{"type":null}',
        "{}",
        b"\xff\xfe",
        '{"type":"response.create","response":[]}',
        "[" * 2000,
    ],
)
def test_a_malformed_message_is_an_error_event(message: str | bytes):
    engine = EngineHarness()
    error_of(engine.record(engine.conversation.receive(message)))


def test_an_unknown_type_lists_the_known_ones():
    error = error_of(EngineHarness().client_sends("session.destroy", event_id="e1"))
    assert (error["param"], error["event_id"]) == ("type", "e1")
    assert "response.create" in error["message"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "session",
    "item",
    "response",
    "audio",
    "item_id",
    "content_index",
    "audio_end_ms",
    "previous_item_id",
    "event_id",
]
KINDS = [
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "conversation.item.create",
    "conversation.item.truncate",
    "conversation.item.delete",
    "conversation.item.retrieve",
    "response.create",
    "response.cancel",
]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), json_values)), max_size=5))
def test_no_client_can_make_it_crash(script: list[tuple[str, dict[str, Any]]]):
    engine = EngineHarness(output_modalities=["text"])
    for kind, fields in script:
        engine.client_sends(kind, **fields)
    assert types_of(engine.client_sends("session.update", session={"type": "realtime"})) == ["session.updated"]


# -- the user speaks -----------------------------------------------------------------------------------------


def test_a_spoken_turn_in_its_order():
    engine = EngineHarness(tools=TOOLS, audio=TRANSCRIBED)
    events = engine.user_says("roll two dice", start_ms=300, end_ms=2300)
    assert types_of(events)[:7] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert types_of(events)[7:] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    item_id = events[0]["item_id"]
    assert all(event["item_id"] == item_id for event in events[:3])
    assert (events[0]["audio_start_ms"], events[1]["audio_end_ms"]) == (300, 2300)
    assert events[3]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert events[6]["usage"] == {"type": "duration", "seconds": 2.0}
    call = next(event for event in events if event["type"] == "response.output_item.added")["item"]
    assert (call["name"], call["arguments"], call["status"]) == ("roll_dice", "", "in_progress")
    assert len(call["call_id"]) <= 32
    [output] = events[-1]["response"]["output"]
    assert (json.loads(output["arguments"]), output["status"]) == ({"count": 2}, "completed")


def test_the_spoken_answer_in_its_order():
    engine = EngineHarness()
    events = engine.user_says("hello") + engine.assistant_speaks()
    assert types_of(events)[5:] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        *["response.output_audio_transcript.delta", "response.output_audio.delta"] * 3,
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    done = events[-1]["response"]
    transcript = "".join(e["delta"] for e in events if e["type"] == "response.output_audio_transcript.delta")
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": transcript}]
    assert "local engine" in transcript
    assert (done["status"], done["usage"]["output_token_details"]["audio_tokens"]) == ("completed", 60)
    assert done["usage"]["input_token_details"]["audio_tokens"] == 20


def test_an_audio_delta_holds_a_tenth_of_a_second_and_ends_with_its_delta():
    engine = EngineHarness()
    events = engine.user_says("hello") + engine.assistant_speaks(ms=250)
    deltas = [event for event in events if event["type"] == "response.output_audio.delta"]
    assert [len(pybase64.b64decode(event["delta"])) for event in deltas[:3]] == [4800, 4800, 2400]
    assert list(deltas[0])[-1] == "delta"


def test_without_create_response_the_client_asks():
    detection = {"type": "server_vad", "create_response": False}
    engine = EngineHarness(audio={"input": {"turn_detection": detection}})
    assert "response.created" not in types_of(engine.user_says("hello"))
    assert "response.created" in types_of(engine.client_sends("response.create"))


def test_a_response_created_too_early_waits_for_the_transcript():
    engine = EngineHarness(tools=TOOLS, audio=MANUAL)
    engine.client_sends("input_audio_buffer.append", audio=appended(500))
    engine.client_sends("input_audio_buffer.commit")
    assert types_of(engine.client_sends("response.create")) == ["response.created"]
    [task] = [effect for effect in engine.commands if isinstance(effect, TranscribeTurn)]
    events = engine.record(engine.conversation.on_transcript(task.item_id, "roll a die"))
    assert events[-1]["response"]["output"][0]["name"] == "roll_dice"


def test_speech_that_is_not_understood_gets_a_hint():
    engine = EngineHarness(tools=TOOLS, audio=TRANSCRIBED)
    events = engine.user_says(None)
    completed = last(events, "conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == "[not understood]"
    sentences = " ".join(engine.last_synthesis.sentences)
    assert "did not understand" in sentences
    assert "what time is it in" in sentences


def test_barge_in_cancels_the_response():
    engine = EngineHarness(audio=TRANSCRIBED)
    engine.user_says("tell me a story")
    engine.assistant_speaks(2)
    story = engine.last_synthesis.response_id
    events = engine.record(engine.conversation.on_speech_started(5000))
    assert types_of(events) == [
        "input_audio_buffer.speech_started",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    done = events[-1]["response"]
    assert (done["id"], done["status"]) == (story, "cancelled")
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["output"][0]["status"] == "incomplete"
    assert engine.cancelled_speech == [story]
    assert engine.record(engine.conversation.on_sentence_audio(story, "Too late.", bytes(480))) == []
    assert engine.record(engine.conversation.on_speech_done(story)) == []
    events = engine.record(engine.conversation.on_speech_stopped(6000))
    assert "conversation.item.added" in types_of(events)


def test_without_interrupt_response_the_next_response_follows_the_active_one():
    detection = {"type": "server_vad", "interrupt_response": False}
    engine = EngineHarness(audio={"input": {"turn_detection": detection}})
    engine.user_says("tell me a story")
    engine.assistant_speaks(1)
    assert "response.created" not in types_of(engine.user_says("thank you"))
    events = engine.assistant_speaks()
    assert types_of(events)[-4:] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
    ]
    assert engine.last_synthesis.sentences == ("You are welcome.",)


# -- manual turns --------------------------------------------------------------------------------------------


def test_push_to_talk():
    engine = EngineHarness(audio=MANUAL)
    assert engine.client_sends("input_audio_buffer.append", audio=appended(150)) == []
    events = engine.client_sends("input_audio_buffer.commit")
    assert types_of(events) == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    assert isinstance(engine.commands[-1], TranscribeTurn)


def test_a_commit_of_too_little_audio_is_refused():
    engine = EngineHarness(audio=MANUAL)
    engine.client_sends("input_audio_buffer.append", audio=appended(90))
    error = error_of(engine.client_sends("input_audio_buffer.commit", event_id="c1"))
    assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "c1")
    assert "90.00ms" in error["message"]


def test_clear_drops_the_audio():
    engine = EngineHarness(audio=MANUAL)
    engine.client_sends("input_audio_buffer.append", audio=appended(500))
    assert types_of(engine.client_sends("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert isinstance(engine.commands[-1], ClearInputBuffer)
    assert error_of(engine.client_sends("input_audio_buffer.commit"))["code"] == "input_audio_buffer_commit_empty"


def test_the_input_buffer_has_a_bound():
    engine = EngineHarness(audio=MANUAL)
    chunk = appended(100_000)
    for _ in range(6):
        assert engine.client_sends("input_audio_buffer.append", audio=chunk) == []
    assert error_of(engine.client_sends("input_audio_buffer.append", audio=chunk))["code"] == "input_audio_buffer_full"
    assert len([effect for effect in engine.commands if isinstance(effect, FeedAudio)]) == 6
    assert "input_audio_buffer.committed" in types_of(engine.client_sends("input_audio_buffer.commit"))


@pytest.mark.parametrize("audio", ["%%%", "abc", 7, None, ["AAAA"]])
def test_invalid_base64_is_refused(audio: Any):
    assert error_of(EngineHarness().client_sends("input_audio_buffer.append", audio=audio))["param"] == "audio"


def test_an_append_over_15_mib_is_refused():
    error = error_of(EngineHarness().client_sends("input_audio_buffer.append", audio="AAAA" * (5 * 1024 * 1024 + 1)))
    assert "15 MiB" in error["message"]


# -- items ---------------------------------------------------------------------------------------------------


def test_items_keep_their_ids_and_order():
    engine = EngineHarness()
    first = engine.client_sends("conversation.item.create", item=MESSAGE | {"id": "a"})
    assert types_of(first) == ["conversation.item.added", "conversation.item.done"]
    assert (first[0]["previous_item_id"], first[0]["item"]["id"]) == (None, "a")
    second = engine.client_sends("conversation.item.create", item=MESSAGE | {"id": "b"})
    assert second[0]["previous_item_id"] == "a"
    head = engine.client_sends("conversation.item.create", item=MESSAGE | {"id": "c"}, previous_item_id="root")
    assert head[0]["previous_item_id"] is None
    middle = engine.client_sends("conversation.item.create", item=MESSAGE | {"id": "d"}, previous_item_id="a")
    assert middle[0]["previous_item_id"] == "a"
    assert [record.id for record in engine.conversation._items] == ["c", "a", "d", "b"]


def test_a_duplicate_item_is_refused():
    engine = EngineHarness()
    engine.client_sends("conversation.item.create", item=MESSAGE | {"id": "a"})
    error = error_of(engine.client_sends("conversation.item.create", item=MESSAGE | {"id": "a"}, event_id="e9"))
    assert (error["code"], error["event_id"]) == ("item_create_duplicate_item_id", "e9")


def test_an_item_can_be_retrieved_and_deleted():
    engine = EngineHarness()
    engine.client_sends("conversation.item.create", item=MESSAGE | {"id": "a"})
    [event] = engine.client_sends("conversation.item.retrieve", item_id="a")
    assert event["item"]["content"] == MESSAGE["content"]
    assert types_of(engine.client_sends("conversation.item.delete", item_id="a")) == ["conversation.item.deleted"]
    error = error_of(engine.client_sends("conversation.item.retrieve", item_id="a", event_id="rci_a"))
    assert (error["code"], error["event_id"]) == ("item_retrieve_invalid_item_id", "rci_a")


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "mcp_call"}, "item.type"),
        ({"type": "message", "role": "tool", "content": []}, "item.role"),
        ({"type": "message", "role": "user"}, "item.content"),
        (
            {"type": "message", "role": "user", "content": [{"type": "output_text", "text": "x"}]},
            "item.content[0].type",
        ),
        ({"type": "message", "role": "user", "content": [{"type": "input_text", "text": 7}]}, "item.content[0].text"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "?"}]},
            "item.content[0].audio",
        ),
        ({"type": "function_call_output", "call_id": "nobody", "output": "x"}, "item.call_id"),
        ({"type": "function_call", "name": "f"}, "item.arguments"),
        ({"type": "message", "role": "user", "content": [], "id": ""}, "item.id"),
        ([], "item"),
    ],
)
def test_a_wrong_item_is_refused(item: Any, param: str):
    assert error_of(EngineHarness().client_sends("conversation.item.create", item=item))["param"] == param


def test_the_oldest_items_are_removed_over_the_bound():
    engine = EngineHarness(output_modalities=["text"])
    for index in range(1001):
        engine.client_sends("conversation.item.create", item=MESSAGE | {"id": f"i{index}"})
    assert (
        error_of(engine.client_sends("conversation.item.retrieve", item_id="i0"))["code"]
        == "item_retrieve_invalid_item_id"
    )
    assert types_of(engine.client_sends("conversation.item.retrieve", item_id="i1")) == ["conversation.item.retrieved"]


def spoken_item(engine: EngineHarness) -> str:
    """Return the id of a response's item with three sentences of a second each."""
    engine.user_says("hello")
    events = engine.assistant_speaks()
    item_id: str = last(events, "response.output_item.done")["item"]["id"]
    return item_id


@pytest.mark.parametrize(
    ("end_ms", "cut_ms", "transcript"),
    [
        (0, 0, ""),
        (999, 999, ""),
        (1000, 1000, "Hello!"),
        (1500, 1500, "Hello! I am relay's local"),
        (10**12, 3000, "Hello! I am relay's local engine, a rehearsal partner. Ask me what I can do."),
    ],
)
def test_truncation_keeps_the_played_part(end_ms: int, cut_ms: int, transcript: str):
    engine = EngineHarness()
    item_id = spoken_item(engine)
    [event] = engine.client_sends("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=end_ms)
    assert event["audio_end_ms"] == cut_ms
    [event] = engine.client_sends("conversation.item.retrieve", item_id=item_id)
    retrieved = event["item"]["content"][0]["transcript"]
    assert retrieved == transcript


def test_truncation_during_the_response():
    engine = EngineHarness()
    engine.user_says("tell me a story")
    events = engine.assistant_speaks(3)
    item_id = last(events, "response.output_audio.delta")["item_id"]
    [event] = engine.client_sends("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=1000)
    assert event["audio_end_ms"] == 1000
    engine.client_sends("response.cancel")
    [event] = engine.client_sends("conversation.item.retrieve", item_id=item_id)
    assert event["item"]["content"][0]["transcript"] == engine.last_synthesis.sentences[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"item_id": "nobody", "content_index": 0, "audio_end_ms": 0},
        {"item_id": "typed", "content_index": 0, "audio_end_ms": 0},
        {"item_id": "typed", "content_index": 0, "audio_end_ms": -1},
        {"item_id": "typed", "content_index": 0},
        {"content_index": 0, "audio_end_ms": 0},
    ],
)
def test_an_invalid_truncation_is_refused(fields: dict[str, Any]):
    engine = EngineHarness()
    engine.client_sends("conversation.item.create", item=MESSAGE | {"id": "typed"})
    error_of(engine.client_sends("conversation.item.truncate", **fields))


# -- responses -----------------------------------------------------------------------------------------------


def test_typed_text_is_understood_too():
    engine = EngineHarness(tools=TOOLS, output_modalities=["text"])
    events = engine.user_types("Please roll 3 dice with 20 sides!")
    [output] = events[-1]["response"]["output"]
    assert json.loads(output["arguments"]) == {"count": 3, "sides": 20}


def test_two_tools_in_one_request_then_both_results():
    engine = EngineHarness(tools=TOOLS)
    events = engine.user_says("roll two dice and tell me the time in paris")
    dice, clock = events[-1]["response"]["output"]
    assert (dice["name"], json.loads(dice["arguments"])) == ("roll_dice", {"count": 2})
    assert (clock["name"], json.loads(clock["arguments"])) == ("current_time", {"city": "Paris"})
    assert dice["call_id"] != clock["call_id"]
    engine.tool_returns(dice["call_id"], json.dumps({"summary": "You rolled 3 and 4."}))
    engine.tool_returns(clock["call_id"], json.dumps({"ok": False, "error": "boom", "message": "The clock is broken."}))
    engine.client_sends("response.create")
    assert engine.last_synthesis.sentences == (
        "You rolled 3 and 4.",
        "I am sorry, current time did not work: The clock is broken.",
    )
    engine.assistant_speaks()
    engine.client_sends("response.create")
    assert "local engine" in engine.last_synthesis.sentences[1]


def test_while_a_tool_runs_it_says_that_it_waits():
    engine = EngineHarness(tools=TOOLS)
    engine.user_says("roll two dice")
    engine.client_sends("response.create")
    assert engine.last_synthesis.sentences == ("I am still waiting for roll dice.",)


def test_metadata_is_echoed():
    engine = EngineHarness()
    events = engine.client_sends("response.create", response={"metadata": {"client_event_id": "abc"}})
    assert events[0]["response"]["metadata"] == {"client_event_id": "abc"}
    assert engine.assistant_speaks()[-1]["response"]["metadata"] == {"client_event_id": "abc"}


def test_a_second_response_is_refused_while_one_is_active():
    engine = EngineHarness()
    engine.client_sends("response.create")
    error = error_of(engine.client_sends("response.create", event_id="create_2"))
    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "create_2")
    engine.assistant_speaks()
    assert "response.created" in types_of(engine.client_sends("response.create"))


def test_cancel():
    engine = EngineHarness()
    engine.client_sends("response.create")
    engine.assistant_speaks(1)
    events = engine.client_sends("response.cancel")
    assert events[-1]["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert engine.cancelled_speech == [events[-1]["response"]["id"]]
    error = error_of(engine.client_sends("response.cancel", event_id="x"))
    assert (error["code"], error["event_id"]) == ("response_cancel_not_active", "x")
    assert error["message"].startswith("Cancellation failed")
    assert (
        error_of(engine.client_sends("response.cancel", response_id="resp_no"))["code"] == "response_cancel_not_active"
    )


def test_a_text_session_answers_in_text():
    engine = EngineHarness(output_modalities=["text"])
    events = engine.user_types("who are you")
    assert types_of(events)[2:] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    [content] = events[-1]["response"]["output"][0]["content"]
    assert content["type"] == "output_text"
    assert "rehearsal partner" in content["text"]


def test_tool_choice_none_means_no_call():
    engine = EngineHarness(tools=TOOLS, output_modalities=["text"])
    engine.client_sends(
        "conversation.item.create", item=MESSAGE | {"content": [{"type": "input_text", "text": "roll a die"}]}
    )
    events = engine.client_sends("response.create", response={"tool_choice": "none"})
    [output] = events[-1]["response"]["output"]
    assert output["type"] == "message"
    assert "roll dice" in output["content"][0]["text"]


def test_tool_choice_of_a_function_calls_it():
    engine = EngineHarness(tools=TOOLS, output_modalities=["text"])
    choice = {"type": "function", "name": "current_time"}
    [output] = engine.client_sends("response.create", response={"tool_choice": choice})[-1]["response"]["output"]
    assert output["name"] == "current_time"
    assert json.loads(output["arguments"])["city"]


def test_without_parallel_tool_calls_there_is_one_call():
    engine = EngineHarness(tools=TOOLS, output_modalities=["text"], parallel_tool_calls=False)
    events = engine.user_types("roll a die and roll two dice")
    assert len(events[-1]["response"]["output"]) == 1


def test_tools_of_one_response_only():
    engine = EngineHarness(output_modalities=["text"])
    engine.client_sends(
        "conversation.item.create", item=MESSAGE | {"content": [{"type": "input_text", "text": "roll a die"}]}
    )
    events = engine.client_sends("response.create", response={"tools": TOOLS})
    assert events[-1]["response"]["output"][0]["name"] == "roll_dice"
    assert "did not understand" in engine.user_types("roll a die")[-1]["response"]["output"][0]["content"][0]["text"]


def test_an_out_of_band_response_leaves_the_conversation_unchanged():
    engine = EngineHarness(tools=TOOLS)
    engine.client_sends("response.create")
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "roll 2 dice"}]}
    out_of_band = {
        "conversation": "none",
        "input": [message],
        "output_modalities": ["text"],
        "metadata": {"topic": "x"},
    }
    events = engine.client_sends("response.create", response=out_of_band)
    assert not [event for event in events if event["type"].startswith("conversation.")]
    done = events[-1]["response"]
    assert (done["conversation_id"], done["metadata"]) == (None, {"topic": "x"})
    assert done["output"][0]["name"] == "roll_dice"
    assert engine.assistant_speaks()[-1]["response"]["status"] == "completed"


def test_max_output_tokens_cuts_the_answer():
    engine = EngineHarness()
    engine.client_sends("response.create", response={"max_output_tokens": 30})
    events = engine.assistant_speaks(ms=1000)
    done = last(events, "response.done")["response"]
    assert (done["status"], done["status_details"]["reason"]) == ("incomplete", "max_output_tokens")
    assert done["usage"]["output_token_details"]["audio_tokens"] == 30
    assert engine.cancelled_speech == [done["id"]]


def test_failed_synthesis_fails_the_response():
    engine = EngineHarness()
    engine.client_sends("response.create")
    events = engine.record(
        engine.conversation.on_speech_failed(engine.last_synthesis.response_id, "Speech synthesis failed")
    )
    done = last(events, "response.done")["response"]
    assert (done["status"], done["status_details"]["error"]["message"]) == ("failed", "Speech synthesis failed")
    assert "response.created" in types_of(engine.client_sends("response.create"))
