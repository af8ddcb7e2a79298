import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.client.events import AudioEndEvent, AudioEvent, AudioStartEvent, InterruptedEvent, RelayEvent
from relay.client.playback import MAX_ITEMS, PlaybackTracker, VirtualPlayer

BYTES_PER_MS = 48


def run(player: VirtualPlayer, start: float, end: float) -> list[tuple[str, int]]:
    """Let time pass as the client does: wake when the player asks, acknowledge what it says."""
    reports = player.reports(start)
    while (at := player.next_report_at()) is not None and at <= end:
        reports += player.reports(at)
    return reports


def test_an_item_is_reported_every_200_ms_and_at_its_end() -> None:
    player = VirtualPlayer(BYTES_PER_MS)
    player.start("a")
    player.feed(500 * BYTES_PER_MS, now=10.0)
    player.end("a")
    assert run(player, 10.0, 11.0) == [("a", 200), ("a", 400), ("a", 500)]
    assert player.next_report_at() is None


def test_what_came_all_at_once_is_still_played_in_time() -> None:
    player = VirtualPlayer(BYTES_PER_MS)
    player.start("a")
    player.feed(5000 * BYTES_PER_MS, now=10.0)
    assert run(player, 10.0, 10.65) == [("a", 200), ("a", 400), ("a", 600)]


def test_a_queue_that_runs_dry_waits_for_more() -> None:
    player = VirtualPlayer(BYTES_PER_MS)
    player.start("a")
    player.feed(300 * BYTES_PER_MS, now=10.0)
    assert run(player, 10.0, 12.0) == [("a", 200), ("a", 300)]
    assert player.next_report_at() is None
    player.feed(300 * BYTES_PER_MS, now=12.0)
    assert run(player, 12.0, 12.25) == [("a", 500)]
    player.end("a")
    assert run(player, 12.25, 13.0) == [("a", 600)]


def test_audio_that_comes_just_in_time_is_reported_all_along() -> None:
    player = VirtualPlayer(BYTES_PER_MS)
    player.start("a")
    reports = []
    for n in range(50):  # 20 ms of sound every 25 ms
        player.feed(20 * BYTES_PER_MS, now=10 + n * 0.025)
        reports += run(player, 10 + n * 0.025, 10 + (n + 1) * 0.025)
    positions = [played_ms for _, played_ms in reports]
    assert len(positions) == 6
    assert positions == sorted(positions)
    assert positions[-1] > 900


def test_items_play_one_after_the_other() -> None:
    player = VirtualPlayer(BYTES_PER_MS)
    for item_id in "ab":
        player.start(item_id)
        player.feed(250 * BYTES_PER_MS, now=10.0)
        player.end(item_id)
    assert run(player, 10.0, 11.0) == [("a", 200), ("a", 250), ("b", 200), ("b", 250)]


def test_an_interruption_silences_all_that_is_queued() -> None:
    player = VirtualPlayer(BYTES_PER_MS)
    for item_id in "ab":
        player.start(item_id)
        player.feed(1000 * BYTES_PER_MS, now=10.0)
    assert run(player, 10.0, 10.3) == [("a", 200)]
    player.interrupt("a")
    assert run(player, 10.3, 20.0) == []
    player.feed(100 * BYTES_PER_MS, now=20.0)  # a late frame of what was dropped
    assert player.next_report_at() is None


def test_audio_without_an_item_is_not_acknowledged() -> None:
    player = VirtualPlayer(BYTES_PER_MS)
    player.feed(1000 * BYTES_PER_MS, now=10.0)
    assert run(player, 10.0, 20.0) == []


def test_items_are_bounded() -> None:
    player = VirtualPlayer(BYTES_PER_MS)
    for n in range(MAX_ITEMS + 100):
        player.start(str(n))
        player.end(str(n))
    assert len(player.reports(10.0)) == MAX_ITEMS


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "feed", "end", "interrupt", "wait"]), st.integers(0, 900)), max_size=40
    )
)
def test_positions_only_grow_and_never_pass_what_came(steps: list[tuple[str, int]]) -> None:
    player, now, item_id, received = VirtualPlayer(BYTES_PER_MS), 0.0, -1, 0
    last: dict[str, int] = {}
    for what, amount in steps:
        reports: list[tuple[str, int]] = []
        match what:
            case "start":
                player.end(str(item_id))
                item_id, received = item_id + 1, 0
                player.start(str(item_id))
            case "feed":
                player.feed(amount * BYTES_PER_MS, now)
                received += amount
            case "end":
                player.end(str(item_id))
            case "interrupt":
                player.interrupt(str(item_id))
            case "wait":
                reports = run(player, now, now + amount / 1000)
                now += amount / 1000
        for reported, played_ms in reports:
            assert played_ms >= last.get(reported, 0)
            if reported == str(item_id):
                assert played_ms <= received
            last[reported] = played_ms
    # Whatever happened, the player never asks to be woken in the past for ever.
    assert len(run(player, now, now + 100)) < 1000
    assert player.next_report_at() is None


def test_a_report_is_never_early() -> None:
    player = VirtualPlayer(BYTES_PER_MS)
    player.start("a")
    player.feed(1000 * BYTES_PER_MS, now=10.0)
    assert player.reports(10.0) == []
    assert player.next_report_at() == pytest.approx(10.2)
    assert player.reports(10.19) == []


def observed(*events: RelayEvent, clock: float = 10.0) -> PlaybackTracker:
    tracker = PlaybackTracker(BYTES_PER_MS, lambda: clock)
    for event in events:
        tracker.observe(event)
    return tracker


def test_a_speaker_plays_only_what_it_took() -> None:
    tracker = observed(AudioStartEvent(item_id="a"), AudioEvent(data=bytes(500 * BYTES_PER_MS), item_id="a"))
    assert tracker.reports(11.0) == []
    tracker.played(250 * BYTES_PER_MS)
    assert tracker.reports(11.0) == [("a", 250)]
    assert tracker.reports(12.0) == []


def test_a_speaker_that_goes_on_into_the_next_item_ends_the_first() -> None:
    tracker = observed(
        AudioStartEvent(item_id="a"), AudioEvent(data=bytes(100 * BYTES_PER_MS)), AudioEndEvent(item_id="a"),
        AudioStartEvent(item_id="b"), AudioEvent(data=bytes(100 * BYTES_PER_MS)),
    )  # fmt: skip
    tracker.played(150 * BYTES_PER_MS)
    assert tracker.reports(11.0) == [("a", 100), ("b", 50)]


def test_what_was_dropped_at_an_interruption_is_not_reported() -> None:
    tracker = observed(
        AudioStartEvent(item_id="a"), AudioEvent(data=bytes(100 * BYTES_PER_MS)), InterruptedEvent(item_id="a")
    )
    tracker.played(100 * BYTES_PER_MS)
    assert tracker.reports(11.0) == []
