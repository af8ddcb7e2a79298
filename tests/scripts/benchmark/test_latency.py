"""Latency by counting bytes: no mark in the sound."""

import pytest

from audio.formats import PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K, AudioFormat
from audio.transcode import Transcoder
from scripts.benchmark.fake_peers import DELTA_MS, FRAME_MS, AudioFlow, LoadSession, Percentiles


def test_percentiles_are_latencies_that_did_occur() -> None:
    assert Percentiles.from_latencies([]) == Percentiles(None, None, None)
    assert Percentiles.from_latencies([7.0]) == Percentiles(7.0, 7.0, 7.0)
    assert Percentiles.from_latencies([float(n) for n in range(200, 0, -1)]) == Percentiles(100.0, 198.0, 200.0)


def test_a_chunk_has_arrived_when_as_many_bytes_have() -> None:
    flow = AudioFlow(chunk_bytes=100)
    flow.open_window()
    for now in (1.0, 2.0, 3.0):
        flow.record_sent(now)
    flow.record_received(99, 1.5)
    assert flow.latencies_ms() == []
    flow.record_received(1, 1.75)
    flow.record_received(150, 3.5)
    flow.close_window()
    assert flow.latencies_ms() == [750, 1500]
    assert flow.sent_chunks == 3


def test_only_what_leaves_within_the_window_counts() -> None:
    flow = AudioFlow(chunk_bytes=10)
    for now in range(6):
        if now == 2:
            flow.open_window()
        if now == 4:
            flow.close_window()
        flow.record_sent(now)
        flow.record_received(10, now + 0.25 * now)
    assert flow.sent_chunks == 2
    assert flow.latencies_ms() == [500, 750]


@pytest.mark.parametrize("fmt", [PCM16_8K, PCM16_16K, PCM16_24K, PCM16_48K], ids=str)
def test_every_chunk_of_the_load_is_as_many_bytes_behind_the_resampler_as_the_flows_count_on(fmt: AudioFormat) -> None:
    session = LoadSession("device", fmt.rate_hz)
    up, down = Transcoder(fmt, PCM16_24K), Transcoder(PCM16_24K, fmt)
    for n in range(1, 6):
        session.up.record_sent(n)
        session.up.record_received(len(up.feed(bytes(FRAME_MS * fmt.bytes_per_ms))), n)
        session.down.record_sent(n)
        session.down.record_received(len(down.feed(bytes(DELTA_MS * PCM16_24K.bytes_per_ms))), n)
        session.up.close_window()
        session.down.close_window()
        assert len(session.up.latencies_ms()) == len(session.down.latencies_ms()) == n
