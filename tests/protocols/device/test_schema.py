"""The published schema of the device protocol matches the code: the same messages, the same fields."""

import json
from collections.abc import Iterator
from typing import Any, get_args

import jsonschema_rs
import orjson
import pytest

from audio.formats import AudioFormat
from relay.protocols.device import decoder as device
from relay.protocols.device.codec import DeviceCodec
from relay.session.common.model import (
    DeviceOptions,
    ErrorCode,
    ResponseStatus,
    SessionConfig,
    ToolStatus,
    TurnKind,
    Usage,
)
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.turn_metrics import EXAMPLE_TURNS
from tests.support.device_schema import DEFS, MESSAGES, SCHEMA, Obj, complaints, name_of


def fields_of(name: str) -> set[str]:
    return set(DEFS[name]["properties"])


def codec() -> DeviceCodec:
    return DeviceCodec()


# -- the schema itself ------------------------------------------------------------------------------------------------


def test_it_is_a_schema() -> None:
    jsonschema_rs.meta.validate(SCHEMA)


@pytest.mark.parametrize("name", DEFS)
def test_everything_is_described(name: str) -> None:
    assert DEFS[name]["description"].endswith((".", "`."))


@pytest.mark.parametrize(("direction", "name"), [(d, name) for d, names in MESSAGES.items() for name in names])
def test_every_message_has_examples_that_hold(direction: Any, name: str) -> None:
    whole = jsonschema_rs.Draft202012Validator(SCHEMA)
    assert DEFS[name]["examples"]
    for example in DEFS[name]["examples"]:
        assert name_of(example) == name
        assert list(complaints(example, direction)) == []
        assert whole.is_valid(example)
        assert not whole.is_valid(example | {"mistyped": 1})


def test_the_helper_of_the_tests_says_what_is_wrong() -> None:
    assert list(complaints({"type": "text"}, "toRelay")) == ['the message: "text" is a required property']
    assert list(complaints({"type": "text", "text": 5}, "toRelay")) == ['text: 5 is not of type "string"']
    assert list(complaints({"type": "text", "text": "a"}, "toClient")) == ["the schema has no such message toClient"]
    assert list(complaints(["text"], "toRelay")) == ["the schema has no such message toRelay"]


# -- relay to client --------------------------------------------------------------------------------------------------

PCM = AudioFormat("pcm16", 24_000)
TOLD = [
    cmd.SendConnected("rs_1", DeviceOptions(PCM, PCM)),
    cmd.SendReady(DeviceOptions(PCM, PCM), SessionConfig()),
    cmd.SendSpeechState(started=True),
    cmd.SendSpeechState(started=False),
    cmd.SendResponseStart(),
    cmd.SendResponseEnd("Nine.", "completed", more=False),
    cmd.SendTextDelta("Nine"),
    cmd.SendTranscript("user", "item_1", 3, "what time", final=False),
    cmd.SendToolStatus("call_1", "clock", "done", 5, arguments={"city": "Oslo"}, output='["nine"]', text="ticking"),
    cmd.SendToolCall("call_1", "open_door", '{"wide": true}', 5000),
    cmd.SendInterrupted("item_1", 900, "one two", estimated=True),
    cmd.SendUsage(Usage(1, 2, 3, 4, 5, 6, 7, 8)),
    EXAMPLE_TURNS[-1],
    cmd.SendError("not_allowed", "No.", "voice", retryable=False),
    cmd.SendGoodbye("restarting"),
    cmd.SendAudioStart("item_1", 0),
    cmd.SendAudioEnd("item_1", 0, 1234),
]
"""Each command with all its optional fields."""


def test_each_message_of_the_code_to_the_client_is_in_the_schema_with_the_same_fields() -> None:
    assert {type(command) for command in TOLD} >= cmd.CLIENT_MESSAGES
    sent_fields: dict[str, set[str]] = {}
    for command in TOLD:
        message: Obj = json.loads(codec().encode(command))  # type: ignore[arg-type]
        sent_fields[name_of(message)] = set(message)
    assert sent_fields == {name: fields_of(name) for name in MESSAGES["toClient"]}


def test_closed_lists_are_the_same() -> None:
    codes = DEFS["error"]["properties"]["code"]["enum"]
    assert codes == [*get_args(ErrorCode)]
    assert DEFS["tool"]["properties"]["status"]["enum"] == list(get_args(ToolStatus))
    assert DEFS["AIResponseEnd"]["properties"]["status"]["enum"] == list(get_args(ResponseStatus))
    assert DEFS["turn"]["enum"] == list(get_args(TurnKind))


# -- client to relay --------------------------------------------------------------------------------------------------


class Asked(dict[str, Any]):
    """A message that records which fields the decoder reads."""

    def __init__(self, message: Obj) -> None:
        super().__init__(message)
        self.fields = {"type"}

    def get(self, field: str, default: Any = None) -> Any:
        self.fields.add(field)
        return super().get(field, default)

    def __getitem__(self, field: str) -> Any:
        self.fields.add(field)
        return super().__getitem__(field)

    def __contains__(self, field: object) -> bool:
        self.fields.add(str(field))
        return super().__contains__(field)


def known_to_the_decoder() -> list[str]:
    """The message types that the relay lists in its error about an unknown one."""
    fault = codec().decode_text(b'{"type":"?"}')
    assert isinstance(fault, ev.ClientProtocolError)
    return fault.message.rpartition("known types are: ")[2].removesuffix(".").split(", ")


def test_each_message_of_the_client_is_read_field_by_field_as_the_schema_has_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: dict[str, set[str]] = {}
    for name in known_to_the_decoder():
        read[name] = set()
        for example in DEFS[name]["examples"]:
            example_object = Asked(example)
            monkeypatch.setattr(orjson, "loads", lambda _, example_object=example_object: example_object)
            codec().decode_text(b"")
            read[name] |= example_object.fields
    assert read == {name: fields_of(name) for name in MESSAGES["toRelay"]}


def test_limits_are_the_same() -> None:
    assert DEFS["text"]["properties"]["text"]["maxLength"] == device.MAX_TEXT_CHARS
    assert DEFS["hello"]["properties"]["instructions"]["maxLength"] == device.MAX_TEXT_CHARS
    assert DEFS["hello"]["properties"]["maxAheadMs"]["maximum"] == device.MAX_AHEAD_MS
    assert DEFS["playback"]["properties"]["itemId"]["maxLength"] == device.MAX_ID_CHARS
    assert DEFS["playback"]["properties"]["playedMs"]["maximum"] == device.MAX_POSITION_MS


def values(schema: Obj) -> Iterator[Any]:
    """Values on both sides of the limits in a field's schema."""
    yield from (None, True, "", " ", "x", "x" * 40_000, 0, -1, 1.5, 10**9, [], {}, {"rate": 24_000})
    yield from (
        {"format": "pcmu", "rate": 16_000},
        {"format": "pcma"},
        {"format": "pcm16", "rate": 8000},
        {"rate": "x"},
    )
    for option in [schema, *schema.get("anyOf", [])]:
        target = DEFS[option["$ref"].rpartition("/")[2]] if "$ref" in option else option
        yield from target.get("enum", ())
        yield from (target[bound] for bound in ("const", "minimum", "maximum") if bound in target)
        yield from (target[bound] + 1 for bound in ("const", "maximum") if bound in target)
        if "maxLength" in target:
            yield from ("x" * target["maxLength"], "x" * (target["maxLength"] + 1))


def around_the_border(name: str) -> Iterator[Obj]:
    """A client message without one field, or with one value that may be valid or invalid."""
    for example in DEFS[name]["examples"]:
        for field in sorted(fields_of(name) - {"type"}):
            yield {key: value for key, value in example.items() if key != field}
            yield from (example | {field: value} for value in values(DEFS[name]["properties"][field]))


@pytest.mark.parametrize("name", known_to_the_decoder())
def test_what_the_schema_refuses_is_a_fault_and_nothing_else_is(name: str) -> None:
    for message in around_the_border(name):
        event = codec().decode_text(json.dumps(message).encode())
        refused = list(complaints(message, "toRelay"))
        assert isinstance(event, ev.ClientProtocolError) == bool(refused), (str(message)[:200], event, refused)
