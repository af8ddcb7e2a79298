"""Messages that never end, from many clients at once: one bound for all of them, and no effect on other sessions."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.attacker import end_of, open_session
from tests.chaos.honest import Crowd, HonestDevice, HonestRealtime
from tests.chaos.inputs import HONEST_KEY, MESSAGE_BYTES, WayIn
from tests.chaos.measured_relay import measured_relay
from tests.chaos.relay_process import RelayProcess
from tests.support.raw_websocket import RawClient, binary, continuation, masked

N_CLIENTS = 30
GROWTH_KIB = 128 * 1024
SLICE_BYTES = 1024 * 1024
STALLED_S = 1.0
"""A client that cannot send a slice for so long is throttled."""
WATCHED_S = 0.05


def in_one_frame() -> Iterator[bytes]:
    frame = masked(binary(bytes(MESSAGE_BYTES)))[:-1]
    for start in range(0, len(frame), SLICE_BYTES):
        yield frame[start : start + SLICE_BYTES]


def in_fragments() -> Iterator[bytes]:
    yield masked(binary(bytes(SLICE_BYTES), fin=False))
    fragment = masked(continuation(bytes(SLICE_BYTES), fin=False))
    for _ in range(MESSAGE_BYTES // SLICE_BYTES - 1):
        yield fragment


async def send_all(client: RawClient, slices: Iterator[bytes]) -> str:
    """Send an unfinished message; returns "accepted" if all of it was, else "throttled" or "reset"."""
    try:
        for chunk in slices:
            client.writer.write(chunk)
            async with asyncio.timeout(STALLED_S):
                await client.writer.drain()
    except TimeoutError:
        return "throttled"
    except ConnectionError:
        return "reset"
    return "accepted"


async def outcome_of(client: RawClient, slices: Iterator[bytes]) -> str:
    """Return the close code of a client, or the result of `send_all`."""
    ending = asyncio.create_task(end_of(client))
    try:
        sent = await send_all(client, slices)
        await asyncio.wait({ending}, timeout=STALLED_S)
        return ending.result() if ending.done() else sent
    finally:
        ending.cancel()


async def peak_pss_kib(relay: RelayProcess, meanwhile: "asyncio.Future[list[str]]") -> int:
    """Return the peak memory until `meanwhile` is done."""
    peak_kib = relay.pss_kib()
    while not meanwhile.done():
        await asyncio.wait({meanwhile}, timeout=WATCHED_S)
        peak_kib = max(peak_kib, relay.pss_kib())
    return peak_kib


@pytest.mark.long
@pytest.mark.parametrize("slices", [in_one_frame, in_fragments], ids=["in one frame", "in fragments"])
async def test_unfinished_messages_of_thirty_clients_have_one_bound(
    tmp_path: Path, slices: Callable[[], Iterator[bytes]]
) -> None:
    async with measured_relay(tmp_path / "log") as measured:
        relay, crowd = measured.relay, Crowd([HonestDevice(measured.relay.url, HONEST_KEY), _realtime(measured.relay)])
        async with crowd.talking(0.2):
            clients = [await open_session(relay.port, WayIn.REALTIME) for _ in range(N_CLIENTS)]
            before_kib = (await relay.resources()).pss_kib
            outcomes = asyncio.gather(*(outcome_of(client, slices()) for client in clients))
            peak_kib = await peak_pss_kib(relay, outcomes)
            for client in clients:
                await client.close()
    ends = outcomes.result()
    print(f"{peak_kib - before_kib} KiB more, {ends}")
    assert peak_kib - before_kib < GROWTH_KIB
    assert crowd.faults == []
    assert "reset" not in ends, "a refused client receives a close code"


def _realtime(relay: RelayProcess) -> HonestRealtime:
    return HonestRealtime(f"ws://127.0.0.1:{relay.port}/v1/realtime?model=m", HONEST_KEY)
