"""When recorders hand over: each as often as the others, and few of them at a time."""

import asyncio
from collections import Counter

import pytest

from relay.recording.flush_timer import FLUSH_INTERVAL_S, N_FLUSH_GROUPS, FlushTimer
from tests.support.virtual_time import advance_time, in_virtual_time


class Clocked:
    """Notes when it is flushed."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def flush(self) -> None:
        self.times.append(asyncio.get_running_loop().time())


@in_virtual_time
async def test_every_recorder_is_flushed_once_in_each_round() -> None:
    timer, recorders = FlushTimer(), [Clocked() for _ in range(100)]
    for recorder in recorders:
        timer.add(recorder.flush)
    await advance_time(10 * FLUSH_INTERVAL_S + 0.001)
    for recorder in recorders:
        assert len(recorder.times) == 10
        assert recorder.times[9] - recorder.times[0] == pytest.approx(9 * FLUSH_INTERVAL_S)
    at_once = Counter(time for recorder in recorders for time in recorder.times)
    assert len(at_once) == 10 * N_FLUSH_GROUPS
    assert max(at_once.values()) == 4


@in_virtual_time
async def test_one_recorder_alone_wakes_the_loop_no_more_often_than_it_is_flushed() -> None:
    timer, first, second = FlushTimer(), Clocked(), Clocked()
    timer.add(first.flush)
    await advance_time(FLUSH_INTERVAL_S + 0.001)
    timer.add(second.flush)
    await advance_time(FLUSH_INTERVAL_S)
    timer.remove(first.flush)
    timer.remove(second.flush)
    await advance_time(10 * FLUSH_INTERVAL_S)
    assert (len(first.times), len(second.times)) == (2, 1)
    assert first.times[1] - first.times[0] == pytest.approx(FLUSH_INTERVAL_S)


@in_virtual_time
async def test_whoever_comes_after_a_pause_is_flushed_in_time() -> None:
    timer, recorder = FlushTimer(), Clocked()
    await advance_time(1000)
    timer.add(recorder.flush)
    await advance_time(FLUSH_INTERVAL_S + 0.001)
    assert len(recorder.times) == 1
