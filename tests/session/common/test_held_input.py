"""Audio that comes before its session is ready is held in order, within a bound: the oldest is dropped first (D5)."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.formats import PCM16_16K, PCM16_48K, PCMU, AudioFormat
from relay.session.common.input_control import MAX_HELD_FRAMES, MAX_HELD_MS, HeldInput


class Microphone:
    """A client's audio in one format; `dropped_bytes` is what had to go for what came later."""

    def __init__(self, fmt: AudioFormat) -> None:
        self.held = HeldInput()
        self.bytes_per_ms = fmt.bytes_per_ms
        self.input_bytes = self.dropped_bytes = 0

    def say(self, n_bytes: int, mark: int = 0) -> None:
        self.input_bytes += n_bytes
        samples = bytes([mark]) * n_bytes
        self.dropped_bytes += self.held.add(samples, n_bytes, self.input_bytes, self.bytes_per_ms)


def test_everything_comes_back_in_order_and_once() -> None:
    microphone = Microphone(PCM16_16K)
    microphone.say(640, 1)
    microphone.say(320, 2)
    assert microphone.held.take() == [b"\1" * 640, b"\2" * 320]
    assert microphone.held.take() == []
    assert microphone.dropped_bytes == 0


def test_a_payload_is_kept_as_it_is_whatever_audio_it_stands_for() -> None:
    held, frame = HeldInput(), b'{"type":"input_audio_buffer.append","audio":"AAAA"}'
    assert held.add(frame, 3, 3, 48) == 0
    [kept] = held.take()
    assert kept is frame


@pytest.mark.parametrize("fmt", [PCM16_16K, PCM16_48K, PCMU], ids=str)
def test_over_the_bound_the_oldest_audio_goes(fmt: AudioFormat) -> None:
    microphone, chunk_bytes = Microphone(fmt), 100 * fmt.bytes_per_ms
    for mark in range(MAX_HELD_MS // 100 + 3):
        microphone.say(chunk_bytes, mark)
    kept = microphone.held.take()
    assert sum(map(len, kept)) == MAX_HELD_MS * fmt.bytes_per_ms
    assert [frame[0] for frame in kept] == list(range(3, MAX_HELD_MS // 100 + 3))
    assert microphone.dropped_bytes == 3 * chunk_bytes


def test_tiny_frames_are_bounded_by_their_number() -> None:
    microphone = Microphone(PCM16_16K)
    for _ in range(MAX_HELD_FRAMES + 50):
        microphone.say(2)
    assert microphone.dropped_bytes == 100
    assert len(microphone.held.take()) == MAX_HELD_FRAMES


def test_a_chunk_longer_than_the_bound_leaves_nothing() -> None:
    microphone = Microphone(PCMU)
    microphone.say(80)
    microphone.say(MAX_HELD_MS * 8 + 1)
    assert microphone.held.take() == []
    assert microphone.dropped_bytes == 80 + MAX_HELD_MS * 8 + 1


def test_the_bound_follows_the_format_that_a_hello_brings() -> None:
    microphone = Microphone(PCM16_16K)
    microphone.bytes_per_ms = PCMU.bytes_per_ms
    for _ in range(MAX_HELD_MS // 100 + 1):
        microphone.say(800)
    assert microphone.dropped_bytes == 800


def test_what_was_taken_counts_no_longer() -> None:
    microphone = Microphone(PCMU)
    for _ in range(3):
        microphone.say(MAX_HELD_MS * 8)
        assert len(microphone.held.take()) == 1
    for mark in range(MAX_HELD_FRAMES):
        microphone.say(1, mark % 256)
    assert len(microphone.held.take(microphone.input_bytes - 1)) == MAX_HELD_FRAMES - 1
    for _ in range(MAX_HELD_FRAMES - 1):
        microphone.say(1)
    assert microphone.dropped_bytes == 0


def test_audio_is_taken_up_to_a_position_in_the_stream() -> None:
    microphone = Microphone(PCM16_16K)
    for mark in range(4):
        microphone.say(100, mark)
    assert microphone.held.take(0) == microphone.held.take(99) == []
    assert microphone.held.take(200) == [b"\0" * 100, b"\1" * 100]
    assert microphone.held.take(200) == []
    assert microphone.held.take(399) == [b"\2" * 100], "a frame that ends later is for later"
    assert microphone.held.take(400) == [b"\3" * 100]


def test_positions_count_what_was_dropped() -> None:
    microphone, chunk_bytes = Microphone(PCMU), 100 * 8
    for mark in range(MAX_HELD_MS // 100 + 3):
        microphone.say(chunk_bytes, mark)
    assert microphone.held.take(3 * chunk_bytes) == []
    assert microphone.held.take(4 * chunk_bytes) == [b"\3" * chunk_bytes]


@given(
    lengths=st.lists(st.integers(1, MAX_HELD_MS * 3), max_size=12),
    positions=st.lists(st.integers(0, MAX_HELD_MS * 36), max_size=4),
)
def test_what_is_taken_and_what_is_dropped_is_all_there_was(lengths: list[int], positions: list[int]) -> None:
    held, dropped_bytes = HeldInput(), 0
    for number, (n_bytes, ends_at_bytes) in enumerate(zip(lengths, accumulate(lengths), strict=True)):
        dropped_bytes += held.add(bytes([number]), n_bytes, ends_at_bytes, 1)
    pieces = [held.take(position) for position in sorted(positions)]
    pieces.append(held.take())
    numbers = [frame[0] for piece in pieces for frame in piece]
    n_dropped = len(lengths) - len(numbers)
    assert numbers == list(range(n_dropped, len(lengths))), "in order, and only the oldest are missing"
    assert dropped_bytes == sum(lengths[:n_dropped])
    assert sum(lengths[n_dropped:]) <= MAX_HELD_MS
    assert not n_dropped or sum(lengths[n_dropped - 1 :]) > MAX_HELD_MS, "no more is dropped than must be"
    for position, piece in zip(sorted(positions), pieces, strict=False):
        assert all(sum(lengths[: frame[0] + 1]) <= position for frame in piece)
