"""A soak test: hours of talk in minutes; no resource may grow."""

import asyncio
import os
import random

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.chaos.relay_process import RelayProcess, Resources, relay_process
from tests.chaos.upstream import BARGE, CALL, END, fake_upstream

SOAK_S = float(os.environ.get("RELAY_TEST_SOAK_S", "600"))
AT_ONCE = 40
"""Concurrent sessions: enough for two hours of talk in ten minutes on two cores."""
TURN_MS = 400
GROWTH_KIB = 4 * 1024
"""What the allocator may add after the first quarter; a leak of 100 bytes per session or turn would be more."""


class Visitor:
    """A client that talks, interrupts, answers tool calls, disconnects in various ways, and reconnects."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._random = random.Random(seed)
        self.sessions = 0
        self.talked_ms = 0

    async def run(self, until: float) -> None:
        """Run one session after the other until a time."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            async with connect(self._url, compression=None, ping_interval=None, open_timeout=60) as connection:
                await self._visit(connection)
            self.sessions += 1

    async def _visit(self, connection: ClientConnection) -> None:
        half = self._random.random() < 0.3
        hello = {"type": "hello", "v": 1, "maxAheadMs": 600_000, "tools": [{"name": "door", "timeoutMs": 1000}]}
        await connection.send(orjson.dumps(hello | {"duplex": "half" if half else "full"}), text=True)
        await self._until(connection, "ready")
        for _ in range(self._random.randint(1, 12)):
            await (self._typed_turn if half else self._turn)(connection)
        match self._random.randrange(3):
            case 0:
                await connection.send('{"type":"bye"}')
                await connection.wait_closed()
            case 1:
                connection.transport.abort()

    async def _typed_turn(self, connection: ClientConnection) -> None:
        """Take a typed turn on a half-duplex device, whose microphone is ignored during playback."""
        await connection.send(bytes(TURN_MS * 48))
        self.talked_ms += TURN_MS
        await connection.send('{"type":"text","text":"and what else?"}')
        await self._until(connection, "AIResponseEnd")

    async def _turn(self, connection: ClientConnection) -> None:
        for _ in range(TURN_MS // 100):
            await connection.send(b"\x01\x00" * 2400)
        self.talked_ms += TURN_MS
        match self._random.randrange(4):
            case 0:  # a barge-in, and an answer to it
                await connection.send(BARGE + bytes(4796))
                await self._until(connection, "AIResponseEnd")
                await connection.send(END + bytes(4796))
                await self._until(connection, "AIResponseEnd")
            case 1:  # a tool, answered or not
                await connection.send(CALL + b"d" + bytes(4795))
                call = await self._until(connection, "toolCall")
                if self._random.random() < 0.9:
                    result = {"type": "toolResult", "callId": call["callId"], "output": {"open": True}}
                    await connection.send(orjson.dumps(result), text=True)
                await self._until(connection, "AIResponseEnd")
            case 2:  # a typed turn
                await connection.send(END + bytes(4796))
                await self._until(connection, "AIResponseEnd")
                await connection.send('{"type":"text","text":"and what else?"}')
                await self._until(connection, "AIResponseEnd")
            case _:
                await connection.send(END + bytes(4796))
                await self._until(connection, "AIResponseEnd")

    async def _until(self, connection: ClientConnection, kind: str) -> dict[str, object]:
        async with asyncio.timeout(60):
            while True:
                message = await connection.recv()
                if isinstance(message, str):
                    fields: dict[str, object] = orjson.loads(message)
                    assert fields["type"] != "error", fields
                    if kind in (fields["type"], fields.get("name")):
                        return fields


async def soak(relay: RelayProcess, start: Resources, seconds: float, seed: int) -> tuple[list[Visitor], Resources]:
    """Run the visitors; returns them and the resources that remain afterwards."""
    until = asyncio.get_running_loop().time() + seconds
    visitors = [Visitor(relay.url, seed + number) for number in range(AT_ONCE)]
    await asyncio.gather(*(visitor.run(until) for visitor in visitors))
    return visitors, await relay.settled(start, 10.0)


@pytest.mark.long
async def test_two_hours_of_talk_leave_nothing_behind() -> None:
    """Ten minutes of wall-clock time (`RELAY_TEST_SOAK_S`): turns, barge-ins, tools, typed turns, reconnects."""
    async with fake_upstream() as upstream_url, relay_process(upstream_url) as relay:
        before = await relay.resources()
        visitors, first = await soak(relay, before, SOAK_S / 4, 1)
        holdings = [first]
        for quarter in range(1, 4):
            came, left = await soak(relay, before, SOAK_S / 4, 1 + quarter * AT_ONCE)
            visitors += came
            holdings.append(left)
    n_sessions, talked_s = sum(v.sessions for v in visitors), sum(v.talked_ms for v in visitors) / 1000
    print(f"{n_sessions} sessions, {talked_s / 60:.0f} min of talk; {before} → {holdings}")
    for holding in holdings:
        assert (holding.tasks, holding.sessions, holding.descriptors) == (before.tasks, 0, before.descriptors)
    assert holdings[-1].pss_kib - first.pss_kib <= GROWTH_KIB
    assert talked_s >= 12 * SOAK_S, "at least twelve times as fast as real time"
