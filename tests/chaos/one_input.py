"""One hostile input to a relay in a process of its own, and what that relay computes for it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.chaos.inputs import HONEST_KEY, HOSTILE_KEY, WayIn
from tests.chaos.one_hostile import open_session
from tests.chaos.relay_process import RelayProcess, WorkSample, relay_process
from tests.chaos.upstream import HostileUpstreamSession, fake_upstream
from tests.support.raw_websocket import TIMEOUT_S, RawClient

LOOK_EVERY_S = 0.001
TAKEN_S = 1.0
"""How long a relay has to take an input; of one that it slows down, the beginning is what is measured."""

SETTINGS = {
    "RELAY_API_KEYS": f"{HONEST_KEY},{HOSTILE_KEY}",
    "RELAY_TOOLS": "tools",
    "ELEVENLABS_API_KEY": "xi_test_key",
}


@dataclass
class MeasuredRelay:
    """A relay, and those of its sessions' upstreams that do as they are told."""

    relay: RelayProcess
    turned: asyncio.Queue[ServerConnection] = field(default_factory=asyncio.Queue)

    async def work_for(self, way_in: WayIn, payload: bytes) -> WorkSample:
        """What the relay computes for one input."""
        async with self.sending_end(way_in) as writer:
            await self.relay.quiet()
            await send(writer, payload)
            work = await self.relay.quiet()
        await self.relay.quiet()
        return work

    @asynccontextmanager
    async def sending_end(self, way_in: WayIn) -> AsyncIterator["Writer"]:
        """A new connection or session, and who sends in it."""
        if way_in is WayIn.HTTP:
            client = await RawClient.open(self.relay.port)
        else:
            client = await open_session(self.relay.port, way_in)
        reading = asyncio.create_task(_read(client.reader))
        try:
            if way_in in (WayIn.HTTP, WayIn.DEVICE):
                yield client.writer
            else:
                async with asyncio.timeout(TIMEOUT_S):
                    upstream = await self.turned.get()
                yield client.writer if way_in is WayIn.REALTIME else UpstreamWriter(upstream)
        finally:
            client.writer.transport.abort()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class UpstreamWriter:
    """An upstream's connection, written to as a stream."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        connection.transport.set_write_buffer_limits(high=0)

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._connection.transport.write(data)

    async def drain(self) -> None:
        """Wait until the kernel has them."""
        await self._connection.drain()


Writer = asyncio.StreamWriter | UpstreamWriter


async def send(writer: Writer, payload: bytes) -> None:
    """Send bytes; returns when the kernel has them, the other end has hung up, or enough time has passed."""
    writer.write(payload)
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(TAKEN_S):
            await writer.drain()


async def _read(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(1024 * 1024):
            pass


@asynccontextmanager
async def fake_tts() -> AsyncIterator[str]:
    """An external voice that listens and says nothing; its HTTP address."""

    async def listen(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for _ in connection:
                pass

    async with serve(listen, "127.0.0.1", 0, max_size=None, compression=None, ping_interval=None) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@asynccontextmanager
async def measured_relay(log_path: Path, **settings: str) -> AsyncIterator[MeasuredRelay]:
    """A relay that looks at its clock every millisecond, and writes its log to a file."""
    turned: asyncio.Queue[ServerConnection] = asyncio.Queue()
    with log_path.open("wb") as log:
        async with (
            fake_tts() as voices,
            fake_upstream(lambda connection: HostileUpstreamSession(connection, turned.put)) as upstream_url,
            relay_process(
                upstream_url,
                look_every_s=LOOK_EVERY_S,
                log=log,
                **SETTINGS,
                ELEVENLABS_BASE_URL=voices,
                **settings,
            ) as relay,
        ):
            yield MeasuredRelay(relay, turned)
