"""What a client says too early is kept in order, and bounded (D5)."""

import pytest

from audio.formats import PCM16_16K, PCM16_48K, PCMU, AudioFormat
from relay.core import events as ev
from relay.core.startup import MAX_AUDIO_FRAMES, MAX_AUDIO_MS, MAX_EVENTS, MAX_TYPED, Backlog


def mic(n_bytes: int, mark: int = 0) -> ev.Forwarded:
    return ev.Forwarded("input_audio", "", n_bytes, bytes([mark]) * n_bytes)


def audio_bytes(events: list[ev.Event]) -> int:
    return sum(event.n_bytes for event in events if isinstance(event, ev.Forwarded))


def test_everything_comes_back_in_order_and_once() -> None:
    backlog = Backlog(PCM16_16K)
    early = [mic(640, 1), ev.UserText("hello"), mic(640, 2), ev.Commit()]
    assert [backlog.add(event) for event in early] == [True] * 4
    assert backlog.take() == early
    assert backlog.take() == []


def test_audio_is_copied_for_a_view_does_not_outlive_the_call() -> None:
    buffer = bytearray(b"\x01\x02")
    backlog = Backlog(PCM16_16K)
    backlog.add(ev.Forwarded("input_audio", "", 2, memoryview(buffer)))
    buffer[:] = b"\x09\x09"
    [kept] = backlog.take()
    assert isinstance(kept, ev.Forwarded)
    assert kept.raw == b"\x01\x02"


@pytest.mark.parametrize("fmt", [PCM16_16K, PCM16_48K, PCMU], ids=str)
def test_over_the_bound_the_oldest_audio_goes(fmt: AudioFormat) -> None:
    backlog = Backlog(fmt)
    chunk_bytes = 100 * fmt.bytes_per_ms
    for mark in range(MAX_AUDIO_MS // 100 + 3):
        backlog.add(mic(chunk_bytes, mark))
    kept = backlog.take()
    assert audio_bytes(kept) == MAX_AUDIO_MS * fmt.bytes_per_ms
    assert isinstance(kept[0], ev.Forwarded)
    assert kept[0].raw[0] == 3
    assert backlog.dropped_bytes == 3 * chunk_bytes


def test_tiny_frames_are_bounded_by_their_number() -> None:
    backlog = Backlog(PCM16_16K)
    for _ in range(MAX_AUDIO_FRAMES + 50):
        backlog.add(mic(2))
    assert backlog.dropped_bytes == 100
    assert len(backlog.take()) == MAX_AUDIO_FRAMES


def test_a_chunk_longer_than_the_bound_leaves_nothing() -> None:
    backlog = Backlog(PCMU)
    backlog.add(mic(MAX_AUDIO_MS * 8 + 1))
    assert backlog.take() == []
    assert backlog.dropped_bytes == MAX_AUDIO_MS * 8 + 1


def test_control_events_outlive_the_audio_around_them() -> None:
    backlog = Backlog(PCM16_16K)
    backlog.add(ev.Clear())
    for _ in range(MAX_AUDIO_MS // 100 + 2):
        backlog.add(mic(3200))
    backlog.add(ev.Commit())
    kept = backlog.take()
    assert (kept[0], kept[-1]) == (ev.Clear(), ev.Commit())
    assert backlog.dropped_bytes == 6400


def test_too_many_control_events_are_refused_and_none_is_lost() -> None:
    backlog = Backlog(PCM16_16K)
    assert all(backlog.add(ev.Interrupt()) for _ in range(MAX_EVENTS))
    assert not backlog.add(ev.UserText("one too many"))
    assert backlog.add(mic(2))
    assert backlog.take() == [ev.Interrupt()] * MAX_EVENTS + [mic(2)]
    assert backlog.add(ev.UserText("room again"))


def test_the_bound_follows_the_format_that_a_hello_brings() -> None:
    backlog = Backlog(PCM16_16K)
    backlog.format = PCMU
    for _ in range(MAX_AUDIO_MS // 100 + 1):
        backlog.add(mic(800))
    assert backlog.dropped_bytes == 800


def test_typed_turns_are_bounded_more_closely_for_they_can_be_long() -> None:
    backlog = Backlog(PCM16_16K)
    assert all(backlog.add(ev.UserText("x" * 32_768)) for _ in range(MAX_TYPED))
    assert not backlog.add(ev.UserText("one too many"))
    assert backlog.add(ev.Commit())
    assert len(backlog.take()) == MAX_TYPED + 1
