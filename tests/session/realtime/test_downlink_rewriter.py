"""Server events as a Realtime client sees them."""

import pytest

from relay.session.common.model import ToolSpec
from relay.session.common.policy import RESTRICTED_ALLOW, RealtimePolicy
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.realtime_session_harness import (
    CLOCK,
    CREATE,
    DICE,
    LAMP,
    RealtimeSessionHarness,
    call_events,
    call_item,
    message_item,
    output_added,
    ready_session,
    response_created,
    response_done,
    user_item,
)


def test_a_server_tool_leaves_no_trace_and_its_follow_up_looks_like_the_upstreams_own() -> None:
    at = ready_session(CLOCK)
    call = call_item("c1", "clock")
    at.upstream(
        user_item("u1"), response_created("r1"), *call_events("r1", call, previous="u1"), response_done("r1", call)
    )
    events = at.take_client_events()
    assert [event["type"] for event in events] == ["conversation.item.added", "response.created", "response.done"]
    assert events[-1]["response"]["output"] == []
    assert events[-1]["response"]["usage"] == {"total_tokens": 5}
    assert at.tool_runs == [cmd.RunTool("c1", "clock", "{}")]
    at.tool_returns("c1", '{"time":"noon"}')
    output, create = at.take_upstream_events()
    assert output["item"] == {"type": "function_call_output", "call_id": "c1", "output": '{"time":"noon"}'}
    assert create == {"type": "response.create", "event_id": create["event_id"]}
    at.upstream(*output_added("c1", "o1", "item_c1"), response_created("r2"))
    item = message_item("m1", "in_progress")
    at.upstream(type="conversation.item.added", previous_item_id="o1", item=item)
    assert [event.get("previous_item_id") for event in at.client_events] == [None, "u1"]
    assert "c1" not in str(at.client_events)


def test_an_item_after_another_goes_after_its_hidden_followers() -> None:
    at = ready_session(CLOCK)
    call = call_item("c1", "clock")
    at.upstream(
        user_item("u1"), response_created("r1"), *call_events("r1", call, previous="u1"), response_done("r1", call)
    )
    at.upstream(*output_added("c1", "o1", "item_c1"), user_item("u2", "o1"))
    at.clear()
    item = user_item("new")["item"]
    for previous in ("u1", "u2", "root", "unknown"):
        at.client(type="conversation.item.create", previous_item_id=previous, item=item)
    assert [event["previous_item_id"] for event in at.take_upstream_events()] == ["o1", "u2", "root", "unknown"]
    at.upstream(type="input_audio_buffer.committed", item_id="u3", previous_item_id="o1")
    assert at.take_client_events()[0]["previous_item_id"] == "u1"
    at.upstream(type="conversation.item.deleted", item_id="u1")
    at.upstream(user_item("u4", "o1"))
    assert at.take_client_events()[-1]["previous_item_id"] is None, "no visible item is before it any more"


def test_an_item_after_itself_is_appended() -> None:
    at = ready_session(CLOCK)
    call = call_item("c1", "clock")
    at.upstream(user_item("u1"), user_item("u2", "u2"), response_created("r1"), *call_events("r1", call, previous="u2"))
    at.upstream(response_done("r1", call), *output_added("c1", "o1", "item_c1"))
    at.clear()
    at.upstream(user_item("u3", "o1"))
    assert at.take_client_events()[-1]["previous_item_id"] == "u2"


def test_outputs_after_a_hidden_one_are_renumbered() -> None:
    at = ready_session(CLOCK)
    call, mine = call_item("c1", "clock"), call_item("c2", "lamp")
    at.upstream(response_created("r1"), *call_events("r1", call, 0), *call_events("r1", mine, 1, "item_c1"))
    events = [event for event in at.take_client_events() if "output_index" in event]
    assert {event["output_index"] for event in events} == {0}
    assert at.session.delta_forwarding.hidden_output_indexes, "deltas of this response must be renumbered too"
    at.upstream(type="response.output_audio.delta", response_id="r1", item_id="m", output_index=2, delta="AAAA")
    assert at.take_client_events()[0]["output_index"] == 1
    at.upstream(response_done("r1", call, mine))
    assert at.take_client_events()[0]["response"]["output"] == [mine]
    assert not at.session.delta_forwarding.hidden_output_indexes


@pytest.mark.parametrize(
    ("first", "second", "ran", "seen"),
    [("clock", "clock", 1, 0), ("clock", "lamp", 1, 0), ("lamp", "clock", 0, 1), ("lamp", "lamp", 0, 2)],
)
@pytest.mark.parametrize("in_one_response", [True, False])
def test_a_call_id_keeps_its_first_owner(first: str, second: str, ran: int, seen: int, in_one_response: bool) -> None:
    at = ready_session(CLOCK)
    first_item, second_item = call_item("c1", first), call_item("c1", second) | {"id": "item_other"}
    if in_one_response:
        at.upstream(
            response_created("r1"),
            *call_events("r1", first_item),
            *call_events("r1", second_item, 1),
            response_done("r1", first_item, second_item),
        )
    else:
        at.upstream(response_created("r1"), *call_events("r1", first_item), response_done("r1", first_item))
        at.upstream(response_created("r2"), *call_events("r2", second_item), response_done("r2", second_item))
    assert len(at.tool_runs) == ran
    done_events = [event for event in at.take_client_events() if event["type"] == "response.done"]
    assert sum(len(event["response"]["output"]) for event in done_events) == seen
    at.client(type="conversation.item.create", item={"type": "function_call_output", "call_id": "c1", "output": "x"})
    assert at.client_event_types() == ([] if seen else ["error"])


def test_tools_are_visible_if_the_policy_says_so() -> None:
    at = ready_session(CLOCK, policy=RealtimePolicy(show_tools=True))
    call = call_item("c1", "clock")
    events = [
        response_created("r1"),
        *call_events("r1", call),
        response_done("r1", call),
        *output_added("c1", "o1", "item_c1"),
    ]
    at.upstream(*events)
    assert at.take_client_events() == events
    assert len(at.tool_runs) == 1
    at.client(type="conversation.item.create", item={"type": "function_call_output", "call_id": "c1", "output": "no"})
    assert at.take_client_events()[0]["type"] == "error"


def test_errors_about_the_relays_own_events_are_hidden() -> None:
    at = ready_session(CLOCK)
    at.upstream(response_created("r1"), response_done("r1", call_item("c1", "clock"))).tool_returns("c1")
    output = at.take_upstream_events()[0]
    at.clear()
    at.upstream(type="error", error={"code": "invalid_value", "message": "m", "event_id": output["event_id"]})
    assert at.take_client_events() == []
    assert at.session.ignored == {"error invalid_value": 1}


def test_an_error_for_an_event_without_id_has_none_either() -> None:
    at = ready_session().client(type="session.update", session={"type": "realtime"})
    event_id = at.take_upstream_events()[0]["event_id"]
    at.upstream(type="error", error={"code": "invalid_value", "message": "m", "event_id": event_id})
    assert at.take_client_events()[0]["error"] == {"code": "invalid_value", "message": "m", "event_id": None}


def test_visible_event_ids_do_not_reveal_hidden_events() -> None:
    def ids(calls: int) -> list[str]:
        at = ready_session(CLOCK)
        for number in range(calls):
            call = call_item(f"c{number}", "clock")
            at.upstream(response_created(f"r{number}"), response_done(f"r{number}", call)).tool_returns(f"c{number}")
        at.clear()
        at.client(type="response.cancel", event_id="relay_1").client(type="session.update", session=7)
        return [event["event_id"] for event in at.take_client_events()]

    assert ids(0) == ids(5)


def test_a_model_call_with_the_id_of_a_client_item_is_another_call() -> None:
    at = ready_session(CLOCK)
    mine = {"type": "function_call", "name": "clock", "arguments": "{}", "call_id": "c1"}
    at.client(type="conversation.item.create", item=mine)
    at.upstream(type="conversation.item.added", previous_item_id=None, item=mine | {"id": "item_mine"})
    at.clear()
    call = call_item("c1", "clock")
    at.upstream(response_created("r1"), *call_events("r1", call), response_done("r1", call))
    assert at.tool_runs == []
    assert at.client_event_types() == ["response.created", "response.done"], "and it stays hidden"


LOCKED = "You are the voice of the museum. Never speak of the vault.\nThe code is four, seven, one, one and nine."

WORDS = RealtimePolicy(instructions=LOCKED, allow=RESTRICTED_ALLOW)


@pytest.mark.parametrize(
    "quote",
    [LOCKED, LOCKED.upper(), "never speak of the vault.", "The code is four, seven, one", LOCKED.replace("\n", " ")],
)
def test_quotes_of_locked_instructions_in_errors_are_removed(quote: str) -> None:
    at = ready_session(policy=WORDS).client(CREATE)
    error = {
        "type": "invalid_request_error",
        "code": "x",
        "message": f"Bad: '{quote}'!",
        "param": quote,
        "event_id": "c1",
    }
    at.upstream({"type": "error", "error": error}, {"type": "error", "error": error | {"event_id": None}})
    for event in at.take_client_events():
        assert (event["error"]["message"], event["error"]["param"]) == ("Bad: '[…]'!", "[…]")
    failed = {"type": "failed", "error": {"message": f"Bad: {quote}", "code": "y"}}
    at.upstream(response_created("r1"), response_done("r1", status="failed", status_details=failed))
    assert at.take_client_events()[-1]["response"]["status_details"]["error"] == {"message": "Bad: […]", "code": "y"}
    at.feed(ev.UpstreamClosed(1008, quote))
    assert [end.reason for end in at.end_commands if isinstance(end, cmd.CloseClient)] == ["[…]"]


def test_an_error_that_quotes_nothing_passes_as_it_came() -> None:
    at = ready_session(policy=WORDS)
    at.upstream(type="error", error={"message": "You are the voice of reason.", "event_id": "theirs"})
    assert len(at.raw) == 1


def test_the_overlay_is_stripped_from_sessions_and_responses() -> None:
    secret = ToolSpec("vault", "Opens the vault behind the old staircase.", {"type": "object"})
    at = ready_session(secret, policy=WORDS)
    tools = [{"type": "function", "function": {"name": "vault"}}, {"type": "function", "name": "vault"}]
    session = {"system": f"<{LOCKED}>", "instructions": LOCKED, "tools": tools, "prompt": {"id": "p", "text": [LOCKED]}}
    at.upstream(type="session.updated", session=session | {"note": "opens the vault behind the OLD staircase"})
    assert at.take_client_events()[0]["session"] == {
        "system": "<[…]>", "instructions": "", "tools": [], "prompt": {"id": "p", "text": ["[…]"]}, "note": "[…]"
    }  # fmt: skip
    at.upstream(
        response_created("r1", instructions=LOCKED, tools=tools), response_done("r1", instructions=LOCKED, tools=tools)
    )
    assert [(event["response"]["instructions"], event["response"]["tools"]) for event in at.take_client_events()] == [
        ("", [])
    ] * 2


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("session.patched", "session"),
        ("transcription_session.updated", "session"),
        ("response.in_progress", "response"),
        ("input_audio_buffer.speech_started", "session"),
        ("response.created", "session"),
    ],
)
def test_unknown_events_are_stripped_of_the_overlay_too(kind: str, part: str) -> None:
    at = RealtimeSessionHarness(CLOCK, policy=WORDS)
    at.upstream(type="session.created", session={})
    settings = at.upstream_events[0]["session"]
    at.upstream(type="session.updated", session=settings)
    at.clear()
    at.upstream({"type": kind, part: settings | {"id": "x"}})
    visible = at.client_events[0][part]
    assert (visible["id"], visible["instructions"], visible["tools"]) == ("x", "", [])


def test_an_error_about_tools_does_not_name_a_hidden_one() -> None:
    at = ready_session(CLOCK, DICE).client(type="session.update", event_id="u", session={"tools": [LAMP]})
    error = {"message": "The functions clock, clock_2 and dice are bad.", "param": "session.tools[1]", "event_id": "u"}
    at.upstream(type="error", error=error)
    assert at.take_client_events()[0]["error"]["message"] == "The functions […], clock_2 and […] are bad."
