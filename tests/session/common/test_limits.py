"""The limits of a session: its duration, its idle time, and the rate of its client."""

import pytest

from relay.session.common.limits import SessionLimits
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from tests.support.device_session_harness import DeviceSessionHarness, audio, done, kinds, microphone


def test_being_slowed_down_is_reported_and_is_not_a_fault() -> None:
    harness = DeviceSessionHarness().ready()
    for _ in range(20):
        [told] = harness.feed(ev.ClientRateLimited("audio"))
        assert isinstance(told, cmd.SendError)
        assert told.code == "too_fast"


def limited(**limits: float) -> DeviceSessionHarness:
    harness = DeviceSessionHarness(limits=SessionLimits(**limits))
    return harness.ready()


def test_a_session_ends_at_its_maximum_duration_even_in_the_middle_of_a_word() -> None:
    harness = limited(max_duration_s=60)
    harness.model_speaks()
    assert "CloseClient" not in kinds(harness.feed(ev.DeadlineReached(), after_s=59.9))
    ended = harness.feed(ev.DeadlineReached(), after_s=0.1)
    assert [c.code for c in ended if isinstance(c, cmd.SendError)] == ["limit_reached"]
    assert [c.code for c in ended if isinstance(c, cmd.CloseClient)] == [4002]
    assert harness.session.deadline is None


def test_a_quiet_session_ends_and_a_deadline_asks_for_the_look() -> None:
    harness = limited(max_idle_s=30)
    assert harness.session.deadline == 30
    ended = harness.feed(ev.DeadlineReached(), after_s=30)
    assert [c.code for c in ended if isinstance(c, cmd.SendError)] == ["idle"]
    assert [c.code for c in ended if isinstance(c, cmd.CloseClient)] == [4002]


@pytest.mark.parametrize(
    "sign_of_life",
    [ev.Playback("item_9", 1), ev.UserText("hi"), microphone(), ev.ClientProtocolError("bad_json", "x")],
    ids=str,
)
def test_whatever_the_client_sends_keeps_the_session_alive(sign_of_life: ev.Event) -> None:
    harness = limited(max_idle_s=30)
    harness.feed(sign_of_life, after_s=29)
    assert "CloseClient" not in kinds(harness.feed(ev.DeadlineReached(), after_s=1))
    assert harness.session.deadline is not None
    assert harness.session.deadline > 30


def test_a_long_answer_is_not_quiet() -> None:
    harness = limited(max_idle_s=30)
    harness.feed(ev.ResponseCreated("resp_1"))
    for _ in range(10):
        harness.feed(audio("resp_1", "item_1", 9000))
        assert "CloseClient" not in kinds(harness.feed(ev.DeadlineReached(), after_s=9))
    harness.feed(done("resp_1"), ev.Playback("item_1", 90_000))
    assert "CloseClient" in kinds(harness.feed(ev.DeadlineReached(), after_s=30))


def test_an_answer_that_is_never_acknowledged_does_not_keep_a_session_alive() -> None:
    harness = limited(max_idle_s=30)
    harness.feed(ev.ResponseCreated("resp_1"), audio("resp_1", "item_1", 20_000), done("resp_1"))
    assert "CloseClient" not in kinds(harness.feed(ev.DeadlineReached(), after_s=30))
    assert harness.session.deadline == 50, "the sound is over after 20 s, and 30 more are quiet"
    assert "CloseClient" not in kinds(harness.feed(ev.DeadlineReached(), after_s=19.9))
    assert "CloseClient" in kinds(harness.feed(ev.DeadlineReached(), after_s=0.1))
