"""The delay that a large event causes in another session: recording may hardly increase it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest
import pytest_asyncio

from tests.chaos.honest import Crowd, HonestRealtime
from tests.chaos.inputs import HONEST_KEY, LARGE_EVENTS, HostileInput
from tests.chaos.measured_relay import MeasuredRelay, Writer, measured_relay, send

ROUNDS = 7
INTERVAL_S = 0.005
WORSE_S = 0.010
"""How much longer the slowest round trip of the other session may take, as the median of the rounds."""

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]


@dataclass
class Neighbours:
    """A relay and one honest session whose frames are timed."""

    subject: MeasuredRelay
    talking: Crowd

    async def slowest_s(self, writer: Writer, payload: bytes) -> float:
        """Return the slowest round trip of the honest session while another one sends a large event."""
        loop = asyncio.get_running_loop()
        await self.subject.relay.quiet()
        started = loop.time()
        await send(writer, payload)
        await self.subject.relay.quiet()
        await asyncio.sleep(4 * INTERVAL_S)  # delayed frames arrive
        return max(self.talking.latencies_s(started, loop.time()))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbours(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Neighbours, Neighbours]]:
    """Yield a relay without recording and one with it."""
    folder: Path = tmp_path_factory.mktemp("recording")
    recording = {"RELAY_RECORD": "on", "RELAY_RECORDINGS_DIR": str(folder / "recordings")}
    async with AsyncExitStack() as stack:
        both = []
        for settings in ({}, recording):
            measured = await stack.enter_async_context(measured_relay(folder / f"log_{len(both)}", **settings))
            url = f"ws://127.0.0.1:{measured.relay.port}/v1/realtime?model=m"
            crowd = Crowd([HonestRealtime(url, HONEST_KEY, INTERVAL_S)])
            await stack.enter_async_context(crowd.talking(0.2))
            both.append(Neighbours(measured, crowd))
        yield both[0], both[1]


@pytest.mark.parametrize("large_event", LARGE_EVENTS, ids=lambda row: row.name)
async def test_a_large_event_that_is_recorded_hardly_delays_other_sessions(
    neighbours: tuple[Neighbours, Neighbours], large_event: HostileInput
) -> None:
    unrecorded, recorded = neighbours
    payload = large_event.payload()
    rounds = []
    async with (
        unrecorded.subject.open_writer(large_event.way_in) as unrecorded_writer,
        recorded.subject.open_writer(large_event.way_in) as recorded_writer,
    ):
        for _ in range(ROUNDS):
            off_s = await unrecorded.slowest_s(unrecorded_writer, payload)
            rounds.append((off_s, await recorded.slowest_s(recorded_writer, payload)))
    worse_s = median(on_s - off_s for off_s, on_s in rounds)
    off_ms, on_ms = (1000 * median(kind) for kind in zip(*rounds, strict=True))
    print(f"{large_event.name:<45} off {off_ms:7.1f} ms, on {on_ms:7.1f} ms, worse by {worse_s * 1000:7.1f} ms")
    assert worse_s <= WORSE_S
