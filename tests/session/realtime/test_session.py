"""A Realtime session: each event has its rule, the others are forwarded, and faults are answered."""

from typing import Any, get_args

import pytest

from relay.session.common.policy import DEFAULT_ALLOW, RealtimePolicy
from relay.session.common.session_state import Phase
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.realtime.endings import RealtimeEndingEvent
from relay.session.realtime.events import InvalidClientMessage, RealtimeClientEvent, RealtimeEvent, RealtimeServerEvent
from tests.support.realtime_session_harness import CLOCK, CREATE, LAMP, RealtimeSessionHarness, ready_session


def test_without_tools_or_policy_the_relay_sends_no_events_of_its_own() -> None:
    at = RealtimeSessionHarness()
    at.upstream(type="session.created", session={"type": "realtime", "instructions": "x", "tools": []})
    assert at.take_upstream_events() == []
    assert at.raw == [b'{"type": "session.created", "session": {"type": "realtime", "instructions": "x", "tools": []}}']


@pytest.mark.parametrize(
    "event",
    [
        {"type": "rate_limits.updated", "rate_limits": []},
        {"type": "something.nobody.has.seen", "deep": {"er": [1, None, 2.5]}},
        {"type": "response.mcp_call.completed", "item_id": "item_m", "output_index": 0},
        {"type": "error", "error": {"type": "server_error", "message": "m", "event_id": "theirs"}},
        {"type": 7},
    ],
)
def test_untouched_events_are_forwarded_byte_for_byte(event: dict[str, Any]) -> None:
    at = ready_session(CLOCK).upstream(event)
    assert at.take_client_events() == [event]
    assert len(at.raw) == 1


def test_unknown_client_events_are_forwarded_in_order() -> None:
    at = ready_session()
    events = [
        {"type": "output_audio_buffer.clear"},
        {"type": "brand.new", "event_id": "n", "x": [{}]},
        {"type": "input_audio_buffer.commit", "event_id": "k"},
    ]
    assert at.client(*events).take_upstream_events() == events


@pytest.mark.parametrize("event_id", ["relay_1", 7, "x" * 513])
def test_ids_that_could_be_ours_are_refused(event_id: Any) -> None:
    at = ready_session().client(type="response.create", event_id=event_id)
    assert at.take_upstream_events() == []
    assert at.take_client_events()[0]["error"]["param"] == "event_id"


def test_faults_are_answered_and_ten_in_a_minute_end_the_session() -> None:
    at = ready_session()
    for _ in range(9):
        at.feed(InvalidClientMessage("not JSON", "invalid_json"))
    assert at.end_commands == []
    at.now = 59.0
    at.feed(InvalidClientMessage("not JSON", "invalid_json"))
    assert at.client_event_types() == ["error"] * 10
    assert cmd.CloseClient(1008, "10 faults in a minute") in at.end_commands


def test_faults_that_are_far_apart_do_not() -> None:
    at = ready_session()
    for number in range(30):
        at.now = number * 7.0
        at.feed(InvalidClientMessage("not JSON", "invalid_json"))
    assert at.end_commands == []


def test_a_rejected_event_is_answered_with_its_id_and_the_session_continues() -> None:
    at = ready_session(policy=RealtimePolicy(allow=DEFAULT_ALLOW - {"client_tools"}))
    at.client(type="session.update", event_id="u", session={"type": "realtime", "tools": [LAMP]})
    [error] = at.take_client_events()
    assert error["error"]["event_id"] == "u"
    assert error["error"]["param"] == "session.tools[0]"
    assert at.client(CREATE).upstream_event_types() == ["response.create"]


# -- every event ------------------------------------------------------------------------------------------------------

EVENTS: list[RealtimeEvent] = [
    RealtimeClientEvent({"type": "response.create"}),
    InvalidClientMessage("not JSON", "invalid_json"),
    RealtimeServerEvent(b'{"type": "rate_limits.updated"}', {"type": "rate_limits.updated"}),
    ev.ClientClosed(1000),
    ev.ClientBackpressure(9),
    ev.ClientRateLimited("audio"),
    ev.ClientMessageStalled(),
    ev.UpstreamOpened(),
    ev.UpstreamRefused(401, "no", False),
    ev.UpstreamClosed(1000),
    ev.UpstreamBackpressure(9),
    ev.MalformedUpstreamMessage("not JSON"),
    ev.ToolCallFinished("call_1", "done", "{}", 1),
    ev.ToolCallProgress("call_1", "half", 1),
    ev.EndSessionRequested("call_1", "bye"),
    ev.DeadlineReached(),
    ev.ServerDraining(),
    ev.KeyRevoked(),
    ev.InternalFailure("here"),
]


def test_the_list_of_events_is_complete() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(RealtimeEvent))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_each_event_ends_the_session_or_leaves_it_ready(event: RealtimeEvent) -> None:
    at = ready_session()
    at.feed(event)
    ends = type(event) in get_args(RealtimeEndingEvent)
    assert at.session.state.phase is (Phase.ENDED if ends else Phase.READY)
    assert (cmd.CloseUpstream() in at.end_commands) is ends
