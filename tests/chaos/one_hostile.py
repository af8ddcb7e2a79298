"""One hostile client that sends one kind of input without end, from a process of its own.

Run as a script, `one_hostile.py PORT SOCKET`, it reads lines of JSON {"name": …, "seconds": …} from its standard input
and answers each with {"n_inputs": n, "ends": {"1008": n, …}} when the time is up. SOCKET is the descriptor of a Unix
socket, over which it is handed the connections of upstreams that turn hostile.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.server import ServerConnection

from tests.chaos.inputs import HOSTILE_INPUTS, HOSTILE_KEY, HostileInput, WayIn
from tests.chaos.upstream import HOSTILE
from tests.support import raw_websocket
from tests.support.raw_websocket import RawClient, text

CLOSE = 8
PAUSE_S = 0.1
"""Between two connections, and how long an unfinished message stays."""
_REALTIME = f"/v1/realtime?model={HOSTILE}"
_PATHS = {
    WayIn.DEVICE: "/?rate=24000",
    WayIn.REALTIME: _REALTIME,
    WayIn.UPSTREAM: _REALTIME,
    WayIn.UPSTREAM_VOICE: "/?rate=24000&voice=elevenlabs:voice-1",
}
_HELLO = {"type": "hello", "v": 1, "instructions": HOSTILE}


async def open_session(port: int, way_in: WayIn) -> RawClient:
    """A session of the hostile key whose model is there. Raises ConnectionError if it is refused.

    But for an ordinary device's, its model's end turns hostile.
    """
    client = await RawClient.open(port)
    client.writer.transport.set_write_buffer_limits(high=0)  # what is drained is the kernel's
    head = await client.upgrade(path=_PATHS[way_in], Authorization=f"Bearer {HOSTILE_KEY}")
    if not head.startswith(b"HTTP/1.1 101 "):
        client.writer.transport.abort()
        raise ConnectionError(head[9:12].decode())
    opcode, payload = await client.frame()
    if opcode == CLOSE:
        client.writer.transport.abort()
        raise ConnectionError(f"closed with {int.from_bytes(payload[:2])}")
    if way_in is WayIn.UPSTREAM_VOICE:
        client.send(text(json.dumps(_HELLO)))
    return client


async def end_of(client: RawClient) -> str:
    """Read until the end of a WebSocket: its close code, or "reset"."""
    code = await client.close_code()
    return "reset" if code == 1006 else str(code)


# -- the process ------------------------------------------------------------------------------------------------------


class Attacker:
    """Sends one kind of input until the time is up."""

    def __init__(self, port: int, given: HostileInput, handed: socket.socket) -> None:
        self._port = port
        self._input = given
        self._handed = handed
        self._payload = given.payload()
        self.n_inputs = 0
        self.ends: Counter[str] = Counter()

    async def attack(self, seconds: float) -> None:
        """Do it for so long."""
        with contextlib.suppress(BlockingIOError):
            while True:
                _handed_over(self._handed).close()  # of sessions that ended before they were handed over
        workers = [asyncio.create_task(self._again_and_again()) for _ in range(self._input.connections)]
        await asyncio.wait(workers, timeout=seconds)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _again_and_again(self) -> None:
        while True:
            try:
                self.ends[await self._connection()] += 1
            except (OSError, EOFError, TimeoutError) as error:
                self.ends[str(error) or type(error).__name__] += 1
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(self._input.pause_s)

    async def _connection(self) -> str:
        """One connection; how it ended."""
        if self._input.way_in is WayIn.HTTP:
            return await self._request()
        client = await open_session(self._port, self._input.way_in)
        try:
            if self._input.way_in is WayIn.DEVICE:
                return await _first(end_of(client), self._flood(client.writer))
            with await self._receive() as upstream:
                if self._input.way_in is WayIn.REALTIME:
                    return await _first(end_of(client), self._flood(client.writer), _ignore(upstream))
                return await _first(end_of(client), self._flood_down(upstream), _ignore(upstream))
        finally:
            client.writer.transport.abort()

    async def _request(self) -> str:
        client = await RawClient.open(self._port)
        try:
            await self._send(client.writer, self._payload)
            while self._input.repeats:
                await self._send(client.writer, self._input.repeats)
            head = await client.reader.read(1000) if self._payload else b""
            return head[9:12].decode() or "closed"
        finally:
            client.writer.transport.abort()

    async def _flood(self, writer: asyncio.StreamWriter) -> str:
        try:
            while True:
                await self._send(writer, self._payload)
                if self._input.once:
                    await asyncio.sleep(PAUSE_S)
                    return "left"
        except ConnectionError:
            await asyncio.sleep(PAUSE_S)  # what the other end says of it is on its way
            return "reset"

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.n_inputs += 1
        writer.write(data)
        await writer.drain()

    async def _receive(self) -> socket.socket:
        """The connection that the model's end hands over."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._handed, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._handed)
        return _handed_over(self._handed)

    async def _flood_down(self, connection: socket.socket) -> str:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await loop.sock_sendall(connection, self._payload)
                self.n_inputs += 1
        except ConnectionError:
            await asyncio.sleep(PAUSE_S)
            return "reset"


def _handed_over(handed: socket.socket) -> socket.socket:
    _, [descriptor], _, _ = socket.recv_fds(handed, 1, 1)
    return socket.socket(fileno=descriptor)


async def _ignore(connection: socket.socket) -> str:
    """Read what comes, and make nothing of it."""
    loop, buffer = asyncio.get_running_loop(), bytearray(1024 * 1024)
    with contextlib.suppress(ConnectionError):
        while await loop.sock_recv_into(connection, buffer):
            pass
    await asyncio.sleep(PAUSE_S)
    return "upstream closed"


async def _first(*ways: Awaitable[str]) -> str:
    """The result of whichever is done first, and the others' end; the earlier one's if several are."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(port: int, handed: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    handed.setblocking(False)
    known = {one.name: one for one in HOSTILE_INPUTS}
    attackers: dict[str, Attacker] = {}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        if asked["name"] not in attackers:
            attackers[asked["name"]] = Attacker(port, known[asked["name"]], handed)
        attacker = attackers[asked["name"]]
        attacker.n_inputs, attacker.ends = 0, Counter()
        if asked["seconds"]:
            await attacker.attack(asked["seconds"])
        print(json.dumps({"n_inputs": attacker.n_inputs, "ends": attacker.ends}), flush=True)


# -- the test's end of it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of an attack."""

    n_inputs: int
    ends: dict[str, int]


class OneHostile:
    """The hostile client's process, seen from the test."""

    def __init__(self, process: asyncio.subprocess.Process, handing: socket.socket) -> None:
        self._process = process
        self._handing = handing

    async def attack(self, given: HostileInput, seconds: float) -> Outcome:
        """Do it for so long; 0 makes ready for it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"name": given.name, "seconds": seconds}).encode() + b"\n")
        return Outcome(**json.loads(await self._process.stdout.readline()))

    async def take_over(self, connection: ServerConnection) -> None:
        """Hand the connection of an upstream over, of which nothing more is read or written here."""
        connection.transport.pause_reading()
        line = connection.transport.get_extra_info("socket")
        socket.send_fds(self._handing, [b"x"], [line.fileno()])
        connection.transport.abort()  # closes this process's descriptor alone


@asynccontextmanager
async def one_hostile(port: int, handing: socket.socket, handed: socket.socket) -> AsyncIterator[OneHostile]:
    """The process; the two sockets are the ends of a pair."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.chaos.one_hostile", str(port), str(handed.fileno())),
        cwd=Path(__file__).parents[2],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=[handed.fileno()],
    )
    try:
        yield OneHostile(process, handing)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    raw_websocket.TIMEOUT_S = 3600.0  # it has time
    os.nice(10)  # what it does to the relay is the question, not what it does to the machine
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))))
