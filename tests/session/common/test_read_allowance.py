"""How fast a client may send: allowances that fill with time and are lent out in slices."""

import pytest

from audio.formats import PCM16_16K
from relay.session.common.read_allowance import (
    device_allowance,
    message_allowance,
    realtime_bytes_allowance,
    realtime_event_allowance,
)

BYTES_PER_S = 32_000


def test_audio_at_the_speed_of_speech_never_waits() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    for second in range(1, 7200):
        allowance.remaining -= BYTES_PER_S
        assert allowance.wait_s(float(second)) == 0


def test_what_was_held_up_by_the_network_may_come_at_once() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    assert allowance.wait_s(45.0) == 0
    allowance.remaining -= 45 * BYTES_PER_S
    assert allowance.wait_s(45.0) == 0


def test_audio_that_is_too_fast_waits_as_long_as_it_is_ahead() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    allowance.remaining -= 22 * BYTES_PER_S
    assert allowance.wait_s(0.0) == pytest.approx(10.0)
    assert allowance.wait_s(4.0) == pytest.approx(6.0)
    assert allowance.wait_s(10.1) == 0


def test_what_is_saved_up_has_a_bound() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    allowance.wait_s(86_400.0)
    allowance.remaining -= 61 * BYTES_PER_S
    assert allowance.wait_s(86_400.0) == pytest.approx(1 / 1.2)


def test_a_burst_that_comes_at_once_differs_from_one_at_a_normal_rate() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    assert allowance.remaining == 0.12 * BYTES_PER_S, "no more than a burst is taken before the clock is looked at"
    seen = []
    for now in (10.0, 10.01, 10.02, 10.5, 11.0):
        allowance.remaining -= 0.26 * BYTES_PER_S
        assert allowance.wait_s(now) == 0
        seen.append(allowance.renew_slice(now))
    assert seen == [False, True, True, False, False]


def test_a_calm_client_gets_long_slices_until_it_sends_a_burst() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    for now, used_s, burst_s in ((0.2, 0.14, 1.2), (1.4, 1.22, 1.2), (1.8, 1.22, 0.12), (2.2, 0.14, 1.2)):
        allowance.remaining -= used_s * BYTES_PER_S
        assert allowance.wait_s(now) == 0
        allowance.renew_slice(now)
        assert allowance.remaining == burst_s * BYTES_PER_S


def test_a_burst_in_a_long_slice_makes_the_next_slices_short() -> None:
    allowance = device_allowance(PCM16_16K, now=0.0)[0]
    allowance.remaining -= 0.14 * BYTES_PER_S
    allowance.wait_s(0.2)
    assert not allowance.renew_slice(0.2)
    assert allowance.remaining == 1.2 * BYTES_PER_S
    allowance.use_short_slices()
    assert allowance.remaining == 0.12 * BYTES_PER_S
    allowance.use_short_slices()
    allowance.remaining -= 10.04 * BYTES_PER_S
    assert allowance.wait_s(0.2) == 0, "nothing of what may be taken in all is lost by it"


def test_messages_are_counted_by_the_second() -> None:
    allowance = message_allowance(now=0.0)
    allowance.remaining -= 350
    assert allowance.wait_s(0.0) == pytest.approx(1.0)
    assert allowance.wait_s(1.5) == 0


def test_the_longest_event_may_come_at_once_and_two_megabytes_a_second_after_it() -> None:
    allowance = realtime_bytes_allowance(now=0.0)
    allowance.remaining -= 16_000_000
    assert allowance.wait_s(0.0) == 0
    allowance.remaining -= 4_000_000
    assert allowance.wait_s(0.0) == pytest.approx(2.0)
    assert allowance.wait_s(2.01) == 0


def test_two_thousand_events_may_come_at_once_and_fifty_a_second_after_them() -> None:
    allowance = realtime_event_allowance(now=0.0)
    allowance.remaining -= 2000
    assert allowance.wait_s(0.0) == 0
    allowance.remaining -= 100
    assert allowance.wait_s(0.0) == pytest.approx(2.0)
