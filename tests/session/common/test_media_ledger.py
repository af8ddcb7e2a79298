"""How much audio came and went, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.session.common.media_ledger import MAX_PARTS, MediaLedger


def test_a_session_begins_with_nothing_at_the_time_it_begins() -> None:
    ledger = MediaLedger(started_at=100.0)
    assert (ledger.input_bytes, ledger.output_bytes, ledger.dropped_input_bytes) == (0, 0, 0)
    assert (ledger.last_output_at, ledger.playback_ends_at) == (100.0, 100.0)
    assert ledger.accepted_input_bytes == 0
    assert ledger.received_bytes(("item_1", 0)) == 0


def test_input_is_summed_and_what_was_dropped_of_it_was_never_heard() -> None:
    ledger = MediaLedger()
    ledger.input_bytes += 640
    ledger.input_bytes += 320
    ledger.drop_input(640)
    ledger.drop_input(0)
    assert (ledger.input_bytes, ledger.dropped_input_bytes, ledger.accepted_input_bytes) == (960, 640, 320)
    assert ledger.output_bytes == 0


def test_output_is_counted_by_its_part_and_in_all() -> None:
    ledger = MediaLedger()
    ledger.start_part(("item_1", 0))
    ledger.add_output(("item_1", 0), 4800, 2.0)
    ledger.add_output(("item_1", 0), 2400, 2.1)
    ledger.start_part(("item_1", 1))
    ledger.add_output(("item_1", 1), 100, 2.2)
    assert [ledger.received_bytes(("item_1", part)) for part in (0, 1, 2)] == [7200, 100, 0]
    assert (ledger.output_bytes, ledger.last_output_at) == (7300, 2.2)
    assert ledger.input_bytes == 0


def test_a_part_that_begins_again_is_counted_from_nothing_and_the_sum_goes_on() -> None:
    ledger = MediaLedger()
    ledger.add_output(("item_1", 0), 4800, 2.0)
    ledger.start_part(("item_1", 0))
    assert ledger.received_bytes(("item_1", 0)) == 0
    ledger.add_output(("item_1", 0), 100, 3.0)
    assert ledger.received_bytes(("item_1", 0)) == 100
    assert ledger.output_bytes == 4900


def test_an_external_voice_counts_for_its_part_but_is_not_the_upstreams_audio() -> None:
    ledger = MediaLedger(started_at=5.0)
    ledger.start_part(("item_1", 0))
    ledger.add_tts_output(("item_1", 0), 4800)
    ledger.add_tts_output(("item_1", 0), 100)
    assert ledger.received_bytes(("item_1", 0)) == 4900
    assert (ledger.output_bytes, ledger.last_output_at) == (0, 5.0)


def test_the_part_that_was_started_longest_ago_is_forgotten_first() -> None:
    ledger = MediaLedger()
    for number in range(MAX_PARTS):
        ledger.start_part((f"item_{number}", 0))
        ledger.add_output((f"item_{number}", 0), number + 1, 1.0)
    ledger.start_part(("item_0", 0))
    ledger.add_output(("item_0", 0), 7, 2.0)
    ledger.start_part(("one more", 0))
    assert ledger.received_bytes(("item_1", 0)) == 0, "it is the oldest, for the first one has begun anew"
    assert ledger.received_bytes(("item_0", 0)) == 7
    assert [ledger.received_bytes((f"item_{number}", 0)) for number in (2, MAX_PARTS - 1)] == [3, MAX_PARTS]


def test_a_client_that_plays_at_once_plays_one_delta_after_the_other() -> None:
    ledger = MediaLedger(started_at=10.0)
    ledger.add_unpaced_output(48 * 500, 10.0, 48)
    ledger.add_unpaced_output(48 * 500, 10.1, 48)
    assert ledger.playback_ends_at == pytest.approx(11.0)
    assert (ledger.output_bytes, ledger.last_output_at) == (48 * 1000, 10.1)


def test_a_pause_of_the_upstreams_is_silence_and_no_lead() -> None:
    ledger = MediaLedger(started_at=10.0)
    ledger.add_unpaced_output(48 * 500, 10.0, 48)
    ledger.add_unpaced_output(8 * 250, 20.0, 8)
    assert ledger.playback_ends_at == pytest.approx(20.25)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 10_000)), max_size=10))
def test_it_is_never_played_before_it_came_nor_faster_than_it_is_long(deltas: list[tuple[float, int]]) -> None:
    ledger, now, said_ms = MediaLedger(), 0.0, 0.0
    for pause_s, n_bytes in deltas:
        now += pause_s
        ledger.add_unpaced_output(n_bytes, now, 48)
        said_ms += n_bytes / 48
        assert ledger.playback_ends_at >= now + n_bytes / 48 / 1000 - 1e-9
        assert ledger.playback_ends_at >= said_ms / 1000 - 1e-9
        assert ledger.playback_ends_at <= now + said_ms / 1000 + 1e-9
