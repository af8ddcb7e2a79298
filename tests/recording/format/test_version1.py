"""Lines of format 1, as they were written, in the terms of format 2."""

import json
from pathlib import Path
from typing import Any

import pytest

from audio.formats import AudioFormat
from relay.recording.format.records import (
    AudioEnvelope,
    EventRecord,
    InputAudioRecord,
    JournalRecord,
    OutputAudioRecord,
    SentAudioRecord,
    TtsAudioRecord,
)
from relay.recording.format.serialize import to_json
from relay.recording.format.version1 import FORMAT_1
from relay.recording.store.reader import decode_line
from relay.session.common.limits import SessionLimits
from relay.session.common.model import (
    Alignment,
    DeviceOptions,
    Item,
    SentAudio,
    SessionConfig,
    ToolSpec,
    TtsOptions,
    TurnDetection,
    Usage,
)
from relay.session.common.policy import Policy, RealtimePolicy
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime import events as rt

NAMES: dict[str, list[str]] = json.loads((Path(__file__).parent / "names_of_format_1.json").read_text())
"""Its classes and their fields, complete."""
AUDIO: dict[str, Any] = {"t": "Forwarded", "kind": "output_audio", "item_id": "i", "n_bytes": 2, "response_id": "r",
         "content_index": 0, "crc": 7}  # fmt: skip
EARLY = AUDIO | {"kind": "input_audio", "item_id": "", "response_id": ""}
GONE = {("VoiceSpoke", "raw"), ("ClientSaid", "n_members")}
"""Read apart, and never written."""
VALUE_CLASSES: dict[str, type] = {
    "Alignment": Alignment, "AudioFormat": AudioFormat, "ClipHanded": SentAudio, "DeviceOptions": DeviceOptions,
    "Item": Item, "Policy": Policy, "RealtimePolicy": RealtimePolicy, "SessionConfig": SessionConfig,
    "SessionLimits": SessionLimits, "SpeechRules": TtsOptions, "ToolSpec": ToolSpec, "TurnDetection": TurnDetection,
    "Usage": Usage,
}  # fmt: skip
STARTED = ev.OutputAudioStarted("r", "i", 0)
BODY = {"type": "response.create"}


def read(line: dict[str, Any]) -> list[JournalRecord]:
    return decode_line(json.dumps({"now": 1.5} | line).encode(), 1)


def started(*commands: Any) -> EventRecord:
    return EventRecord(1.5, STARTED, tuple(map(to_json, commands)))


OUT = {"out": 2, "item": "i", "response": "r", "part": 0}
START = {"t": "PlayStart", "item_id": "i", "content_index": 0}
START_COMMAND = to_json(cmd.SendAudioStart("i", 0))
DEADLINE = ev.DeadlineReached()
TRANSLATED: list[tuple[dict[str, Any], list[JournalRecord]]] = [
    ({"in": 640}, [InputAudioRecord(1.5, 640)]),
    ({"in": 640, "do": []}, [InputAudioRecord(1.5, 640)]),
    ({"in": 640, "do": [EARLY]}, [InputAudioRecord(1.5, 640)]),  # silence in its place
    (OUT, [OutputAudioRecord(1.5, 2, "r", "i", 0)]),
    (OUT | {"do": []}, [OutputAudioRecord(1.5, 2, "r", "i", 0, discarded=True)]),
    (OUT | {"do": [START, "="]}, [started(cmd.SendAudioStart("i", 0)), OutputAudioRecord(1.5, 2, "r", "i", 0)]),
    ({"voice": 2, "context": "c", "do": [AUDIO]}, [TtsAudioRecord(1.5, 2, "c")]),
    ({"voice": 2, "context": "c"}, [TtsAudioRecord(1.5, 2, "c", discarded=True)]),
    (
        {"voice": 2, "context": "c", "chars": ["x"], "starts": [0], "lengths": [5], "do": [START, AUDIO]},
        [TtsAudioRecord(1.5, 2, "c", Alignment(("x",), (0,), (5,)), stored_commands=(START_COMMAND,))],
    ),
    (
        {"voice": 2, "context": "c", "do": [{"t": "CloseVoice"}]},
        [
            TtsAudioRecord(1.5, 2, "c", discarded=True),
            EventRecord(1.5, ev.TtsAudio("c", 2), (to_json(cmd.DisconnectTts()),)),
        ],
    ),
    (
        {"event": {"t": "SessionUpdated", "silence_ms": None}, "do": [{"t": "TellSpeech", "started": True}, EARLY]},
        [EventRecord(1.5, ev.SessionUpdated(), (to_json(cmd.SendSpeechState(True)),))],
    ),
    ({"event": {"t": "Tick"}, "raised": "KeyError: 'x'"}, [EventRecord(1.5, DEADLINE, None, "KeyError: 'x'")]),
    ({"event": AUDIO | {"raw": "AAA="}, "raised": "KeyError"}, [EventRecord(1.5, STARTED, None, "KeyError")]),
    ({"event": EARLY | {"raw": "AAA="}, "raised": "KeyError"}, [EventRecord(1.5, DEADLINE, None, "KeyError")]),
    ({"event": AUDIO | {"raw": "A"}, "do": ["="]}, []),  # no base64: nobody could hear it
    (
        {"event": {"t": "VoiceSpoke", "context_id": "c", "n_bytes": 2, "raw": "AAA=", "alignment": None}},
        [EventRecord(1.5, ev.TtsAudio("c", 2))],
    ),
    (
        {"words": "Hi.", "item": "i", "response": "r", "part": 0, "spoken": True},
        [EventRecord(1.5, ev.TextDelta("r", "i", 0, "Hi.", True), (to_json(cmd.SendTextDelta("Hi.")),))],
    ),
    ({"sent": 2, "crc": 7, "kept": True}, [SentAudioRecord(1.5, 2, 7, True)]),
    ({"up": BODY}, [EventRecord(1.5, rt.RealtimeClientEvent(BODY), ("=",))]),
    ({"up": BODY, "do": []}, [EventRecord(1.5, rt.RealtimeClientEvent(BODY), ())]),
    (
        {"down": "{}", "read": True, "do": [{"t": "TellClient", "body": BODY}, {"t": "PassDown", "crc": 7}]},
        [EventRecord(1.5, rt.RealtimeServerEvent(b"{}", {}), (to_json(rt.SendToClient(BODY)),))],
    ),
    ({"in": 2, "head": "<", "tail": ">"}, [InputAudioRecord(1.5, 2, AudioEnvelope("<", ">"))]),
    ({"in": 2, "said": BODY}, [EventRecord(1.5, rt.RealtimeClientEvent(BODY), ("=",), None, 2)]),
    ({"out": 2, "head": "<", "tail": ">", "read": True}, [OutputAudioRecord(1.5, 2, envelope=AudioEnvelope("<", ">"))]),
    (
        {"out": 2, "head": "<", "tail": ">", "do": [{"t": "TellClient", "body": {
            "type": "response.output_audio.delta", "delta": "800 characters, CRC-32 7"}}]},
        [OutputAudioRecord(1.5, 2, envelope=AudioEnvelope("<", ">"))],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "lines"), TRANSLATED, ids=lambda line: json.dumps(line) if isinstance(line, dict) else ""
)
def test_a_line_of_format_1_is_read_in_the_terms_of_format_2(line: dict[str, Any], lines: list[JournalRecord]) -> None:
    assert read(line) == lines


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"event": {"t": "Levitated"}}, "unknown event or command 'Levitated'"),
        ({"event": {"t": "speech_started", "item_id": "i"}}, "unknown event or command 'speech_started'"),
        ({"event": {"t": "Playback", "item_id": "i", "played_ms": "x"}}, "Playback: 'x' is not of type int"),
        ({"event": {"t": "AudioDropped", "parts": []}}, "AudioDropped has no field 'parts'"),
        ({"event": 7}, "a JSON object"),
        ({"event": {"t": "Forwarded", "kind": "output_audio"}}, "item_id, response_id must be strings"),
        ({"event": {"t": "Tick"}, "do": [{"t": "Nope"}]}, "unknown event or command 'Nope'"),
        ({"event": {"t": "Tick"}, "do": 7}, "do must be a list"),
        ({"in": -1}, "in must be a whole number"),
        ({"out": 1}, "item, response must be strings"),
        ({"voice": 1}, "context must be a string"),
        ({}, "must have one of event, in, out, voice"),
    ],
)
def test_what_is_no_line_is_refused_by_name(line: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(line)


def refusal(kind: str, fields: list[str]) -> str:
    """The error for an event, command or value whose fields are all null."""
    obj = dict.fromkeys(fields)
    try:
        if kind in VALUE_CLASSES:
            FORMAT_1.decode_value(VALUE_CLASSES[kind], obj)
        else:
            FORMAT_1.from_json({"t": kind} | obj)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", sorted(NAMES.keys() - {"Forwarded"}))
def test_every_name_of_format_1_is_known(kind: str) -> None:
    fields = [name for name in NAMES[kind] if (kind, name) not in GONE]
    assert "unknown event or command" not in refusal(kind, fields)
    assert "has no field" not in refusal(kind, fields)
    assert "has no field 'levity'" in refusal(kind, [*fields, "levity"])


@pytest.mark.parametrize("kind", ["OutputStarted", "output_started", "SetInputGate", "set_input_gate", "release_input"])
def test_what_came_later_is_not_in_format_1(kind: str) -> None:
    assert "unknown event or command" in refusal(kind, [])
