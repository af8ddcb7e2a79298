"""Correct events in, the actions that replace them out."""

from typing import Any

import pytest

from relay.testing.faults import FaultScript, parse_faults
from relay.testing.faults.script import EXPIRED_MESSAGE, CloseSocket, Delay, DeliverEvent, DeliverText

ITEM = {"id": "item_1", "type": "message", "role": "assistant", "content": []}
CALL = {"id": "item_2", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}


def response(item: dict[str, Any], *middle: dict[str, Any], status: str = "completed") -> list[dict[str, Any]]:
    """The events of a response with one item."""
    whole = [
        {"type": "response.created", "response": {"id": "resp_1", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "conversation.item.added", "previous_item_id": "item_0", "item": item},
        *middle,
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.done", "response": {"id": "resp_1", "status": status, "output": [item]}},
    ]
    return [{"event_id": f"event_{number}", **event} for number, event in enumerate(whole)]


SPOKEN = response(
    ITEM,
    {"type": "response.content_part.added", "item_id": "item_1", "output_index": 0},
    {"type": "response.output_audio.delta", "item_id": "item_1", "output_index": 0, "delta": "AAAA"},
    {"type": "response.output_audio.done", "item_id": "item_1", "output_index": 0},
)
CALLED = response(
    CALL, {"type": "response.function_call_arguments.done", "item_id": "item_2", "call_id": "call_1", "arguments": "{}"}
)


def actions_for(faults: str, events: list[dict[str, Any]]) -> list[Any]:
    """Return the actions for some events; an undelayed event is given as its type."""
    script = FaultScript(parse_faults(faults))
    actions = [action for event in events for action in script.apply(event)]
    return [
        action.event["type"] if isinstance(action, DeliverEvent) and not action.delay_s else action
        for action in actions
    ]


TYPES = [event["type"] for event in SPOKEN]


def test_without_faults_all_events_are_sent_unchanged():
    assert actions_for("", SPOKEN) == TYPES


@pytest.mark.parametrize("code", [1001, 1006, 1011])
def test_a_drop_after_an_event_sends_nothing_more(code: int):
    assert actions_for(f"drop={code}@conversation.item.added", SPOKEN) == [*TYPES[:3], CloseSocket(code)]


def test_a_stall_for_a_while_and_for_good():
    assert actions_for("stall=300@response.created", SPOKEN) == [TYPES[0], Delay(0.3), *TYPES[1:]]
    assert actions_for("stall@response.created", SPOKEN) == TYPES[:1]


def test_expiry_is_an_error_and_a_close():
    assert actions_for("session_expired@response.created", SPOKEN) == [
        "response.created",
        "error",
        CloseSocket(1001, EXPIRED_MESSAGE),
    ]


def test_errors_and_invalid_messages_are_inserted():
    assert actions_for("error=insufficient_quota@response.created", SPOKEN)[:2] == ["response.created", "error"]
    assert actions_for("unknown-event@response.created", SPOKEN)[1] == "response.mystery.delta"
    assert isinstance(actions_for("malformed@response.created", SPOKEN)[1], DeliverText)


def test_response_done_late_twice_and_never():
    late = actions_for("late-done=250", SPOKEN)
    assert late == [*TYPES[:-1], DeliverEvent(SPOKEN[-1], 0.25)]
    assert actions_for("double-done", SPOKEN) == [*TYPES, "response.done"]
    assert actions_for("no-done", SPOKEN) == TYPES[:-1]
    assert actions_for("no-done", SPOKEN * 2) == [*TYPES[:-1], *TYPES]
    assert actions_for("no-done#*", SPOKEN * 2) == TYPES[:-1] * 2
    assert actions_for("no-done#2", SPOKEN * 2) == [*TYPES, *TYPES[:-1]]


def test_response_created_is_sent_late():
    assert actions_for("wrong-order", SPOKEN) == [*TYPES[1:4], "response.created", *TYPES[4:]]
    assert actions_for("wrong-order", CALLED)[3] == "response.created"


def test_a_burst_is_held_and_sent_at_once():
    script = FaultScript(parse_faults("burst"))
    assert script.is_burst
    sizes = [len(script.apply(event)) for event in SPOKEN]
    assert sizes == [0, 0, 0, 0, 0, 6, 1, 1]


def test_two_items_in_one_response():
    script = FaultScript(parse_faults("two-items"))
    sent = [action.event for event in SPOKEN for action in script.apply(event) if isinstance(action, DeliverEvent)]
    second = [event for event in sent if event.get("output_index") == 1]
    assert [event["type"] for event in second] == [TYPES[1], *TYPES[3:7]]
    assert [event["item_id"] for event in second if "item_id" in event] == ["item_1_2"] * 3
    added = [event for event in sent if event["type"] == "conversation.item.added"]
    assert [event["previous_item_id"] for event in added] == ["item_0", "item_1"]
    assert [item["id"] for item in sent[-1]["response"]["output"]] == ["item_1", "item_1_2"]


def test_the_same_call_twice():
    script = FaultScript(parse_faults("duplicate-calls"))
    sent = [action.event for event in CALLED for action in script.apply(event) if isinstance(action, DeliverEvent)]
    output = sent[-1]["response"]["output"]
    assert [(item["id"], item["call_id"]) for item in output] == [("item_2", "call_1"), ("item_2_2", "call_1")]


def test_arguments_for_a_cancelled_response():
    session = {"type": "session.updated", "session": {"tools": [{"name": "roll_dice"}]}}
    script = FaultScript(parse_faults("late-arguments"))
    events = [session, *response(ITEM, status="cancelled")]
    last = [action for event in events for action in script.apply(event)][-1]
    assert isinstance(last, DeliverEvent)
    assert (last.event["type"], last.event["name"]) == ("response.function_call_arguments.done", "roll_dice")
    assert actions_for("late-arguments", SPOKEN) == TYPES


def test_faults_that_are_added_later_count_from_then():
    script = FaultScript()
    assert script.add_faults(parse_faults("drop=1011")) == [CloseSocket(1011)]
    assert script.apply(SPOKEN[0]) == []
    script = FaultScript()
    for event in SPOKEN:
        script.apply(event)
    assert script.add_faults(parse_faults("no-done")) == []
    assert [len(script.apply(event)) for event in SPOKEN][-1] == 0


def test_a_fault_without_a_point_is_triggered_after_the_first_event():
    assert actions_for("drop=1001", [{"type": "session.created", "session": {}}]) == [
        "session.created",
        CloseSocket(1001),
    ]
