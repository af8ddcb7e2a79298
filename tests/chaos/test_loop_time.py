"""How long one input may keep the event loop from all others, in processor time, so that the machine does not matter.

Each input is sent up to three times, and one that is within the bound is enough: what else is computed at that moment,
a collection of garbage say, is not its doing.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.inputs import COMPRESSED_BODY, HOSTILE_INPUTS, LARGE_EVENTS, HostileInput
from tests.chaos.one_input import MeasuredRelay, measured_relay

REPEATS = 3
LONGEST_S = 0.015
"""For which one hostile input may keep the loop."""
LONG_MESSAGE_BYTES, LONG_MESSAGE_S = 8_000_000, 0.045
"""A message of so many bytes may keep it longer: it is copied before it is refused. One such is read every 8 s."""
LARGE_EVENT_S = 0.030
"""For which an event of 2 to 4 MB may, which is mostly copied."""
RECORDING_S = 0.015
"""What a recording may add to that, its writer's thread included. What others notice: `test_recording_beside.py`."""
COMPRESSED_BODIES_A_SECOND, COMPRESSED_CORES = 4, 0.02
"""What two connections send that send one each half second, and what they may take of a core."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MeasuredRelay]:
    async with measured_relay(tmp_path_factory.mktemp("relay") / "log") as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recording_relay(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MeasuredRelay]:
    folder: Path = tmp_path_factory.mktemp("recording_relay")
    async with measured_relay(
        folder / "log", RELAY_RECORD="on", RELAY_RECORDINGS_DIR=str(folder / "recordings")
    ) as one:
        yield one


async def longest_s(relay: MeasuredRelay, given: HostileInput, enough_s: float) -> float:
    """The longest time for which the loop was kept, in the best of up to three repeats."""
    best_s, payload = float("inf"), given.payload()
    for _ in range(REPEATS):
        best_s = min(best_s, (await relay.work_for(given.way_in, payload)).longest_wait_s)
        if best_s <= enough_s:
            break
    print(f"{given.name}: {best_s * 1000:.1f} ms")
    return best_s


@pytest.mark.parametrize("given", HOSTILE_INPUTS, ids=lambda given: given.name)
async def test_one_hostile_input_does_not_keep_the_loop(relay: MeasuredRelay, given: HostileInput) -> None:
    bound_s = LONG_MESSAGE_S if len(given.payload()) > LONG_MESSAGE_BYTES else LONGEST_S
    assert await longest_s(relay, given, bound_s) <= bound_s


@pytest.mark.parametrize("given", LARGE_EVENTS, ids=lambda given: given.name)
async def test_a_large_event_keeps_the_loop_hardly_longer_when_it_is_recorded(
    relay: MeasuredRelay, recording_relay: MeasuredRelay, given: HostileInput
) -> None:
    unrecorded_s = await longest_s(relay, given, LARGE_EVENT_S)
    assert unrecorded_s <= LARGE_EVENT_S
    bound_s = unrecorded_s + RECORDING_S
    assert await longest_s(recording_relay, given, bound_s) <= bound_s


async def test_a_compressed_body_costs_next_to_nothing(relay: MeasuredRelay) -> None:
    body = COMPRESSED_BODY.payload()
    costs_s = [(await relay.work_for(COMPRESSED_BODY.way_in, body)).cpu_s for _ in range(REPEATS)]
    print(f"{COMPRESSED_BODY.name}: {min(costs_s) * 1000:.1f} ms in all")
    assert min(costs_s) <= COMPRESSED_CORES / COMPRESSED_BODIES_A_SECOND
