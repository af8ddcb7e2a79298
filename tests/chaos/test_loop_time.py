"""How long one input may block the event loop, in processor time, so that other load on the machine does not matter.

Each input is sent up to three times, and one run within the bound is enough: a garbage collection at that moment is not
caused by the input.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.inputs import COMPRESSED_BODY, HOSTILE_INPUTS, LARGE_EVENTS, HostileInput
from tests.chaos.measured_relay import MeasuredRelay, measured_relay

REPEATS = 3
LONGEST_S = 0.015
"""How long one hostile input may block the loop."""
LONG_MESSAGE_BYTES, LONG_MESSAGE_S = 8_000_000, 0.045
"""A longer message may block it for longer: it is copied before it is refused. One such is read every 8 s."""
LARGE_EVENT_S = 0.030
"""How long an event of 2 to 4 MB may block it; most of the time is copying."""
RECORDING_S = 0.015
"""What a recording may add, with its writer's thread; `test_recording_latency.py` measures the effect on others."""
COMPRESSED_BODIES_A_SECOND, COMPRESSED_CORES = 4, 0.02
"""What two connections send at one body each half second, and their share of a core."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MeasuredRelay]:
    async with measured_relay(tmp_path_factory.mktemp("relay") / "log") as measured:
        yield measured


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recording_relay(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MeasuredRelay]:
    folder: Path = tmp_path_factory.mktemp("recording_relay")
    async with measured_relay(
        folder / "log", RELAY_RECORD="on", RELAY_RECORDINGS_DIR=str(folder / "recordings")
    ) as measured:
        yield measured


async def longest_block_s(relay: MeasuredRelay, hostile_input: HostileInput, enough_s: float) -> float:
    """Return the longest block of the loop, in the best of up to three runs."""
    best_s, payload = float("inf"), hostile_input.payload()
    for _ in range(REPEATS):
        best_s = min(best_s, (await relay.work_for(hostile_input.way_in, payload)).longest_wait_s)
        if best_s <= enough_s:
            break
    print(f"{hostile_input.name}: {best_s * 1000:.1f} ms")
    return best_s


@pytest.mark.parametrize("hostile_input", HOSTILE_INPUTS, ids=lambda row: row.name)
async def test_one_hostile_input_does_not_block_the_loop(relay: MeasuredRelay, hostile_input: HostileInput) -> None:
    bound_s = LONG_MESSAGE_S if len(hostile_input.payload()) > LONG_MESSAGE_BYTES else LONGEST_S
    assert await longest_block_s(relay, hostile_input, bound_s) <= bound_s


@pytest.mark.parametrize("hostile_input", LARGE_EVENTS, ids=lambda row: row.name)
async def test_recording_a_large_event_hardly_blocks_the_loop(
    relay: MeasuredRelay, recording_relay: MeasuredRelay, hostile_input: HostileInput
) -> None:
    unrecorded_s = await longest_block_s(relay, hostile_input, LARGE_EVENT_S)
    assert unrecorded_s <= LARGE_EVENT_S
    bound_s = unrecorded_s + RECORDING_S
    assert await longest_block_s(recording_relay, hostile_input, bound_s) <= bound_s


async def test_a_compressed_body_costs_very_little(relay: MeasuredRelay) -> None:
    body = COMPRESSED_BODY.payload()
    costs_s = [(await relay.work_for(COMPRESSED_BODY.way_in, body)).cpu_s for _ in range(REPEATS)]
    print(f"{COMPRESSED_BODY.name}: {min(costs_s) * 1000:.1f} ms in all")
    assert min(costs_s) <= COMPRESSED_CORES / COMPRESSED_BODIES_A_SECOND
