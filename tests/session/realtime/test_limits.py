"""Limits of a Realtime session: idle time, maximum duration, and rate limits."""

import pytest

from relay.session.common.limits import SessionLimits
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.realtime_stage import RealtimeSessionHarness


def staged(**limits: float) -> RealtimeSessionHarness:
    return RealtimeSessionHarness(limits=SessionLimits(**limits)).ready()


def tick_at(stage: RealtimeSessionHarness, now: float) -> None:
    stage.now = now
    stage.feed(ev.DeadlineReached())


def closes(stage: RealtimeSessionHarness) -> list[tuple[int, str]]:
    return [(end.code, end.reason) for end in stage.end_commands if isinstance(end, cmd.CloseClient)]


def test_an_idle_session_is_closed_with_an_error() -> None:
    stage = staged(max_idle_s=60)
    assert stage.session.deadline == 60
    tick_at(stage, 60)
    [error_event] = stage.take_client_events()
    assert error_event["error"]["code"] == "session_idle"
    assert (
        error_event["error"]["message"]
        == "The session was idle for 60 s, without events or responses; reconnect to continue."
    )
    assert closes(stage) == [(4002, "idle")]


def test_a_session_ends_at_its_maximum_duration_with_an_error() -> None:
    stage = staged(max_duration_s=600, max_idle_s=60)
    for now in range(0, 600, 30):
        stage.now = float(now)
        stage.client(type="input_audio_buffer.clear")
        stage.feed(ev.DeadlineReached())
    tick_at(stage, 600)
    assert stage.take_client_events()[-1]["error"]["code"] == "session_limit"
    assert closes(stage) == [(4002, "session too long")]


@pytest.mark.parametrize("sign", ["event", "audio", "a response"])
def test_client_events_audio_and_responses_are_activity(sign: str) -> None:
    stage = staged(max_idle_s=60)
    stage.now = 50.0
    if sign == "event":
        stage.client(type="input_audio_buffer.clear")
    elif sign == "audio":
        stage.append_audio(2)
    else:
        stage.upstream(type="response.created", response={"id": "r1", "output": []})
    tick_at(stage, 60)
    assert closes(stage) == []
    if sign == "a response":
        stage.upstream(type="response.done", response={"id": "r1", "status": "completed", "output": []})
    tick_at(stage, 109)
    assert closes(stage) == []
    tick_at(stage, 121)
    assert closes(stage) == [(4002, "idle")]


def test_without_limits_a_session_waits_for_ever() -> None:
    stage = staged()
    tick_at(stage, 1e6)
    assert stage.session.deadline is None
    assert closes(stage) == []


@pytest.mark.parametrize(("what", "bound"), [("audio", "2 MB or 600 events per second"), ("messages", "50 per second")])
def test_a_rate_limited_client_gets_the_limit_and_continues(what: str, bound: str) -> None:
    stage = staged()
    stage.feed(ev.ClientRateLimited(what))  # type: ignore[arg-type]
    [error_event] = stage.take_client_events()
    assert error_event["error"]["code"] == "too_fast"
    assert bound in error_event["error"]["message"]
    assert closes(stage) == []


def test_a_stalled_message_ends_its_session_with_an_error() -> None:
    stage = staged()
    stage.feed(ev.ClientMessageStalled())
    assert stage.take_client_events()[0]["error"]["code"] == "message_too_slow"
    assert closes(stage) == [(1013, "a message took too long to arrive")]
