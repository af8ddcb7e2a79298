"""`relay replay --as-upstream`: serve a recorded upstream to any client of the Realtime protocol.

Each recorded event is sent when the client has done what the recorded one did: sent as much audio before speech starts,
or the output of the same tool call. A divergence of the client is reported, and the replay continues as recorded.
"""

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path
from typing import Self

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed

from relay.recording.live_replay.replay_connection import ReplayConnection, Report, replay_steps
from relay.recording.store.layout import RecordingError
from relay.recording.store.reader import Recording

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


def parse_speed(text: str) -> float | None:
    """Parse `--speed`: a factor, or max (None). Raises RecordingError."""
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.01 <= speed <= 1000:
        raise RecordingError(f"--speed {text!r:.20} must be a factor from 0.01 to 1000, or max")
    return speed


class ReplayServer:
    """A Realtime endpoint on a loopback port; each connection replays the recording from its beginning."""

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
        """The URL of the endpoint."""
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
        self._report(f"client {number}: connected")
        replay = ReplayConnection(
            self._recording, self._speed, lambda line: self._report(f"client {number}: {line}"), connection.send
        )
        self.connections = [*self.connections[-15:], replay]
        reader = asyncio.create_task(_read(connection, replay))
        try:
            upstream_closed = await replay.run()
            self._report(f"client {number}: end of the recording")
            if upstream_closed is not None:
                await connection.close(1011 if upstream_closed.code in (1005, 1006, 1015) else upstream_closed.code)
            await reader
        except ConnectionClosed:
            pass  # the client disconnected early
        except RecordingError as error:
            self._report(str(error))
        finally:
            reader.cancel()
            self._report(f"client {number}: disconnected, divergences={len(replay.divergences)}")


async def _read(connection: ServerConnection, replay: ReplayConnection) -> None:
    with suppress(ConnectionClosed):
        async for message in connection:
            await replay.on_message(message)
    await replay.on_disconnect()


async def serve(folder: Path, port: int, speed: float | None, report: Report) -> None:
    """Serve until interrupted. Raises RecordingError, OSError."""
    for _ in replay_steps(Recording(folder)):
        pass  # report a defect now, not to the first client
    async with ReplayServer(folder, port, speed, report) as upstream:
        report(f"ready: {folder.name} at {upstream.url}; for a relay: RELAY_UPSTREAM={upstream.url} relay serve")
        await asyncio.Event().wait()
