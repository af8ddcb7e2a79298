"""What a session may take: allowances that fill with time, and sessions that end when they are quiet or long."""

import pytest

from audio.formats import PCM16_16K
from relay.core import commands as cmd
from relay.core import events as ev
from relay.core.limits import Allowance, device_allowance, message_allowance
from relay.session.common.limits import SessionLimits
from tests.support.device_script import Script, audio, done, kinds, microphone

BYTES_PER_S = 32_000


def test_audio_at_the_speed_of_speech_never_waits() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    for second in range(1, 7200):
        allowance.left -= BYTES_PER_S
        assert allowance.wait_s(float(second)) == 0


def test_what_was_held_up_by_the_network_may_come_at_once() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    assert allowance.wait_s(45.0) == 0
    allowance.left -= 45 * BYTES_PER_S
    assert allowance.wait_s(45.0) == 0


def test_audio_that_is_too_fast_waits_as_long_as_it_is_ahead() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    allowance.left -= 22 * BYTES_PER_S
    assert allowance.wait_s(0.0) == pytest.approx(10.0)
    assert allowance.wait_s(4.0) == pytest.approx(6.0)
    assert allowance.wait_s(10.1) == 0


def test_what_is_saved_up_has_a_bound() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    allowance.wait_s(86_400.0)
    allowance.left -= 61 * BYTES_PER_S
    assert allowance.wait_s(86_400.0) == pytest.approx(1 / 1.2)


def test_a_burst_that_comes_at_once_is_told_from_one_that_takes_its_time() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    assert allowance.left == 0.12 * BYTES_PER_S, "no more than a burst is taken before the clock is looked at"
    seen = []
    for now in (10.0, 10.01, 10.02, 10.5, 11.0):
        allowance.left -= 0.26 * BYTES_PER_S
        assert allowance.wait_s(now) == 0
        seen.append(allowance.is_hasty(now))
    assert seen == [False, True, True, False, False]


def test_who_takes_his_time_is_looked_at_less_often_until_he_hurries() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    for now, used_s, burst_s in ((0.2, 0.14, 1.2), (1.4, 1.22, 1.2), (1.8, 1.22, 0.12), (2.2, 0.14, 1.2)):
        allowance.left -= used_s * BYTES_PER_S
        assert allowance.wait_s(now) == 0
        allowance.is_hasty(now)
        assert allowance.left == burst_s * BYTES_PER_S


def test_who_hurries_in_the_middle_of_a_long_burst_is_looked_at_as_often_again() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    allowance.left -= 0.14 * BYTES_PER_S
    allowance.wait_s(0.2)
    assert not allowance.is_hasty(0.2)
    assert allowance.left == 1.2 * BYTES_PER_S
    allowance.hurry()
    assert allowance.left == 0.12 * BYTES_PER_S
    allowance.hurry()
    allowance.left -= 10.04 * BYTES_PER_S
    assert allowance.wait_s(0.2) == 0, "nothing of what may be taken in all is lost by it"


def test_messages_are_counted_by_the_second() -> None:
    allowance = message_allowance(now=0.0)
    allowance.left -= 350
    assert allowance.wait_s(0.0) == pytest.approx(1.0)
    assert allowance.wait_s(1.5) == 0


def test_the_one_who_waits_is_told_now_and_then() -> None:
    allowance = Allowance(0, 1, 1, 0.0)
    assert [allowance.tell(now) for now in (0.0, 1.0, 9.9, 10.0, 10.1, 20.5)] == [True, False, False, True, False, True]


def test_being_slowed_down_is_told_and_is_no_fault() -> None:
    script = Script().ready()
    for _ in range(20):
        [told] = script.see(ev.ClientTooFast("audio"))
        assert isinstance(told, cmd.TellError)
        assert told.code == "too_fast"


def limited(**limits: float) -> Script:
    script = Script(limits=SessionLimits(**limits))
    return script.ready()


def test_a_session_ends_at_its_maximum_duration_even_in_the_middle_of_a_word() -> None:
    script = limited(max_duration_s=60)
    script.speaks()
    assert "CloseClient" not in kinds(script.see(ev.Tick(), after_s=59.9))
    ended = script.see(ev.Tick(), after_s=0.1)
    assert [c.code for c in ended if isinstance(c, cmd.TellError)] == ["limit_reached"]
    assert [c.code for c in ended if isinstance(c, cmd.CloseClient)] == [4002]
    assert script.session.deadline is None


def test_a_quiet_session_ends_and_a_deadline_asks_for_the_look() -> None:
    script = limited(max_idle_s=30)
    assert script.session.deadline == 30
    ended = script.see(ev.Tick(), after_s=30)
    assert [c.code for c in ended if isinstance(c, cmd.TellError)] == ["idle"]
    assert [c.code for c in ended if isinstance(c, cmd.CloseClient)] == [4002]


@pytest.mark.parametrize(
    "sign_of_life",
    [ev.Playback("item_9", 1), ev.UserText("hi"), microphone(), ev.ClientFault("bad_json", "x")],
    ids=str,
)
def test_whatever_the_client_sends_keeps_the_session_alive(sign_of_life: ev.Event) -> None:
    script = limited(max_idle_s=30)
    script.see(sign_of_life, after_s=29)
    assert "CloseClient" not in kinds(script.see(ev.Tick(), after_s=1))
    assert script.session.deadline is not None
    assert script.session.deadline > 30


def test_a_long_answer_is_not_quiet() -> None:
    script = limited(max_idle_s=30)
    script.see(ev.ResponseCreated("resp_1"))
    for _ in range(10):
        script.see(audio("resp_1", "item_1", 9000))
        assert "CloseClient" not in kinds(script.see(ev.Tick(), after_s=9))
    script.see(done("resp_1"), ev.Playback("item_1", 90_000))
    assert "CloseClient" in kinds(script.see(ev.Tick(), after_s=30))


def test_an_answer_that_is_never_acknowledged_does_not_keep_a_session_alive() -> None:
    script = limited(max_idle_s=30)
    script.see(ev.ResponseCreated("resp_1"), audio("resp_1", "item_1", 20_000), done("resp_1"))
    assert "CloseClient" not in kinds(script.see(ev.Tick(), after_s=30))
    assert script.session.deadline == 50, "the sound is over after 20 s, and 30 more are quiet"
    assert "CloseClient" not in kinds(script.see(ev.Tick(), after_s=19.9))
    assert "CloseClient" in kinds(script.see(ev.Tick(), after_s=0.1))
