"""Twenty users who start to speak at the same moment, in real time, over real sockets.

It needs an idle machine with two cores, hence it is a long test; `python -m
tests.local_engine.load` prints the same figures.
"""

import pytest

from tests.local_engine.load import CHUNK_MS, engine, first_audio_by_voice, percentile, run_users, table

pytestmark = pytest.mark.long


async def test_turn_events_are_timely_with_twenty_users():
    async with engine() as (port, _):
        await run_users(port, 1, 0.1)
        latencies = await run_users(port, 20, 0.1)
    print(f"\n{table(latencies)}")
    assert latencies.turns == latencies.understood == 20
    assert percentile(latencies.started, 99) < 150 + CHUNK_MS
    assert percentile(latencies.stopped, 99) < 150 + CHUNK_MS


async def test_turn_events_are_timely_for_half_a_minute():
    async with engine() as (port, _):
        await run_users(port, 1, 0.1)
        latencies = await run_users(port, 20, 30)
    print(f"\n{table(latencies)}")
    assert latencies.turns == latencies.understood >= 40
    assert percentile(latencies.started, 99) < 150 + CHUNK_MS
    assert percentile(latencies.stopped, 99) < 150 + CHUNK_MS


async def test_the_first_audio_is_timely_in_every_voice():
    async with engine() as (port, _):
        first_audio_ms = await first_audio_by_voice(port, rounds=1)
    assert percentile([ms for values in first_audio_ms.values() for ms in values], 50) < 150
