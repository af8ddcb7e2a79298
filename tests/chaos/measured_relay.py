"""A relay in its own process, and the measurement of its work for one hostile input."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.chaos.attacker import open_session
from tests.chaos.inputs import HONEST_KEY, HOSTILE_KEY, WayIn
from tests.chaos.relay_process import RelayProcess, WorkSample, relay_process
from tests.chaos.upstream import HostileUpstreamSession, fake_upstream
from tests.support.raw_websocket import TIMEOUT_S, RawClient

LOOK_EVERY_S = 0.001
READ_TIMEOUT_S = 1.0
"""How long a relay may take to read an input; of a throttled input only the beginning is measured."""

SETTINGS = {
    "RELAY_API_KEYS": f"{HONEST_KEY},{HOSTILE_KEY}",
    "RELAY_TOOLS": "tools",
    "ELEVENLABS_API_KEY": "xi_test_key",
}


@dataclass
class MeasuredRelay:
    """A relay, and the upstream connections of its sessions that are driven by the test."""

    relay: RelayProcess
    hostile_connections: asyncio.Queue[ServerConnection] = field(default_factory=asyncio.Queue)

    async def work_for(self, way_in: WayIn, payload: bytes) -> WorkSample:
        """Return the relay's work for one input."""
        async with self.open_writer(way_in) as writer:
            await self.relay.quiet()
            await send(writer, payload)
            work = await self.relay.quiet()
        await self.relay.quiet()
        return work

    @asynccontextmanager
    async def open_writer(self, way_in: WayIn) -> AsyncIterator["Writer"]:
        """Open a connection or a session; yields the writer that sends the input."""
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
                    upstream = await self.hostile_connections.get()
                yield client.writer if way_in is WayIn.REALTIME else UpstreamWriter(upstream)
        finally:
            client.writer.transport.abort()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


class UpstreamWriter:
    """An upstream's connection with the interface of a StreamWriter."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        connection.transport.set_write_buffer_limits(high=0)

    def write(self, data: bytes) -> None:
        """Write raw bytes."""
        self._connection.transport.write(data)

    async def drain(self) -> None:
        """Wait until the kernel has all data."""
        await self._connection.drain()


Writer = asyncio.StreamWriter | UpstreamWriter


async def send(writer: Writer, payload: bytes) -> None:
    """Send bytes; returns when the kernel has them, the peer has disconnected, or after READ_TIMEOUT_S."""
    writer.write(payload)
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(READ_TIMEOUT_S):
            await writer.drain()


async def _read(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(1024 * 1024):
            pass


@asynccontextmanager
async def fake_tts() -> AsyncIterator[str]:
    """Run a silent external TTS service; yields its HTTP URL."""

    async def listen(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for _ in connection:
                pass

    async with serve(listen, "127.0.0.1", 0, max_size=None, compression=None, ping_interval=None) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@asynccontextmanager
async def measured_relay(log_path: Path, **settings: str) -> AsyncIterator[MeasuredRelay]:
    """Run a relay that measures its loop delays every millisecond, and logs to a file."""
    hostile_connections: asyncio.Queue[ServerConnection] = asyncio.Queue()
    with log_path.open("wb") as log:
        async with (
            fake_tts() as voices,
            fake_upstream(
                lambda connection: HostileUpstreamSession(connection, hostile_connections.put)
            ) as upstream_url,
            relay_process(
                upstream_url,
                look_every_s=LOOK_EVERY_S,
                log=log,
                **SETTINGS,
                ELEVENLABS_BASE_URL=voices,
                **settings,
            ) as relay,
        ):
            yield MeasuredRelay(relay, hostile_connections)
