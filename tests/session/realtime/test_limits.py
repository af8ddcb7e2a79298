"""What a Realtime client may take: sessions that end when they are idle or long, and a word to who is too fast."""

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


def test_an_idle_session_is_told_so_and_closed() -> None:
    stage = staged(max_idle_s=60)
    assert stage.session.deadline == 60
    tick_at(stage, 60)
    [told] = stage.take_client_events()
    assert told["error"]["code"] == "session_idle"
    assert told["error"]["message"] == "No event came and no response ran for 60 s; reconnect to go on."
    assert closes(stage) == [(4002, "idle")]


def test_a_long_session_is_told_so_and_closed_whatever_happens_in_it() -> None:
    stage = staged(max_duration_s=600, max_idle_s=60)
    for now in range(0, 600, 30):
        stage.now = float(now)
        stage.client(type="input_audio_buffer.clear")
        stage.feed(ev.DeadlineReached())
    tick_at(stage, 600)
    assert stage.take_client_events()[-1]["error"]["code"] == "session_limit"
    assert closes(stage) == [(4002, "session too long")]


@pytest.mark.parametrize("sign", ["event", "audio", "a response"])
def test_whatever_the_client_sends_or_hears_is_no_idleness(sign: str) -> None:
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


@pytest.mark.parametrize(("what", "bound"), [("audio", "2 MB or 600 events a second"), ("messages", "50 a second")])
def test_who_is_too_fast_is_told_the_bound_and_goes_on(what: str, bound: str) -> None:
    stage = staged()
    stage.feed(ev.ClientRateLimited(what))  # type: ignore[arg-type]
    [told] = stage.take_client_events()
    assert told["error"]["code"] == "too_fast"
    assert bound in told["error"]["message"]
    assert closes(stage) == []


def test_a_message_that_holds_up_others_ends_its_session_with_a_word() -> None:
    stage = staged()
    stage.feed(ev.ClientMessageStalled())
    assert stage.take_client_events()[0]["error"]["code"] == "message_too_slow"
    assert closes(stage) == [(1013, "a message took too long to arrive")]
