"""One hostile client of each kind beside fifty honest ones, which must not be disturbed.

Peace and attack alternate; the result is the median of the differences in each round. The hostile client runs in its
own process at a low priority. With `pytest -s --long` it prints a table.

The fine bound is on how long a frame waits for the relay's own work, in processor time. In wall-clock time a frame also
waits for processors and memory that the attack takes from the machine, so that the bound there is coarse.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

import pytest
import pytest_asyncio

from tests.chaos.attacker import AttackerProcess, Outcome, attacker_process
from tests.chaos.honest import Crowd, HonestDevice, HonestRealtime, percentile
from tests.chaos.inputs import COMPRESSED_BODY, HONEST_KEY, HOSTILE_INPUTS, HostileInput
from tests.chaos.measured_relay import SETTINGS, fake_tts
from tests.chaos.relay_process import RelayProcess, relay_process
from tests.chaos.upstream import HostileUpstreamSession, fake_upstream

N_DEVICES = N_REALTIME = 25
INTERVAL_S = 0.1
STARTING_S = 3.0
ROUNDS = 7
STRETCH_S = 0.8
SETTLING_S, SETTLING_LOOKS = 0.1, 30
SETTLED_CORES = 0.2
"""The honest sessions alone take less of a core."""
WAIT_WORSE_S = 0.010
"""How much longer a frame may wait for the relay, at the 99th percentile."""
ROUND_TRIP_WORSE_S = 0.100
"""How much longer its round trip may take in wall-clock time, as in test_chaos.py: for delays without computation."""
COMPRESSED_CORES = 0.02

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True)
class Measurement:
    """The latencies of the honest sessions in one phase, and the outcome of the attack."""

    p99_s: float
    wait_p99_s: float
    cores: float
    outcome: Outcome


@dataclass
class Report:
    """A table with a row for each kind of input."""

    rows: list[str] = field(default_factory=list)

    def add(self, hostile_input: HostileInput, rounds: list[tuple[Measurement, Measurement]]) -> None:
        """Add the row of one kind: the medians of its rounds."""
        peace, attack = zip(*rounds, strict=True)
        round_trip = [1000 * median(measurement.p99_s for measurement in kind) for kind in (peace, attack)]
        wait = [1000 * median(measurement.wait_p99_s for measurement in kind) for kind in (peace, attack)]
        cores = [median(measurement.cores for measurement in kind) for kind in (peace, attack)]
        figures = [*round_trip, 1000 * worse_by(rounds, "p99_s"), *wait, 1000 * worse_by(rounds, "wait_p99_s")]
        n_inputs = sum(measurement.outcome.n_inputs for measurement in attack)
        cells = [
            f"{hostile_input.name:<62}",
            *(f"{figure:8.1f}" for figure in figures),
            *(f"{measurement:6.2f}" for measurement in cores),
        ]
        self.rows.append(" ".join([*cells, f"{n_inputs / ROUNDS / STRETCH_S:10.0f}"]))

    def __str__(self) -> str:
        """The table."""
        round_trips, waits = "p99 round trip, ms".center(26), "p99 wait for relay, ms".center(26)
        first = f"{'':<62} {round_trips} {waits} {'cores':>13} {'inputs/s':>10}"
        second = f"{'kind':<62}" + f"{'peace':>9}{'attack':>9}{'worse':>9}" * 2 + f"{'peace':>7}{'attack':>7}"
        return "\n".join(["", first, second, *self.rows])


def worse_by(rounds: list[tuple[Measurement, Measurement]], figure: str) -> float:
    """Return how much worse a figure is under attack than in the peace before it, as the median of the rounds."""
    return median(getattr(attack, figure) - getattr(peace, figure) for peace, attack in rounds)


@dataclass
class TalkingRelay:
    """A relay with honest sessions that talk all the time, and one hostile client that can attack it."""

    relay: RelayProcess
    crowd: Crowd
    attacker: AttackerProcess

    async def measure(self, hostile_input: HostileInput | None) -> Measurement:
        """Measure one phase, in peace (None) or under attack."""
        loop = asyncio.get_running_loop()
        await self._settle()
        started = loop.time()
        await self.relay.work()
        outcome = Outcome(0, {})
        if hostile_input is None:
            await asyncio.sleep(STRETCH_S)
        else:
            outcome = await self.attacker.attack(hostile_input, STRETCH_S)
        work, ended = await self.relay.work(), loop.time()
        latencies_s = self.crowd.latencies_s(started, ended) or [ended - started]  # no frame came back in all this time
        return Measurement(percentile(latencies_s, 0.99), work.wait_s(0.99), work.cpu_s / (ended - started), outcome)

    async def rounds(self, hostile_input: HostileInput) -> list[tuple[Measurement, Measurement]]:
        """Measure peace and attack alternately."""
        await self.attacker.attack(hostile_input, 0)
        return [(await self.measure(None), await self.measure(hostile_input)) for _ in range(ROUNDS)]

    async def _settle(self) -> None:
        """Wait until the previous hostile session causes no more work; a throttled one may still be there."""
        for _ in range(SETTLING_LOOKS):
            await asyncio.sleep(SETTLING_S)
            if (await self.relay.work()).cpu_s < SETTLED_CORES * SETTLING_S:
                return


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def talking_relay(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TalkingRelay]:
    async with AsyncExitStack() as stack:
        handover_peer, handover_socket = (stack.enter_context(sock) for sock in socket.socketpair())
        log = stack.enter_context((tmp_path_factory.mktemp("talking_relay") / "log").open("wb"))
        voices = await stack.enter_async_context(fake_tts())
        upstream_url = await stack.enter_async_context(
            fake_upstream(
                lambda connection: HostileUpstreamSession(
                    connection, lambda upstream_connection: attacker.take_over(upstream_connection)
                )
            )
        )
        settings = SETTINGS | {"ELEVENLABS_BASE_URL": voices}
        relay = await stack.enter_async_context(relay_process(upstream_url, log=log, **settings))
        attacker = await stack.enter_async_context(attacker_process(relay.port, handover_peer, handover_socket))
        realtime_url = f"ws://127.0.0.1:{relay.port}/v1/realtime?model=m"
        crowd = Crowd(
            [
                *(HonestDevice(relay.url, HONEST_KEY, INTERVAL_S) for _ in range(N_DEVICES)),
                *(HonestRealtime(realtime_url, HONEST_KEY, INTERVAL_S) for _ in range(N_REALTIME)),
            ]
        )
        async with crowd.talking(STARTING_S):
            yield TalkingRelay(relay, crowd, attacker)


@pytest.fixture(scope="module")
def report() -> Iterator[Report]:
    table = Report()
    yield table
    print(table)


@pytest.mark.parametrize("hostile_input", HOSTILE_INPUTS, ids=lambda row: row.name)
async def test_one_hostile_client_does_not_disturb_fifty_honest_ones(
    talking_relay: TalkingRelay, report: Report, hostile_input: HostileInput
) -> None:
    n_faults = len(talking_relay.crowd.faults)
    rounds = await talking_relay.rounds(hostile_input)
    report.add(hostile_input, rounds)
    assert talking_relay.crowd.faults[n_faults:] == []
    assert all(attack.outcome.n_inputs or attack.outcome.ends for _, attack in rounds), "the attack took place"
    assert worse_by(rounds, "wait_p99_s") <= WAIT_WORSE_S
    assert worse_by(rounds, "p99_s") <= ROUND_TRIP_WORSE_S
    if hostile_input is COMPRESSED_BODY:
        assert worse_by(rounds, "cores") <= COMPRESSED_CORES
