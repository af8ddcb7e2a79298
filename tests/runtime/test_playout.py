"""Playout: audio in order and paced, messages at once, and an exact ledger of what was sent."""

import pytest

from audio.formats import PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K, PCMU, AudioFormat
from relay.protocols.device.decoder import MIN_AHEAD_MS
from relay.runtime.playout import MAX_QUEUED_ENTRIES, MAX_QUEUED_MS
from relay.runtime.timers import ECHO_TAIL_MS, MAX_STALL_S, MAX_UNSENT_BYTES
from relay.session.common.model import DeviceOptions, SentAudio
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.session.device.playback import JITTER_BUFFER_MS, MAX_PLAYBACK_PARTS
from relay.session.device.playout_pacing import CHUNK_MS, MIN_HEADROOM_MS
from tests.support.playout_harness import PlayoutHarness, sent_bytes
from tests.support.virtual_time import advance_time, in_virtual_time

# -- pacing -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_without_a_bound_everything_goes_out_at_once() -> None:
    harness = PlayoutHarness(max_ahead_ms=None)
    pcm = harness.item("item_1", 20_000)
    assert harness.audio == pcm
    assert harness.sequence() == ["audioStart item_1", "audio", "audioEnd item_1"]


@in_virtual_time
async def test_with_a_bound_only_so_much_is_ahead_and_the_client_never_runs_dry() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    pcm = harness.item("item_1", 5000)
    assert harness.sent_ms() == 1000
    assert harness.sequence() == ["audioStart item_1", "audio"]
    while harness.sent_ms() < 5000:
        await advance_time(0.01)
        played_ms = harness.loop.time() * 1000 - JITTER_BUFFER_MS
        assert played_ms < harness.sent_ms() <= max(played_ms, 0) + 1000 + 1e-6
    assert harness.audio == pcm
    assert harness.sequence()[-1] == "audioEnd item_1"
    assert 4.0 < harness.loop.time() < 4.2


@in_virtual_time
async def test_paced_audio_goes_out_in_pieces_one_wake_up_each() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.item("item_1", 3000)
    sent_before = len(harness.socket.sent)
    await advance_time(2.0)
    pieces = [message for _, message in harness.socket.sent[sent_before:] if isinstance(message, bytes)]
    assert len(pieces) <= 2000 / CHUNK_MS
    assert {len(piece) % 2 for piece in pieces} == {0}


@pytest.mark.parametrize("max_ahead_ms", [0, MIN_AHEAD_MS, 150, 250])
@in_virtual_time
async def test_with_the_smallest_bounds_the_client_still_hears_all_without_a_gap(max_ahead_ms: int) -> None:
    harness = PlayoutHarness(max_ahead_ms=max_ahead_ms)
    pcm = harness.item("item_1", 2000)
    limit_ms = max(max_ahead_ms, MIN_HEADROOM_MS)
    while harness.loop.time() < 2.2 and harness.sent_ms() < 2000:
        await advance_time(0.001)
        played_ms = harness.loop.time() * 1000 - JITTER_BUFFER_MS
        assert played_ms < harness.sent_ms() <= max(played_ms, 0) + limit_ms + 1e-6
    assert harness.audio == pcm


@in_virtual_time
async def test_a_client_that_has_run_dry_fills_its_buffer_anew() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.item("item_1", 500)
    await advance_time(10.0)
    harness.item("item_2", 2000)
    assert harness.sent_ms() == 1500
    await advance_time(JITTER_BUFFER_MS / 1000)
    assert harness.sent_ms() == 1500
    await advance_time(0.202)
    assert harness.sent_ms() == pytest.approx(1700, abs=2)


@in_virtual_time
async def test_an_acknowledgement_moves_the_pacing() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.item("item_1", 5000)
    await advance_time(1.1)
    harness.playout.sync("item_1", 300)  # the estimate says 1000: this client plays late
    before_ms = harness.sent_ms()
    await advance_time(0.6)
    assert harness.sent_ms() == before_ms
    harness.playout.sync("item_1", 1900)  # and now it has gained
    assert harness.sent_ms() == 2900


@in_virtual_time
async def test_pacing_recovers_after_a_late_acknowledgement() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.item("item_1", 9000)
    await advance_time(4.1)
    harness.playout.sync("item_1", 0)
    await advance_time(0.3)
    harness.playout.sync("item_1", 4300)
    for _ in range(20):
        await advance_time(0.1)
        assert harness.sent_ms() > (harness.loop.time() - 4.4) * 1000 + 4300 + 850


@in_virtual_time
async def test_acknowledgements_of_other_items_change_nothing() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.item("item_1", 3000)
    harness.playout.sync("item_x", 2000)
    assert harness.sent_ms() == 1000


@in_virtual_time
async def test_positions_count_within_their_item() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.item("item_1", 600)
    harness.item("item_2", 3000)
    assert harness.sent_ms() == 1000
    harness.playout.sync("item_2", 300)
    assert harness.sent_ms() == 600 + 300 + 1000


# -- order ------------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_messages_overtake_audio_and_audio_stays_in_sequence() -> None:
    harness = PlayoutHarness(max_ahead_ms=400)
    first, second = harness.item("item_1", 1000), harness.item("item_2", 1000)
    harness.playout.send_now(cmd.SendTextDelta("hello"))
    assert harness.sequence() == ["audioStart item_1", "audio", "textDelta"]
    await advance_time(3.0)
    assert harness.sequence() == [
        "audioStart item_1",
        "audio",
        "textDelta",
        "audio",
        "audioEnd item_1",
        "audioStart item_2",
        "audio",
        "audioEnd item_2",
    ]
    assert harness.audio == first + second


@in_virtual_time
async def test_an_end_may_come_after_the_next_ones_beginning() -> None:
    harness = PlayoutHarness(PCM16_16K, max_ahead_ms=None)
    harness.start("item_1")
    harness.play("item_1", 100)
    harness.start("item_2")
    harness.play("item_2", 100)
    assert sent_bytes(harness)["item_1"] > 100 * 32, "its tail was sent before the next item"
    harness.end("item_1", 100)
    harness.end("item_2", 100)
    assert harness.sequence() == [
        "audioStart item_1", "audio", "audioStart item_2", "audio",
        "audioEnd item_1", "audio", "audioEnd item_2",
    ]  # fmt: skip


@in_virtual_time
async def test_the_first_audio_of_each_item_is_reported_once() -> None:
    harness = PlayoutHarness(max_ahead_ms=400)
    harness.item("item_1", 600)
    harness.item("item_2", 600)
    assert harness.events == [ev.FirstAudioSent("item_1")]
    await advance_time(2.0)
    assert harness.events == [ev.FirstAudioSent("item_1"), ev.FirstAudioSent("item_2")]


@in_virtual_time
async def test_all_audio_that_goes_to_the_socket_is_recorded_at_its_time() -> None:
    harness = PlayoutHarness(PCM16_16K, max_ahead_ms=400)
    harness.item("item_1", 1000)
    await advance_time(0.3)
    harness.clear()
    harness.item("item_2", 300)
    await advance_time(1.0)
    sent = [(at, message) for at, message in harness.socket.sent if isinstance(message, bytes)]
    assert len({at for at, _ in sent}) > 2
    assert harness.recorded == sent


@in_virtual_time
async def test_audio_that_would_fit_does_not_overtake_audio_that_waits() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.start("item_1")
    pcm = harness.play("item_1", 1200)
    await advance_time(0.15)
    assert harness.sent_ms() == 1000, "50 ms were played: less than a piece may go"
    pcm += harness.play("item_1", 20)
    await advance_time(1.0)
    assert harness.audio == pcm


# -- clearing ---------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_is_cleared_is_accounted_for_part_by_part() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.item("item_1", 500)
    harness.item("item_2", 2000)
    harness.item("item_3", 700)
    await advance_time(0.6)
    clips = harness.clear()
    sent_ms = int(harness.sent_ms())
    assert [clip.item_id for clip in clips] == ["item_2", "item_3"], "item_1 was played to its end"
    assert clips[0].sent_ms == sent_ms - 500
    assert clips[0].estimated_played_ms == pytest.approx(600 - JITTER_BUFFER_MS - 500, abs=1)
    assert clips[1] == SentAudio("item_3", 0, 0, 0)


@in_virtual_time
async def test_nothing_goes_out_after_a_clear() -> None:
    harness = PlayoutHarness(max_ahead_ms=400)
    harness.item("item_1", 5000)
    harness.clear()
    sent = list(harness.socket.sent)
    await advance_time(10.0)
    harness.socket.set_writable(writable=True)
    assert harness.socket.sent == sent
    assert harness.clear() == ()


@in_virtual_time
async def test_audio_after_a_clear_starts_at_once() -> None:
    harness = PlayoutHarness(max_ahead_ms=400)
    harness.item("item_1", 5000)
    await advance_time(0.3)
    harness.clear()
    before_ms = harness.sent_ms()
    harness.item("item_2", 300)
    assert harness.sent_ms() == before_ms + 300
    assert harness.sequence()[-3:] == ["audioStart item_2", "audio", "audioEnd item_2"]
    await advance_time(0.25)
    [clip] = harness.clear()
    assert (clip.item_id, clip.sent_ms) == ("item_2", 300)
    assert clip.estimated_played_ms == pytest.approx(250 - JITTER_BUFFER_MS, abs=1)


@in_virtual_time
async def test_a_client_that_has_just_begun_has_heard_nothing_yet() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.start("item_1")
    harness.play("item_1", 800)
    await advance_time(JITTER_BUFFER_MS / 2000)
    assert harness.clear() == (SentAudio("item_1", 0, 800, 0),)


@in_virtual_time
async def test_an_unfinished_part_is_listed_even_if_all_that_came_of_it_was_played() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.start("item_1")
    harness.play("item_1", 200)
    await advance_time(5.0)
    assert harness.clear() == (SentAudio("item_1", 0, 200, 200),)


@in_virtual_time
async def test_the_parts_of_an_item_are_distinguished() -> None:
    harness = PlayoutHarness(max_ahead_ms=300)
    for part in (0, 1):
        harness.start("item_1", part)
        harness.play("item_1", 200, part)
        harness.end("item_1", 200, part)
    assert harness.clear() == (SentAudio("item_1", 0, 200, 0), SentAudio("item_1", 1, 100, 0))


@in_virtual_time
async def test_an_acknowledgement_counts_for_the_estimate() -> None:
    harness = PlayoutHarness(max_ahead_ms=1000)
    harness.item("item_1", 3000)
    await advance_time(0.5)
    harness.playout.sync("item_1", 250)
    await advance_time(0.1)
    [clip] = harness.clear()
    assert clip.estimated_played_ms == pytest.approx(350, abs=1)


# -- slow clients -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_audio_waits_while_the_socket_is_full_and_goes_on_afterwards() -> None:
    harness = PlayoutHarness(max_ahead_ms=None)
    harness.start("item_1")
    first = harness.play("item_1", 100)
    harness.socket.set_writable(writable=False)
    second = harness.play("item_1", 100)
    harness.end("item_1", 200)
    assert harness.audio == first
    await advance_time(MAX_STALL_S - 1)
    harness.socket.set_writable(writable=True)
    assert harness.audio == first + second
    assert harness.sequence() == ["audioStart item_1", "audio", "audioEnd item_1"]
    await advance_time(2 * MAX_STALL_S)
    assert harness.events == [ev.FirstAudioSent("item_1")]


@in_virtual_time
async def test_a_client_that_does_not_read_for_long_is_stalled() -> None:
    harness = PlayoutHarness()
    harness.socket.unsent_bytes = 70_000
    harness.socket.set_writable(writable=False)
    harness.socket.set_writable(writable=False)
    await advance_time(MAX_STALL_S - 0.1)
    assert harness.events == []
    await advance_time(0.2)
    assert harness.events == [ev.ClientBackpressure(70_000)]


@in_virtual_time
async def test_too_many_unsent_messages_stall_a_client_at_once() -> None:
    harness = PlayoutHarness()
    harness.socket.set_writable(writable=False)
    harness.playout.send_now(cmd.SendTextDelta("one"))
    harness.socket.unsent_bytes = MAX_UNSENT_BYTES + 1
    harness.playout.send_now(cmd.SendTextDelta("two"))
    assert harness.events == [ev.ClientBackpressure(MAX_UNSENT_BYTES + 1)]


@in_virtual_time
async def test_beyond_the_limit_the_oldest_audio_is_dropped_and_reported_once_per_item() -> None:
    harness = PlayoutHarness(PCMU, max_ahead_ms=1000)
    harness.start("item_1")
    chunks = [harness.play("item_1", 10_000) for _ in range(MAX_QUEUED_MS // 10_000 + 3)]
    overflows = [event for event in harness.events if isinstance(event, ev.PlayoutOverflow)]
    assert [event.item_id for event in overflows] == ["item_1"]
    assert overflows[0].dropped_ms > 0
    harness.end("item_1")
    await advance_time(600)
    assert len(harness.audio) <= MAX_QUEUED_MS * 8 + 1000 * 8
    assert harness.audio.endswith(b"".join(chunks[-20:])), "the newest is kept"
    assert harness.sequence()[-1] == "audioEnd item_1"


@in_virtual_time
async def test_endless_items_use_bounded_memory_and_each_is_started_and_ended() -> None:
    harness = PlayoutHarness(max_ahead_ms=20)
    n_items = MAX_QUEUED_ENTRIES // 3 + 500
    for number in range(n_items):
        harness.start(f"item_{number}")
        harness.play(f"item_{number}", 1)
        harness.end(f"item_{number}")
        assert harness.playout.n_queued <= MAX_QUEUED_ENTRIES
    overflows = [event for event in harness.events if isinstance(event, ev.PlayoutOverflow)]
    assert overflows
    await advance_time(60)
    boundaries = [line for line in harness.sequence() if line != "audio"]
    assert boundaries == [f"{kind} item_{number}" for number in range(n_items) for kind in ("audioStart", "audioEnd")]


@in_virtual_time
async def test_what_is_known_of_items_that_a_client_plays_without_end_is_bounded() -> None:
    harness = PlayoutHarness(max_ahead_ms=None)
    for number in range(1000):
        harness.item(f"item_{number}", 1000)
    assert [clip.item_id for clip in harness.clear()] == [
        f"item_{number}" for number in range(1000 - MAX_PLAYBACK_PARTS, 1000)
    ]


@in_virtual_time
async def test_audio_that_went_out_does_not_count_for_the_bound() -> None:
    harness = PlayoutHarness(max_ahead_ms=500, max_queued_ms=3000)
    harness.start("item_1")
    pcm = harness.play("item_1", 2000)
    for _ in range(20):
        await advance_time(1.0)
        pcm += harness.play("item_1", 1000)
    await advance_time(10)
    assert harness.audio == pcm
    assert harness.events == [ev.FirstAudioSent("item_1")]


# -- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", [PCM16_8K, PCM16_16K, PCM16_48K], ids=str)
@in_virtual_time
async def test_resampled_audio_is_as_long_as_it_was_and_its_tail_comes_before_its_end(output: AudioFormat) -> None:
    harness = PlayoutHarness(output, max_ahead_ms=500)
    harness.item("item_1", 1230)
    await advance_time(5.0)
    assert harness.sent_ms() == pytest.approx(1230, abs=2)
    assert harness.sequence() == ["audioStart item_1", "audio", "audioEnd item_1"]
    assert harness.socket.sent[-1][1] == {"type": "audioEnd", "itemId": "item_1", "totalMs": 1230}


@in_virtual_time
async def test_no_audio_of_a_cleared_item_is_in_the_next() -> None:
    once, twice = PlayoutHarness(PCM16_16K, None), PlayoutHarness(PCM16_16K, None)
    twice.start("item_1")
    twice.play("item_1", 100)
    twice.clear()
    heard_before = len(twice.audio)
    for harness in (once, twice):
        harness.position = 0
        harness.item("item_2", 100)
    assert twice.audio[heard_before:] == once.audio


@in_virtual_time
async def test_new_options_apply_from_there_on() -> None:
    harness = PlayoutHarness(PCM16_24K, max_ahead_ms=1000)
    harness.options = DeviceOptions(PCM16_24K, PCMU, None)
    harness.playout.apply_options(harness.options)
    pcm = harness.item("item_1", 5000)
    assert harness.audio == pcm
    assert len(pcm) == 5000 * 8


# -- the end ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_closing_stops_everything_and_closes_the_socket() -> None:
    harness = PlayoutHarness(max_ahead_ms=400)
    harness.item("item_1", 5000)
    harness.socket.is_writable = False
    harness.socket.on_writable(False)
    harness.playout.close(1001, "restarting")
    sent = list(harness.socket.sent)
    await advance_time(20.0)
    assert harness.socket.closed == (1001, "restarting")
    assert harness.socket.sent == sent
    assert harness.events == [ev.FirstAudioSent("item_1")]


# -- half duplex ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_microphone_is_muted_until_the_room_is_silent() -> None:
    harness = PlayoutHarness(max_ahead_ms=400, half_duplex=True)
    harness.item("item_1", 1000)
    await advance_time((1000 + JITTER_BUFFER_MS + ECHO_TAIL_MS) / 1000 - 0.05)
    assert ev.PlayoutFinished() not in harness.events
    await advance_time(0.1)
    assert harness.events[-1] == ev.PlayoutFinished()


@in_virtual_time
async def test_between_two_items_nothing_has_been_played_out() -> None:
    harness = PlayoutHarness(half_duplex=True)
    harness.item("item_1", 200)
    await advance_time(0.3)
    harness.start("item_2")
    harness.play("item_2", 600)
    await advance_time(5.0)
    assert ev.PlayoutFinished() not in harness.events, "the model has not ended it"
    harness.end("item_2", 600)
    await advance_time(0.3)
    assert harness.events[-1] == ev.PlayoutFinished()


@in_virtual_time
async def test_half_duplex_waits_for_a_device_that_plays_late() -> None:
    harness = PlayoutHarness(half_duplex=True)
    harness.item("item_1", 600)
    await advance_time(0.7)
    harness.playout.sync("item_1", 100)
    await advance_time(0.3)
    assert ev.PlayoutFinished() not in harness.events
    await advance_time(0.5)
    assert harness.events[-1] == ev.PlayoutFinished()


@in_virtual_time
async def test_full_duplex_reports_no_end_of_playout() -> None:
    harness = PlayoutHarness()
    harness.item("item_1", 200)
    await advance_time(2.0)
    assert harness.events == [ev.FirstAudioSent("item_1")]
