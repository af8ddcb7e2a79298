"""One response at a time, whoever requests it."""

import pytest

from relay.session.common.limits import AUTO_RESPONSE_TIMEOUT_S, STALL_TIMEOUT_S
from relay.session.device import events as ev
from tests.support.realtime_session_harness import (
    CLOCK,
    CREATE,
    SPEECH,
    SPEECH_ENDS,
    call_item,
    ready_session,
    response_created,
    response_done,
)


def test_a_response_waits_for_the_one_under_way_and_a_third_is_refused() -> None:
    at = ready_session()
    at.client(CREATE, {"type": "response.create", "event_id": "c2", "response": {"metadata": {"a": "b"}}})
    at.client(type="response.create", event_id="c3")
    assert [event["event_id"] for event in at.take_upstream_events()] == ["c1"]
    [error] = at.take_client_events()
    assert (error["error"]["code"], error["error"]["event_id"]) == ("conversation_already_has_active_response", "c3")
    at.upstream(response_created("r1"))
    assert at.take_upstream_events() == []
    at.upstream(response_done("r1"))
    assert at.take_upstream_events() == [
        {"type": "response.create", "event_id": "c2", "response": {"metadata": {"a": "b"}}}
    ]


def test_a_refused_create_frees_the_slot_and_is_reported() -> None:
    at = ready_session().client(CREATE)
    refusal = {"type": "error", "error": {"code": "invalid_value", "message": "m", "event_id": "c1"}}
    at.upstream(refusal)
    assert at.take_client_events() == [refusal]
    at.client(type="response.create", event_id="c2")
    assert [event["event_id"] for event in at.take_upstream_events()] == ["c1", "c2"]


def test_a_race_with_an_upstream_response_is_reported_and_blocks_nothing() -> None:
    at = ready_session().client(CREATE)
    at.upstream(response_created("vad"))
    busy = {"code": "conversation_already_has_active_response", "message": "m", "event_id": "c1"}
    at.upstream(type="error", error=busy)
    at.upstream(response_done("vad"))
    at.clear()
    at.client(type="response.create", event_id="c2")
    assert at.upstream_event_types() == ["response.create"]


def test_cancelling_rejects_the_queued_request() -> None:
    at = ready_session().client(CREATE).upstream(response_created("r1"))
    at.client({"type": "response.create", "event_id": "c2"}, {"type": "response.cancel"})
    assert at.upstream_event_types() == ["response.create", "response.cancel"]
    assert at.take_client_events()[-1]["error"]["event_id"] == "c2"
    at.upstream(response_done("r1", status="cancelled"))
    assert at.take_upstream_events() == []


def test_a_response_cancelled_before_it_began_is_cancelled_when_it_appears() -> None:
    at = ready_session().client(CREATE, {"type": "response.cancel"})
    at.clear()
    at.upstream(response_created("r1"))
    [cancel] = at.take_upstream_events()
    assert (cancel["type"], cancel["response_id"]) == ("response.cancel", "r1")


def test_cancel_then_create_waits_for_the_end() -> None:
    at = ready_session().client(CREATE).upstream(response_created("r1"))
    at.client({"type": "response.cancel"}, {"type": "response.create", "event_id": "c2"})
    assert at.upstream_event_types() == ["response.create", "response.cancel"]
    at.upstream(response_done("r1", status="cancelled"))
    assert at.upstream_event_types() == ["response.create"]


@pytest.mark.parametrize("marked", [True, False])
def test_responses_out_of_band_overlap_and_call_no_server_tools(marked: bool) -> None:
    at = ready_session(CLOCK).client(CREATE).upstream(response_created("r1", conversation_id="conv_1"))
    metadata = {"metadata": {"topic": "x"}} if marked else {}
    at.client(type="response.create", event_id="o", response={"conversation": "none", "input": [], **metadata})
    settings = at.take_upstream_events()[-1]["response"]
    assert settings == {"conversation": "none", "input": [], "tools": [], **metadata}
    call = call_item("c1", "clock")
    at.upstream(
        response_created("r2", conversation_id=None, **metadata),
        response_done("r2", call, conversation_id=None, **metadata),
    )
    assert at.tool_runs == []
    assert at.take_client_events()[-1]["response"]["output"] == [call]
    at.client(type="response.create", event_id="c3")
    assert at.take_upstream_events() == [], "the one in the conversation is still active"


def test_a_due_response_waits_for_the_user_but_not_for_ever() -> None:
    at = (
        ready_session(CLOCK)
        .client(CREATE)
        .upstream(response_created("r1"), response_done("r1", call_item("c1", "clock")))
    )
    at.upstream(response_created("other")).tool_returns("c1")
    at.upstream(SPEECH, response_done("other", status="cancelled"))
    at.clear()
    at.upstream(SPEECH_ENDS)
    assert at.take_upstream_events() == []
    assert at.session.deadline == AUTO_RESPONSE_TIMEOUT_S
    at.now = AUTO_RESPONSE_TIMEOUT_S
    at.feed(ev.DeadlineReached())
    assert at.upstream_event_types() == ["response.create"]


def test_an_own_request_is_cancelled_if_the_user_spoke_before_it_began() -> None:
    at = (
        ready_session(CLOCK)
        .upstream(response_created("r1"), response_done("r1", call_item("c1", "clock")))
        .tool_returns("c1")
    )
    at.upstream(SPEECH)
    at.clear()
    at.upstream(response_created("r2"))
    assert at.take_upstream_events()[0]["type"] == "response.cancel"


def test_an_own_request_that_lost_a_race_is_made_again() -> None:
    at = (
        ready_session(CLOCK)
        .upstream(response_created("r1"), response_done("r1", call_item("c1", "clock")))
        .tool_returns("c1")
    )
    request = at.take_upstream_events()[-1]
    at.clear()
    busy = {"code": "conversation_already_has_active_response", "message": "m", "event_id": request["event_id"]}
    at.upstream(response_created("vad"))
    at.upstream(type="error", error=busy)
    assert at.client_event_types() == ["response.created"]
    at.upstream(response_done("vad"))
    assert at.upstream_event_types() == ["response.create"]


def test_an_upstream_that_never_ends_a_response_does_not_block_the_next() -> None:
    at = ready_session().client(CREATE).upstream(response_created("r1"))
    at.client(type="response.create", event_id="c2")
    at.now = at.session.deadline or 0.0
    assert at.now == STALL_TIMEOUT_S
    at.feed(ev.DeadlineReached())
    assert [event["event_id"] for event in at.take_upstream_events()] == ["c1", "c2"]
