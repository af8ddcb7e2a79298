"""Calls of server tools in a Realtime session, and the responses that follow them."""

from relay.session.tools.pending_calls import MAX_RUNNING_CALLS, TOO_MANY_AT_ONCE
from tests.support.linear_time import assert_linear
from tests.support.realtime_session_harness import (
    CLOCK,
    CREATE,
    DICE,
    SPEECH,
    SPEECH_ENDS,
    RealtimeSessionHarness,
    call_item,
    message_item,
    ready_session,
    response_created,
    response_done,
)


def test_several_calls_in_one_response_get_one_output_each_and_one_follow_up() -> None:
    at = ready_session(CLOCK, DICE)
    calls = [call_item("c1", "clock"), call_item("c2", "dice"), call_item("c3", "clock")]
    at.upstream(response_created("r1"), response_done("r1", *calls))
    assert [run.call_id for run in at.tool_runs] == ["c1", "c2", "c3"]
    at.tool_returns("c2").tool_returns("c1")
    assert at.upstream_event_types() == ["conversation.item.create"] * 2
    at.tool_returns("c3").tool_returns("c3")
    assert at.upstream_event_types() == ["conversation.item.create", "response.create"]


def test_a_response_with_thousands_of_calls_takes_linear_time() -> None:
    def done(n_calls: int) -> None:
        harness = RealtimeSessionHarness(CLOCK).ready()
        harness.upstream(type="response.created", response={"id": "r1", "output": []})
        calls = [
            {"id": f"i{number}", "type": "function_call", "call_id": f"c{number}", "name": "clock", "arguments": "{}"}
            for number in range(n_calls)
        ]
        harness.upstream(type="response.done", response={"id": "r1", "status": "completed", "output": calls})

    assert_linear(done, 1000)


def test_the_clients_follow_up_of_a_mixed_response_waits_for_the_servers_outputs() -> None:
    at = ready_session(CLOCK)
    call, mine = call_item("c1", "clock"), call_item("c2", "lamp")
    at.upstream(response_created("r1"), response_done("r1", call, mine))
    at.client(
        {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c2", "output": "on"}},
        CREATE,
    )
    assert at.upstream_event_types() == ["conversation.item.create"]
    at.tool_returns("c1")
    assert at.upstream_event_types() == ["conversation.item.create", "response.create"]
    at.upstream(response_created("r2"), response_done("r2", message_item("m")))
    assert at.upstream_event_types() == [], "the client's response was the follow-up"


def test_a_later_turns_follow_up_does_not_wait_for_an_earlier_mixed_response() -> None:
    at = ready_session(CLOCK, DICE)
    at.upstream(response_created("r1"), response_done("r1", call_item("c1", "clock"), call_item("c2", "lamp")))
    at.upstream(SPEECH, SPEECH_ENDS)
    at.upstream(response_created("r2"), response_done("r2", call_item("c3", "dice")))
    at.tool_returns("c3")
    assert at.upstream_event_types() == ["conversation.item.create", "response.create"]
    at.tool_returns("c1")
    assert at.upstream_event_types() == ["conversation.item.create"]


def test_a_mixed_response_that_the_client_never_follows_up_is_left_to_it() -> None:
    at = ready_session(CLOCK)
    at.upstream(
        response_created("r1"), response_done("r1", call_item("c1", "clock"), call_item("c2", "lamp"))
    ).tool_returns("c1")
    assert at.upstream_event_types() == ["conversation.item.create"]


def test_calls_run_from_completed_responses_alone_yet_never_stay_without_output() -> None:
    at = ready_session(CLOCK)
    cut = call_item("c2", "clock", "incomplete")
    at.upstream(response_created("r1"), response_done("r1", call_item("c1", "clock"), cut, status="cancelled"))
    assert at.tool_runs == []
    [output] = at.take_upstream_events()
    assert "cancelled" in output["item"]["output"]


def test_a_follow_up_is_cancelled_by_any_response_that_begins_after_the_outputs_landed() -> None:
    at = ready_session(CLOCK).upstream(response_created("r1"), response_done("r1", call_item("c1", "clock")))
    at.upstream(response_created("vad")).tool_returns("c1")
    assert at.upstream_event_types() == ["conversation.item.create"]
    at.upstream(response_done("vad"))
    assert at.upstream_event_types() == ["response.create"], "it was created before the output arrived"
    at.upstream(response_created("r3"), response_done("r3", call_item("c2", "clock")), SPEECH)
    at.tool_returns("c2")
    at.upstream(SPEECH_ENDS, response_created("r4"), response_done("r4"))
    assert at.upstream_event_types() == ["conversation.item.create"], "the user continued: no follow-up"


def test_the_follow_up_keeps_what_was_asked_of_the_response_that_called() -> None:
    at = ready_session(CLOCK)
    wish = {"output_modalities": ["text"], "instructions": "Short.", "metadata": {"a": "b"}, "tool_choice": "required"}
    at.client(type="response.create", event_id="c", response=wish)
    at.upstream(response_created("r1"), response_done("r1", call_item("c1", "clock"))).tool_returns("c1")
    assert at.take_upstream_events()[-1]["response"] == {"output_modalities": ["text"], "instructions": "Short."}


def test_tool_rounds_are_capped() -> None:
    at = ready_session(CLOCK)
    for number in range(8):
        at.upstream(
            response_created(f"r{number}"), response_done(f"r{number}", call_item(f"c{number}", "clock"))
        ).tool_returns(f"c{number}")
    assert at.take_upstream_events()[-1]["response"] == {"tool_choice": "none"}
    at.upstream(response_created("r9"), response_done("r9", call_item("c9", "clock")))
    assert len(at.tool_runs) == 8
    assert "too_many_calls" in at.take_upstream_events()[-1]["item"]["output"]


def test_calls_beyond_the_bound_are_not_run_and_are_answered_at_once() -> None:
    calls = [call_item(f"c{number}", "clock") for number in range(MAX_RUNNING_CALLS + 2)]
    at = ready_session(CLOCK).upstream(response_created("r1"), response_done("r1", *calls))
    assert [run.call_id for run in at.tool_runs] == [f"c{number}" for number in range(MAX_RUNNING_CALLS)]
    items = [event["item"] for event in at.take_upstream_events()]
    assert [(item["call_id"], item["output"]) for item in items] == [
        (f"c{number}", TOO_MANY_AT_ONCE) for number in (MAX_RUNNING_CALLS, MAX_RUNNING_CALLS + 1)
    ]
    for number in range(MAX_RUNNING_CALLS):
        at.tool_returns(f"c{number}")
    assert at.upstream_event_types() == ["conversation.item.create"] * MAX_RUNNING_CALLS + ["response.create"]
    at.upstream(response_created("r2"), response_done("r2", call_item("c99", "clock")))
    assert at.tool_runs[-1].call_id == "c99", "there is room again"


def test_calls_that_still_run_count_against_the_bound() -> None:
    calls = [call_item(f"c{number}", "clock") for number in range(MAX_RUNNING_CALLS)]
    at = ready_session(CLOCK).upstream(response_created("r1"), response_done("r1", *calls))
    at.upstream(response_created("r2"), response_done("r2", call_item("more", "clock"), call_item("lamps", "lamp")))
    assert len(at.tool_runs) == MAX_RUNNING_CALLS
    [output] = at.take_upstream_events()
    assert (output["item"]["call_id"], output["item"]["output"]) == ("more", TOO_MANY_AT_ONCE)
    at.client(CREATE)
    assert at.upstream_event_types() == ["response.create"], "all outputs are there"
