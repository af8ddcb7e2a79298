"""A hostile client that sends one kind of input continuously, from its own process.

Run as a script, `attacker.py PORT SOCKET`, it reads lines of JSON {"name": …, "seconds": …} from its standard input and
answers each with {"n_inputs": n, "ends": {"1008": n, …}} when the time is up. SOCKET is the descriptor of a Unix socket
that passes it the connections of hostile upstreams.
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
"""The pause between two connections, and the time that an unfinished message stays open."""
_REALTIME = f"/v1/realtime?model={HOSTILE}"
_PATHS = {
    WayIn.DEVICE: "/?rate=24000",
    WayIn.REALTIME: _REALTIME,
    WayIn.UPSTREAM: _REALTIME,
    WayIn.UPSTREAM_VOICE: "/?rate=24000&voice=elevenlabs:voice-1",
}
_HELLO = {"type": "hello", "v": 1, "instructions": HOSTILE}


async def open_session(port: int, way_in: WayIn) -> RawClient:
    """Open a session with the hostile key and wait for its upstream. Raises ConnectionError if it is refused.

    Its upstream turns hostile, except for `WayIn.DEVICE`.
    """
    client = await RawClient.open(port)
    client.writer.transport.set_write_buffer_limits(high=0)  # `drain` waits until the kernel has all data
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
    """Read until the end of a WebSocket; returns its close code, or "reset"."""
    code = await client.close_code()
    return "reset" if code == 1006 else str(code)


# -- the process ------------------------------------------------------------------------------------------------------


class Attacker:
    """Sends one kind of input until the time is up."""

    def __init__(self, port: int, hostile_input: HostileInput, handover_socket: socket.socket) -> None:
        self._port = port
        self._input = hostile_input
        self._handover_socket = handover_socket
        self._payload = hostile_input.payload()
        self.n_inputs = 0
        self.ends: Counter[str] = Counter()

    async def attack(self, seconds: float) -> None:
        """Attack for some seconds."""
        with contextlib.suppress(BlockingIOError):
            while True:
                _receive_socket(self._handover_socket).close()  # from sessions that ended before their handover
        workers = [asyncio.create_task(self._repeat()) for _ in range(self._input.connections)]
        await asyncio.wait(workers, timeout=seconds)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _repeat(self) -> None:
        while True:
            try:
                self.ends[await self._connection()] += 1
            except (OSError, EOFError, TimeoutError) as error:
                self.ends[str(error) or type(error).__name__] += 1
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(self._input.pause_s)

    async def _connection(self) -> str:
        """Run one connection; returns how it ended."""
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
            await asyncio.sleep(PAUSE_S)  # the peer's response is in transit
            return "reset"

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.n_inputs += 1
        writer.write(data)
        await writer.drain()

    async def _receive(self) -> socket.socket:
        """Receive the connection of the hostile upstream."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._handover_socket, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._handover_socket)
        return _receive_socket(self._handover_socket)

    async def _flood_down(self, connection: socket.socket) -> str:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await loop.sock_sendall(connection, self._payload)
                self.n_inputs += 1
        except ConnectionError:
            await asyncio.sleep(PAUSE_S)
            return "reset"


def _receive_socket(handover_socket: socket.socket) -> socket.socket:
    _, [descriptor], _, _ = socket.recv_fds(handover_socket, 1, 1)
    return socket.socket(fileno=descriptor)


async def _ignore(connection: socket.socket) -> str:
    """Read and discard everything."""
    loop, buffer = asyncio.get_running_loop(), bytearray(1024 * 1024)
    with contextlib.suppress(ConnectionError):
        while await loop.sock_recv_into(connection, buffer):
            pass
    await asyncio.sleep(PAUSE_S)
    return "upstream closed"


async def _first(*awaitables: Awaitable[str]) -> str:
    """Return the result of the first one done, the earlier one if several are, and cancel the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(port: int, handover_socket: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    handover_socket.setblocking(False)
    inputs_by_name = {hostile_input.name: hostile_input for hostile_input in HOSTILE_INPUTS}
    attackers: dict[str, Attacker] = {}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        if command["name"] not in attackers:
            attackers[command["name"]] = Attacker(port, inputs_by_name[command["name"]], handover_socket)
        attacker = attackers[command["name"]]
        attacker.n_inputs, attacker.ends = 0, Counter()
        if command["seconds"]:
            await attacker.attack(command["seconds"])
        print(json.dumps({"n_inputs": attacker.n_inputs, "ends": attacker.ends}), flush=True)


# -- the test process -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attack: the inputs sent, and how connections ended."""

    n_inputs: int
    ends: dict[str, int]


class AttackerProcess:
    """The hostile client's process, as the test sees it."""

    def __init__(self, process: asyncio.subprocess.Process, handover_peer: socket.socket) -> None:
        self._process = process
        self._handover_peer = handover_peer

    async def attack(self, hostile_input: HostileInput, seconds: float) -> Outcome:
        """Attack for some seconds; 0 only prepares it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"name": hostile_input.name, "seconds": seconds}).encode() + b"\n")
        return Outcome(**json.loads(await self._process.stdout.readline()))

    async def take_over(self, connection: ServerConnection) -> None:
        """Pass an upstream's connection to the process; this process does not use it any more."""
        connection.transport.pause_reading()
        sock = connection.transport.get_extra_info("socket")
        socket.send_fds(self._handover_peer, [b"x"], [sock.fileno()])
        connection.transport.abort()  # closes only the descriptor of this process


@asynccontextmanager
async def attacker_process(
    port: int, handover_peer: socket.socket, handover_socket: socket.socket
) -> AsyncIterator[AttackerProcess]:
    """Start the process; the two sockets are a connected pair."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.chaos.attacker", str(port), str(handover_socket.fileno())),
        cwd=Path(__file__).parents[2],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        pass_fds=[handover_socket.fileno()],
    )
    try:
        yield AttackerProcess(process, handover_peer)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    raw_websocket.TIMEOUT_S = 3600.0  # no time limit
    os.nice(10)  # only its effect on the relay matters, not that on the machine
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))))
