"""The playout clock, how much may go when, and what each part was sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.formats import PCM16_24K, PCMU, AudioFormat
from relay.session.common.model import DeviceOptions, SentAudio
from relay.session.device.playback import JITTER_BUFFER_MS, MAX_PLAYBACK_PARTS
from relay.session.device.playout_pacing import CHUNK_MS, MIN_HEADROOM_MS, WAKE_MARGIN_S, PlayoutClock, PlayoutPacer

FIRST, SECOND, THIRD = ("item_1", 0), ("item_2", 0), ("item_3", 0)
MS_BYTES = 8
"""Bytes of one ms of G.711."""
JITTER_S = JITTER_BUFFER_MS / 1000


def pacing_with(max_ahead_ms: int | None, output: AudioFormat = PCMU) -> PlayoutPacer:
    return PlayoutPacer(DeviceOptions(output, output, max_ahead_ms))


# -- the clock --------------------------------------------------------------------------------------------------------


def test_the_clock_runs_in_real_time_and_stops_when_the_client_runs_dry() -> None:
    clock = PlayoutClock()
    clock.count_sent(1000, now=0.0)
    assert clock.position_ms(0.05) == 0, "the client fills its jitter buffer first"
    assert round(clock.position_ms(0.6)) == 500
    assert clock.position_ms(5.0) == 1000
    clock.count_sent(1000, now=5.0)
    assert round(clock.position_ms(5.6)) == 1500


def test_an_acknowledgement_moves_the_clock() -> None:
    clock = PlayoutClock()
    clock.count_sent(2000, now=0.0)
    clock.sync(200, now=1.0)
    assert round(clock.ahead_ms(1.5)) == 1300


def test_the_clock_forgets_what_was_cleared() -> None:
    clock = PlayoutClock()
    clock.count_sent(2000, now=0.0)
    clock.clear(now=1.1)
    assert clock.ahead_ms(1.1) == 0


def test_what_does_not_fit_is_not_counted() -> None:
    clock = PlayoutClock()
    assert clock.send_if_room(400, 0.0, max_ahead_ms=400)
    assert not clock.send_if_room(1, 0.0, max_ahead_ms=400)
    assert clock.sent_ms == 400
    assert clock.send_if_room(100, 0.25, max_ahead_ms=400)


def test_no_client_is_past_what_it_was_sent() -> None:
    clock = PlayoutClock()
    clock.count_sent(300, now=0.0)
    clock.sync(9000, now=0.1)
    assert clock.position_ms(0.1) == 300


# -- what may go ------------------------------------------------------------------------------------------------------


def test_all_goes_at_once_without_a_bound() -> None:
    pacing = pacing_with(None)
    assert pacing.send(FIRST, 90_000 * MS_BYTES, 0.0) == 90_000 * MS_BYTES
    assert pacing.send_more(FIRST, 90_000 * MS_BYTES, 0.0)


def test_what_is_too_much_goes_as_far_as_there_is_room_and_the_rest_in_chunks() -> None:
    pacing = pacing_with(400)
    assert pacing.send(FIRST, 1000 * MS_BYTES, 0.0) == 400 * MS_BYTES
    assert pacing.send(FIRST, 600 * MS_BYTES, 0.0) == 0
    at = pacing.next_chunk_at(600 * MS_BYTES, 0.0)
    assert at == pytest.approx(CHUNK_MS / 1000 + WAKE_MARGIN_S), "when it has played that much, if it began at once"
    assert pacing.send(FIRST, 600 * MS_BYTES, at) == 0, "it fills its jitter buffer first"
    at = pacing.next_chunk_at(600 * MS_BYTES, at)
    assert at == pytest.approx(CHUNK_MS / 1000 + JITTER_S, abs=0.003)
    assert pacing.send(FIRST, 600 * MS_BYTES, at) // MS_BYTES in (CHUNK_MS, CHUNK_MS + 1)


def test_the_last_of_the_audio_waits_for_no_more_room_than_it_needs() -> None:
    pacing = pacing_with(400)
    pacing.send(FIRST, 400 * MS_BYTES, 0.0)
    assert pacing.send(FIRST, 30 * MS_BYTES, JITTER_S + 0.029) == 0
    assert pacing.send(FIRST, 30 * MS_BYTES, JITTER_S + 0.031) == 30 * MS_BYTES


def test_chunks_are_whole_ms() -> None:
    pacing = pacing_with(1000, PCM16_24K)
    pacing.send(FIRST, 1000 * 48, 0.0)
    assert pacing.send(FIRST, 5000 * 48 + 2, JITTER_S + 0.1237) == 123 * 48


@pytest.mark.parametrize("max_ahead_ms", [0, 5, MIN_HEADROOM_MS])
def test_something_goes_whatever_was_agreed(max_ahead_ms: int) -> None:
    pacing = pacing_with(max_ahead_ms)
    assert pacing.send(FIRST, 1000 * MS_BYTES, 0.0) == MIN_HEADROOM_MS * MS_BYTES
    assert pacing.send(FIRST, 1000 * MS_BYTES, JITTER_S + 0.011) == MIN_HEADROOM_MS // 2 * MS_BYTES, "before it is dry"


def test_more_of_a_part_goes_only_whole_and_after_its_beginning() -> None:
    pacing = pacing_with(400)
    assert not pacing.send_more(FIRST, 8, 0.0)
    pacing.send(FIRST, 100 * MS_BYTES, 0.0)
    assert pacing.latest_part == FIRST
    assert not pacing.send_more(SECOND, 8, 0.0)
    assert not pacing.send_more(FIRST, 301 * MS_BYTES, 0.0)
    assert pacing.send_more(FIRST, 300 * MS_BYTES, 0.0)
    assert pacing.ahead_ms(0.0) == 400


def test_new_options_are_active_from_there_on() -> None:
    pacing = pacing_with(400)
    pacing.send(FIRST, 400 * MS_BYTES, 0.0)
    pacing.apply_options(DeviceOptions(PCM16_24K, PCM16_24K, 1000))
    assert pacing.send(FIRST, 5000 * 48, 0.0) == 600 * 48


# -- what belongs to which part ---------------------------------------------------------------------------------------


def test_a_clear_accounts_for_the_parts_that_play_or_may_go_on_or_wait() -> None:
    pacing = pacing_with(None)
    pacing.send(FIRST, 500 * MS_BYTES, 0.0)
    pacing.end_part(FIRST)
    pacing.send(SECOND, 700 * MS_BYTES, 0.0)
    assert pacing.clear(JITTER_S + 0.6, [SECOND, THIRD]) == (
        SentAudio("item_2", 0, 700, 100),
        SentAudio("item_3", 0, 0, 0),
    )
    assert pacing.latest_part is None
    assert pacing.ahead_ms(JITTER_S + 0.6) == 0
    assert pacing.clear(JITTER_S + 0.7, []) == ()


def test_a_part_that_was_played_so_far_and_may_go_on_is_accounted_for() -> None:
    pacing = pacing_with(1000)
    pacing.send(FIRST, 200 * MS_BYTES, 0.0)
    assert pacing.clear(9.0, []) == (SentAudio("item_1", 0, 200, 200),)


def test_of_what_waits_after_another_part_nothing_was_played() -> None:
    pacing = pacing_with(1000)
    pacing.send(FIRST, 500 * MS_BYTES, 0.0)
    pacing.send(SECOND, 300 * MS_BYTES, 0.0)
    assert pacing.clear(JITTER_S + 0.2505, []) == (SentAudio("item_1", 0, 500, 250), SentAudio("item_2", 0, 300, 0))


def test_a_position_counts_within_its_item_and_never_past_what_was_sent_of_it() -> None:
    pacing = pacing_with(None)
    pacing.send(FIRST, 500 * MS_BYTES, 0.0)
    pacing.send(SECOND, 300 * MS_BYTES, 0.0)
    pacing.sync("item_2", 100, 0.0)
    assert pacing.ahead_ms(0.0) == 200
    pacing.sync("item_1", 9000, 0.0)
    assert pacing.ahead_ms(0.0) == 300
    pacing.sync("item_9", 0, 0.0)
    assert pacing.ahead_ms(0.0) == 300


def test_what_is_known_of_parts_is_bounded() -> None:
    pacing = pacing_with(None)
    for number in range(1000):
        pacing.send((f"item_{number}", 0), MS_BYTES, 0.0)
    items = [handed.item_id for handed in pacing.clear(0.0, [])]
    assert items == [f"item_{number}" for number in range(1000 - MAX_PLAYBACK_PARTS, 1000)]


# -- whatever happens -------------------------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.tuples(st.sampled_from(["send", "send", "more", "wait", "wake", "sync", "next", "clear"]), st.integers(0, 999)),
    min_size=10,
    max_size=60,
)


@given(actions=ACTIONS, max_ahead_ms=st.sampled_from([None, 0, 20, 33, 100, 1000]))
def test_the_client_never_holds_more_than_was_agreed_and_all_is_accounted_for(
    actions: list[tuple[str, int]], max_ahead_ms: int | None
) -> None:
    pacing, now, part = pacing_with(max_ahead_ms), 0.0, 0
    bound_ms = float("inf") if max_ahead_ms is None else max(max_ahead_ms, MIN_HEADROOM_MS)
    sent_bytes: dict[str, int] = {}
    for action, value in actions:
        item_id = f"item_{part}"
        n_bytes = value * MS_BYTES + 1
        if action == "wait":
            now += value / 1000
        elif action == "sync":
            pacing.sync(item_id, value, now)
        elif action == "next":
            pacing.end_part((item_id, 0))
            part += 1
        elif action == "clear":
            for handed in pacing.clear(now, []):
                assert handed.sent_ms == sent_bytes[handed.item_id] // MS_BYTES
                assert 0 <= handed.estimated_played_ms <= handed.sent_ms
            assert pacing.ahead_ms(now) == 0
            part += 1
        else:
            if action == "wake" and (at := pacing.next_chunk_at(n_bytes, now)) > now:
                now = at + JITTER_S  # a client that had run dry fills its buffer first
            if action == "more":
                n_sent = n_bytes if pacing.send_more((item_id, 0), n_bytes, now) else 0
            else:
                n_sent = pacing.send((item_id, 0), n_bytes, now)
            assert action != "wake" or n_sent > 0
            assert n_sent == n_bytes or n_sent % MS_BYTES == 0
            assert n_sent == 0 or pacing.ahead_ms(now) <= bound_ms + 1e-6
            sent_bytes[item_id] = sent_bytes.get(item_id, 0) + n_sent
