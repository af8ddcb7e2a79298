"""Twenty users who begin to speak at the same moment, in real time, over real sockets.

For a machine with two cores that does nothing else meanwhile, hence among the long tests; `python -m
tests.local_engine.crowd` prints the same figures.
"""

import pytest

from tests.local_engine.crowd import CHUNK_MS, at, crowd, engine, first_sounds, table

pytestmark = pytest.mark.long


async def test_no_event_is_late_however_many_speak():
    async with engine() as (port, _):
        await crowd(port, 1, 0.1)
        seen = await crowd(port, 20, 0.1)
    print(f"\n{table(seen)}")
    assert seen.turns == seen.understood == 20
    assert at(seen.started, 99) < 150 + CHUNK_MS
    assert at(seen.stopped, 99) < 150 + CHUNK_MS


async def test_nor_in_the_long_run():
    async with engine() as (port, _):
        await crowd(port, 1, 0.1)
        seen = await crowd(port, 20, 30)
    print(f"\n{table(seen)}")
    assert seen.turns == seen.understood >= 40
    assert at(seen.started, 99) < 150 + CHUNK_MS
    assert at(seen.stopped, 99) < 150 + CHUNK_MS


async def test_the_first_sound_comes_soon_in_every_voice():
    async with engine() as (port, _):
        sounds = await first_sounds(port, rounds=1)
    assert at([ms for values in sounds.values() for ms in values], 50) < 150
