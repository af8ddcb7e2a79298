"""`relay replay --as-upstream`: the recorded model, served to any client of the Realtime protocol.

It says what it said, when the client has done what the client did then: sent as much audio before it hears speech, the
same call's output before it goes on. Where the client does something else, it says so, and goes on as recorded.
"""

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path
from typing import Self

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed

from relay.recording.replay.recorded_model import ReplayConnection, Report, steps
from relay.recording.store.layout import RecordingError
from relay.recording.store.reader import Recording

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


def parse_speed(text: str) -> float | None:
    """1, another factor, or max (None). Raises RecordingError."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.01 <= speed <= 1000:
        raise RecordingError(f"--speed {text!r:.20}: give a factor from 0.01 to 1000, or max")
    return speed


class ReplayServer:
    """A Realtime endpoint on a loopback port; each connection gets the recording from its beginning."""

    def __init__(self, folder: Path, port: int, speed: float | None, report: Report) -> None:
        self.connections: list[ReplayConnection] = []
        self._recording = Recording(folder)
        self._port = port
        self._speed = speed
        self._report = report
        self._server: Server | None = None
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None, "enter the context first"
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}/v1/realtime"

    async def __aenter__(self) -> Self:
        self._server = await serve_websocket(
            self._serve, "127.0.0.1", self._port, compression=None, max_size=MAX_MESSAGE_BYTES
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, connection: ServerConnection) -> None:
        number = next(self._numbers)
        self._report(f"client {number} is here")
        performance = ReplayConnection(
            self._recording, self._speed, lambda line: self._report(f"client {number} {line}"), connection.send
        )
        self.connections = [*self.connections[-15:], performance]
        reading = asyncio.create_task(_read(connection, performance))
        try:
            closed = await performance.run()
            self._report(f"client {number}: the recording is over")
            if closed is not None:
                await connection.close(1011 if closed.code in (1005, 1006, 1015) else closed.code)
            await reading
        except ConnectionClosed:
            pass  # the client left in the middle
        except RecordingError as error:
            self._report(str(error))
        finally:
            reading.cancel()
            self._report(f"client {number} is gone; it departed {len(performance.divergences)} times")


async def _read(connection: ServerConnection, performance: ReplayConnection) -> None:
    with suppress(ConnectionClosed):
        async for message in connection:
            await performance.on_message(message)
    await performance.on_disconnect()


async def serve(folder: Path, port: int, speed: float | None, report: Report) -> None:
    """Serve until interrupted. Raises RecordingError, OSError."""
    for _ in steps(Recording(folder)):
        pass  # what is wrong with it is better told now than to the first client
    async with ReplayServer(folder, port, speed, report) as upstream:
        report(f"ready: {folder.name} answers at {upstream.url}; RELAY_UPSTREAM={upstream.url} relay serve talks to it")
        await asyncio.Event().wait()
