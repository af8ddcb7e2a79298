import pytest

from relay.errors import ConfigError
from relay.testing.faults import FAULT_KINDS, FaultSpec, HandshakeFault, handshake_fault, parse_faults


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("drop", FaultSpec("drop", "1006", "")),
        ("drop=1011@response.created", FaultSpec("drop", "1011", "response.created")),
        ("drop=1001@response.output_audio.delta#3", FaultSpec("drop", "1001", "response.output_audio.delta", None, 3)),
        ("session_expired@2s", FaultSpec("session_expired", None, "", 2.0)),
        ("stall=250@500ms", FaultSpec("stall", "250", "", 0.5)),
        ("no-done#*", FaultSpec("no-done", None, "response.done", None, 0)),
        ("error=insufficient_quota", FaultSpec("error", "insufficient_quota", "")),
        ("401", FaultSpec("401", None, "handshake", None, 0)),
        ("500#1", FaultSpec("500", None, "handshake", None, 1)),
    ],
)
def test_the_syntax_of_a_fault(text: str, spec: FaultSpec):
    assert parse_faults(text) == (spec,)


def test_several_faults_and_none():
    assert [fault.name for fault in parse_faults("429=3, drop@2s,")] == ["429", "drop"]
    assert parse_faults("") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("explode", "There is no fault 'explode'. Write NAME"),
        ("drop=99", "'drop=99': the value must be a close code"),
        ("drop@handshake", "neither an event type nor a time"),
        ("drop@later!", "neither an event type nor a time"),
        ("stall=long", "the value must be a number of ms"),
        ("stall=99999999", "at most an hour"),
        ("no-done=1", "The fault 'no-done' takes no value: leave out '=1'"),
        ("401@2s", "The fault '401' takes no point: leave out '@2s'"),
        ("error=Bad Code", "the value must be an error code such as"),
    ],
)
def test_an_invalid_fault_is_refused_with_the_valid_syntax(text: str, message: str):
    with pytest.raises(ConfigError) as caught:
        parse_faults(text)
    assert message in str(caught.value)


def test_every_kind_can_be_written_by_its_name_alone():
    assert [fault.name for fault in parse_faults(",".join(FAULT_KINDS))] == list(FAULT_KINDS)


def test_handshake_faults():
    assert handshake_fault((), 1) == HandshakeFault()
    assert handshake_fault(parse_faults("drop"), 1) == HandshakeFault()
    assert handshake_fault(parse_faults("slow-accept=250,refuse"), 7) == HandshakeFault(0.25, 0)
    busy = handshake_fault(parse_faults("429=3"), 1)
    assert (busy.status, busy.headers) == (429, (("Retry-After", "3"),))
    wrong = handshake_fault(parse_faults("401"), 1)
    assert wrong.body is not None
    assert wrong.body["error"]["code"] == "invalid_api_key"


def test_a_numbered_handshake_fault_applies_to_one_connection():
    faults = parse_faults("500#2")
    assert [handshake_fault(faults, number).status for number in (1, 2, 3)] == [None, 500, None]
