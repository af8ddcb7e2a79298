"""The device codec: every message in both directions, every error with its field, audio in whole samples."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.formats import PCM16_16K, PCM16_24K, PCM16_48K, PCMA, PCMU
from relay.protocols.device.codec import DeviceCodec
from relay.protocols.device.decoder import MAX_AHEAD_MS, MAX_ID_CHARS, MAX_POSITION_MS, MAX_TEXT_CHARS, MIN_AHEAD_MS
from relay.session.common.model import DeviceOptions, SessionConfig, ToolSpec, TurnDetection, Usage
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.turn_metrics import TurnMetrics
from tests.support.device_schema import check

Obj = dict[str, Any]


def codec() -> DeviceCodec:
    return DeviceCodec()


def decoded(message: object) -> ev.ClientEvent:
    text = message if isinstance(message, bytes) else json.dumps(message).encode()
    return codec().decode_text(text)


def encoded(message: cmd.ClientMessage | cmd.SendAudioStart | cmd.SendAudioEnd) -> Obj:
    return check(json.loads(codec().encode(message)), "toClient")


# -- what a client says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "event"),
    [
        ({"type": "playback", "itemId": "item_1", "playedMs": 400}, ev.Playback("item_1", 400)),
        ({"type": "playback", "itemId": "item_1", "playedMs": 399.9}, ev.Playback("item_1", 399)),
        ({"type": "toolResult", "callId": "c", "output": "as it is"}, ev.ToolResult("c", "as it is")),
        ({"type": "toolResult", "callId": "c", "output": {"open": True}}, ev.ToolResult("c", '{"open":true}')),
        ({"type": "toolResult", "callId": "c", "output": None}, ev.ToolResult("c", "null")),
        ({"type": "toolResult", "callId": "c", "error": "jammed"}, ev.ToolResult("c", "jammed", failed=True)),
        ({"type": "text", "text": "grüß dich"}, ev.UserText("grüß dich")),
        ({"type": "commit"}, ev.Commit()),
        ({"type": "clear"}, ev.Clear()),
        ({"type": "interrupt"}, ev.Interrupt()),
        ({"type": "bye"}, ev.Bye()),
        ({"type": "bye", "a field of a later version": 1}, ev.Bye()),
        ({"type": "hello"}, ev.Hello()),
        ({"type": "hello", "v": 1}, ev.Hello()),
    ],
)
def test_each_message(message: Obj, event: ev.ClientEvent) -> None:
    assert decoded(message) == event


def test_hello_with_everything() -> None:
    hello = {
        "type": "hello",
        "v": 1,
        "input": {"format": "pcmu", "rate": 8000},
        "output": {"format": "pcm16", "rate": 48000},
        "maxAheadMs": 2500,
        "voice": "cedar",
        "instructions": "Be brief.",
        "language": "German",
        "turn": "semantic_vad",
    }
    assert decoded(hello) == ev.Hello(
        fields_set=("input", "output", "maxAheadMs", "voice", "instructions", "language", "turn"),
        input=PCMU,
        output=PCM16_48K,
        max_ahead_ms=2500,
        voice="cedar",
        instructions="Be brief.",
        language="German",
        turn="semantic_vad",
    )


@pytest.mark.parametrize(
    ("fields", "event"),
    [
        ({"input": {}}, ev.Hello(("input",), input=PCM16_16K)),
        ({"input": {"rate": 24000}}, ev.Hello(("input",), input=PCM16_24K)),
        ({"output": {"format": "pcma"}}, ev.Hello(("output",), output=PCMA)),
        ({"maxAheadMs": None}, ev.Hello(("maxAheadMs",), max_ahead_ms=None)),
        ({"maxAheadMs": 0}, ev.Hello(("maxAheadMs",), max_ahead_ms=MIN_AHEAD_MS)),
        ({"maxAheadMs": MAX_AHEAD_MS}, ev.Hello(("maxAheadMs",), max_ahead_ms=MAX_AHEAD_MS)),
        ({"voice": None, "turn": None, "input": None}, ev.Hello()),
        ({"turn": "manual"}, ev.Hello(("turn",), turn="manual")),
        ({"duplex": "full", "tools": []}, ev.Hello(("duplex", "tools"), half_duplex=False)),
        ({"duplex": "half", "resume": "token"}, ev.Hello(("duplex",), half_duplex=True)),
        ({"consent": False}, ev.Hello(("consent",), consent=False)),
    ],
    ids=str,
)
def test_every_field_of_hello_is_optional_and_null_is_as_if_left_out(fields: Obj, event: ev.Hello) -> None:
    assert decoded({"type": "hello", **fields}) == event


@pytest.mark.parametrize(
    ("message", "code", "field", "fix"),
    [
        (b"", "bad_json", None, "The message is not valid JSON: "),
        (b"hello", "bad_json", None, "The message is not valid JSON: "),
        (b'{"type":"bye"', "bad_json", None, "The message is not valid JSON: "),
        (b'{"type":"\xff"}', "bad_json", None, "The message is not valid JSON: "),
        (b"[" * 60_000, "bad_message", None, "at most 10000 members"),
        (b"[" * 900, "bad_json", None, "The message is not valid JSON: "),
        (b"[]", "bad_message", "type", 'JSON object with a "type"'),
        (b"{}", "bad_message", "type", 'JSON object with a "type"'),
        (b'{"type":7}', "bad_message", "type", 'JSON object with a "type"'),
        ({"type": "sing"}, "unknown_type", "type", "known types are: hello, playback, toolResult, text, commit"),
        ({"type": "x" * 5000}, "unknown_type", "type", "known types are: hello"),
        ({"type": "playback", "playedMs": 1}, "bad_message", "itemId", "must be a non-empty string."),
        ({"type": "playback", "itemId": " ", "playedMs": 1}, "bad_message", "itemId", "must be a non-empty string."),
        ({"type": "playback", "itemId": ["a"], "playedMs": 1}, "bad_message", "itemId", "must be a non-empty string."),
        ({"type": "playback", "itemId": "i" * 300, "playedMs": 1}, "bad_message", "itemId", f"most {MAX_ID_CHARS}"),
        ({"type": "playback", "itemId": "i"}, "bad_message", "playedMs", "number of ms"),
        ({"type": "playback", "itemId": "i", "playedMs": "1"}, "bad_message", "playedMs", "number of ms"),
        ({"type": "playback", "itemId": "i", "playedMs": True}, "bad_message", "playedMs", "number of ms"),
        ({"type": "playback", "itemId": "i", "playedMs": -1}, "bad_message", "playedMs", "from 0 to"),
        ({"type": "playback", "itemId": "i", "playedMs": 10**40}, "bad_message", "playedMs", str(MAX_POSITION_MS)),
        ({"type": "text"}, "bad_message", "text", "must be a non-empty string."),
        ({"type": "text", "text": "\n"}, "bad_message", "text", "must be a non-empty string."),
        ({"type": "text", "text": "x" * 40_000}, "bad_message", "text", f"at most {MAX_TEXT_CHARS} characters"),
        ({"type": "hello", "v": 2}, "hello_refused", "v", "version 1"),
        ({"type": "hello", "v": "1"}, "hello_refused", "v", "version 1"),
        ({"type": "hello", "duplex": "simplex"}, "bad_message", "duplex", "full or half"),
        ({"type": "toolResult", "output": 1}, "bad_message", "callId", "must be a non-empty string."),
        ({"type": "toolResult", "callId": "c"}, "bad_message", "output", "any JSON value"),
        ({"type": "toolResult", "callId": "c", "error": 7}, "bad_message", "error", "must be a non-empty string."),
        (
            b'{"type":"toolResult","callId":"c","output":' + b"[" * 900 + b"]" * 900 + b"}",
            "bad_message",
            "output",
            "deep",
        ),
        ({"type": "hello", "consent": "yes"}, "bad_message", "consent", "true or false"),
        ({"type": "consent"}, "bad_message", "granted", "true or false"),
        ({"type": "hello", "input": "pcm16"}, "bad_message", "input", '{"format":"pcm16","rate":24000}'),
        ({"type": "hello", "input": {"rate": 22050}}, "bad_message", "input", "8000, 16000, 24000, 48000"),
        ({"type": "hello", "input": {"rate": 24000.5}}, "bad_message", "input", "8000, 16000, 24000, 48000"),
        ({"type": "hello", "output": {"format": "opus"}}, "bad_message", "output", "pcm16, pcmu, pcma"),
        ({"type": "hello", "output": {"format": ["pcm16"]}}, "bad_message", "output", "pcm16, pcmu, pcma"),
        (
            {"type": "hello", "output": {"format": "pcmu", "rate": 16000}},
            "bad_message",
            "output",
            "must be one of 8000",
        ),
        ({"type": "hello", "maxAheadMs": "1000"}, "bad_message", "maxAheadMs", "number of ms"),
        ({"type": "hello", "maxAheadMs": -1}, "bad_message", "maxAheadMs", "from 0 to"),
        ({"type": "hello", "maxAheadMs": MAX_AHEAD_MS + 1}, "bad_message", "maxAheadMs", str(MAX_AHEAD_MS)),
        ({"type": "hello", "voice": ""}, "bad_message", "voice", "must be a non-empty string."),
        ({"type": "hello", "voice": "v" * 129}, "bad_message", "voice", "at most 128"),
        ({"type": "hello", "voice": {"id": "v"}}, "bad_message", "voice", "must be a non-empty string."),
        ({"type": "hello", "language": "l" * 65}, "bad_message", "language", "at most 64"),
        ({"type": "hello", "instructions": 5}, "bad_message", "instructions", "must be a non-empty string."),
        ({"type": "hello", "turn": "auto"}, "bad_message", "turn", "server_vad, semantic_vad, manual"),
        ({"type": "hello", "turn": ["manual"]}, "bad_message", "turn", "server_vad, semantic_vad, manual"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_error_names_the_field_and_the_fix(message: object, code: str, field: str | None, fix: str) -> None:
    fault = decoded(message)
    assert isinstance(fault, ev.ClientProtocolError)
    assert (fault.code, fault.field) == (code, field)
    assert fix in fault.message
    assert len(fault.message) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "v",
    "input",
    "output",
    "maxAheadMs",
    "voice",
    "instructions",
    "language",
    "turn",
    "itemId",
    "playedMs",
    "text",
]
FORMATS = st.fixed_dictionaries({}, optional={"format": JSON | st.just("pcm16"), "rate": JSON | st.just(24000)})


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["hello", "playback", "text", "commit", "clear", "interrupt", "bye"]) | JSON},
        optional=dict.fromkeys(FIELDS, JSON | FORMATS),
    )
)
@settings(max_examples=100, deadline=None)
def test_no_message_gets_past_the_decoder_as_an_exception(message: Obj) -> None:
    event = decoded(message)
    assert isinstance(event, get_args(ev.ClientEvent))


# -- what a client is told --------------------------------------------------------------------------------------------

OPTIONS = DeviceOptions(PCM16_16K, PCM16_24K, 1000)
IN_FORCE = {"input": {"format": "pcm16", "rate": 16000}, "output": {"format": "pcm16", "rate": 24000}}
CLOCK = ToolSpec("clock", "Tells the time.", {"type": "object"})


@pytest.mark.parametrize(
    ("message", "obj"),
    [
        (
            cmd.SendConnected("rs_1", OPTIONS),
            {"type": "event", "name": "AIConnected", "sessionId": "rs_1", "protocol": 1, **IN_FORCE},
        ),
        (
            cmd.SendReady(
                OPTIONS, SessionConfig("marin", language="German", turn=TurnDetection("manual"), tools=(CLOCK,))
            ),
            {
                "type": "ready",
                **IN_FORCE,
                "voice": "marin",
                "turn": "manual",
                "maxAheadMs": 1000,
                "duplex": "full",
                "language": "German",
                "tools": ["clock"],
            },
        ),
        (
            cmd.SendReady(DeviceOptions(PCM16_16K, PCM16_24K, None, half_duplex=True), SessionConfig()),
            {
                "type": "ready",
                **IN_FORCE,
                "voice": None,
                "turn": "server_vad",
                "maxAheadMs": None,
                "duplex": "half",
                "language": None,
                "tools": [],
            },
        ),
        (
            cmd.SendToolCall("call_1", "open_door", '{"wide": true}', 5000),
            {
                "type": "toolCall",
                "callId": "call_1",
                "name": "open_door",
                "arguments": {"wide": True},
                "timeoutMs": 5000,
            },
        ),
        (cmd.SendSpeechState(started=True), {"type": "event", "name": "AISpeechDetected"}),
        (cmd.SendSpeechState(started=False), {"type": "event", "name": "AISpeechEnded"}),
        (cmd.SendResponseStart(), {"type": "event", "name": "AIResponseStart"}),
        (
            cmd.SendResponseEnd("Nine.", "completed", more=False),
            {"type": "event", "name": "AIResponseEnd", "finalText": "Nine.", "status": "completed", "more": False},
        ),
        (cmd.SendTextDelta("Nine ☺"), {"type": "textDelta", "text": "Nine ☺"}),
        (
            cmd.SendTranscript("user", "item_1", 3, "what time", final=False),
            {
                "type": "transcript",
                "role": "user",
                "itemId": "item_1",
                "order": 3,
                "text": "what time",
                "final": False,
            },
        ),
        (
            cmd.SendToolStatus("call_1", "clock", "started", 0),
            {"type": "tool", "callId": "call_1", "name": "clock", "status": "started", "ms": 0},
        ),
        (
            cmd.SendToolStatus("call_1", "clock", "done", 5, arguments='{"city":"Oslo"}', output='["nine"]'),
            {
                "type": "tool",
                "callId": "call_1",
                "name": "clock",
                "status": "done",
                "ms": 5,
                "arguments": {"city": "Oslo"},
                "output": ["nine"],
            },
        ),
        (
            cmd.SendToolStatus("call_1", "clock", "done", 5, arguments={"city": "Oslo"}, output="nine o'clock"),
            {
                "type": "tool",
                "callId": "call_1",
                "name": "clock",
                "status": "done",
                "ms": 5,
                "arguments": {"city": "Oslo"},
                "output": "nine o'clock",
            },
        ),
        (
            cmd.SendToolStatus("call_1", "clock", "progress", 9, text="still winding"),
            {
                "type": "tool",
                "callId": "call_1",
                "name": "clock",
                "status": "progress",
                "ms": 9,
                "text": "still winding",
            },
        ),
        (
            cmd.SendInterrupted("item_1", 900, "one two", estimated=True),
            {"type": "interrupted", "itemId": "item_1", "playedMs": 900, "heardText": "one two", "estimated": True},
        ),
        (
            cmd.SendUsage(Usage(1, 2, 3, 4, 5, 6, 7, 8)),
            {
                "type": "usage",
                "inputTokens": 1,
                "outputTokens": 2,
                "totalTokens": 3,
                "inputAudioTokens": 4,
                "inputTextTokens": 5,
                "cachedTokens": 6,
                "outputAudioTokens": 7,
                "outputTextTokens": 8,
            },
        ),
        (
            TurnMetrics("item_1", None, 300, 2, None, 302),
            {
                "type": "latency",
                "itemId": "item_1",
                "speechStoppedMs": None,
                "firstDeltaMs": 300,
                "firstByteMs": 2,
                "firstPlayedMs": None,
                "totalMs": 302,
            },
        ),
        (
            cmd.SendError("not_allowed", "No.", "voice", retryable=False),
            {"type": "error", "code": "not_allowed", "message": "No.", "field": "voice", "retryable": False},
        ),
        (
            cmd.SendError("slow_client", "Reconnect.", retryable=True),
            {"type": "error", "code": "slow_client", "message": "Reconnect.", "retryable": True},
        ),
        (  # an upstream's error may have an empty `param`
            cmd.SendError("upstream_error", "No.", "", retryable=True),
            {"type": "error", "code": "upstream_error", "message": "No.", "retryable": True},
        ),
        (cmd.SendGoodbye("restarting"), {"type": "goodbye", "reason": "restarting"}),
        (cmd.SendAudioStart("item_1", 0), {"type": "audioStart", "itemId": "item_1"}),
        (cmd.SendAudioEnd("item_1", 0, 1234), {"type": "audioEnd", "itemId": "item_1", "totalMs": 1234}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)
def test_each_message_to_the_client(message: cmd.ClientMessage, obj: Obj) -> None:
    assert encoded(message) == obj


def test_no_message_to_the_client_is_missing_here() -> None:
    [mark] = [mark for mark in test_each_message_to_the_client.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    covered = {type(message) for message, _ in mark.args[1]}
    assert covered == {*get_args(cmd.ClientMessage), cmd.SendAudioStart, cmd.SendAudioEnd}


@pytest.mark.parametrize("depth", [200, 300, 1000, 5000])
def test_deeply_nested_arguments_and_outputs_are_sent(depth: int) -> None:
    deep = "[" * depth + "]" * depth
    frame = codec().encode(cmd.SendToolStatus("call_1", "clock", "done", 5, arguments=deep, output=deep))
    assert b'"callId":"call_1"' in frame


def test_arguments_beyond_orjsons_limits_are_sent() -> None:
    huge = {"n": 10**30, "deep": json.loads("[" * 300 + "]" * 300)}
    assert encoded(cmd.SendToolStatus("call_1", "clock", "started", 0, arguments=huge))["arguments"] == huge


def test_lone_surrogates_in_a_tools_text_are_replaced() -> None:
    assert (
        encoded(cmd.SendToolStatus("call_1", "clock", "progress", 1, text="half \ud83d done"))["text"] == "half ? done"
    )


@pytest.mark.parametrize("text", ["", "nine", "{", '"\\ud800"', "1e999", "NaN"])
def test_an_output_that_is_not_json_is_sent_as_text(text: str) -> None:
    assert encoded(cmd.SendToolStatus("call_1", "clock", "done", 5, output=text))["output"] == text
