"""Limits of a Realtime session: idle time, maximum duration, and rate limits."""

import pytest

from relay.session.common.limits import SessionLimits
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.realtime_session_harness import RealtimeSessionHarness


def limited_session(**limits: float) -> RealtimeSessionHarness:
    return RealtimeSessionHarness(limits=SessionLimits(**limits)).ready()


def tick_at(harness: RealtimeSessionHarness, now: float) -> None:
    harness.now = now
    harness.feed(ev.DeadlineReached())


def closes(harness: RealtimeSessionHarness) -> list[tuple[int, str]]:
    return [(end.code, end.reason) for end in harness.end_commands if isinstance(end, cmd.CloseClient)]


def test_an_idle_session_is_closed_with_an_error() -> None:
    harness = limited_session(max_idle_s=60)
    assert harness.session.deadline == 60
    tick_at(harness, 60)
    [error_event] = harness.take_client_events()
    assert error_event["error"]["code"] == "session_idle"
    assert (
        error_event["error"]["message"]
        == "The session was idle for 60 s, without events or responses; reconnect to continue."
    )
    assert closes(harness) == [(4002, "idle")]


def test_a_session_ends_at_its_maximum_duration_with_an_error() -> None:
    harness = limited_session(max_duration_s=600, max_idle_s=60)
    for now in range(0, 600, 30):
        harness.now = float(now)
        harness.client(type="input_audio_buffer.clear")
        harness.feed(ev.DeadlineReached())
    tick_at(harness, 600)
    assert harness.take_client_events()[-1]["error"]["code"] == "session_limit"
    assert closes(harness) == [(4002, "session too long")]


@pytest.mark.parametrize("sign", ["event", "audio", "a response"])
def test_client_events_audio_and_responses_are_activity(sign: str) -> None:
    harness = limited_session(max_idle_s=60)
    harness.now = 50.0
    if sign == "event":
        harness.client(type="input_audio_buffer.clear")
    elif sign == "audio":
        harness.append_audio(2)
    else:
        harness.upstream(type="response.created", response={"id": "r1", "output": []})
    tick_at(harness, 60)
    assert closes(harness) == []
    if sign == "a response":
        harness.upstream(type="response.done", response={"id": "r1", "status": "completed", "output": []})
    tick_at(harness, 109)
    assert closes(harness) == []
    tick_at(harness, 121)
    assert closes(harness) == [(4002, "idle")]


def test_without_limits_a_session_waits_for_ever() -> None:
    harness = limited_session()
    tick_at(harness, 1e6)
    assert harness.session.deadline is None
    assert closes(harness) == []


@pytest.mark.parametrize(("what", "bound"), [("audio", "2 MB or 600 events per second"), ("messages", "50 per second")])
def test_a_rate_limited_client_gets_the_limit_and_continues(what: str, bound: str) -> None:
    harness = limited_session()
    harness.feed(ev.ClientRateLimited(what))  # type: ignore[arg-type]
    [error_event] = harness.take_client_events()
    assert error_event["error"]["code"] == "too_fast"
    assert bound in error_event["error"]["message"]
    assert closes(harness) == []


def test_a_stalled_message_ends_its_session_with_an_error() -> None:
    harness = limited_session()
    harness.feed(ev.ClientMessageStalled())
    assert harness.take_client_events()[0]["error"]["code"] == "message_too_slow"
    assert closes(harness) == [(1013, "a message took too long to arrive")]
