"""Device clients that do everything they should not. Run as a script: `hostile.py PORT WORKERS SECONDS`.

Each worker misbehaves in one way after the other, again and again with new connections, until the time is up; what the
relay made of it goes to standard output as JSON: {"way": {"connections": n, "ends": {"1002": n, …}}}.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.chaos.upstream import CALL, LOTS
from tests.support import raw_websocket
from tests.support.raw_websocket import RawClient, binary, continuation, masked, ping, pong, text, upgrade_request

DOOR = {"type": "hello", "v": 1, "tools": [{"name": "door", "timeoutMs": 500}]}
PAUSE_S = 0.25
"""Between two connections: twice as many as one address may open in the long run (120 a minute)."""
SPEECH = b"\x01\x00" * 2400


class HostileClient:
    """One connection on which every byte is the enemy's own."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.transport = client.writer.transport
        self._spoken_to = asyncio.Event()

    async def flood(self, chunk: bytes) -> None:
        """Send without end, as fast as it is taken."""
        chunk *= max(1, 16_384 // len(chunk))
        while True:
            self.client.writer.write(chunk)
            await self.client.writer.drain()

    async def drip(self, data: bytes) -> None:
        """Send one byte a second."""
        for byte in data:
            self.client.writer.write(bytes([byte]))
            await self.client.writer.drain()
            await asyncio.sleep(1)

    def send_json(self, *messages: object) -> None:
        self.client.send(*(text(json.dumps(message)) for message in messages))

    async def ready(self) -> None:
        """Wait until the relay has something to say, which is that the model is there."""
        await self._spoken_to.wait()

    async def listen(self) -> str:
        """Read until the end; its close code, "reset" or "eof"."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                opcode, payload = await self.client.frame()
                self._spoken_to.set()
                if opcode == 8:
                    return str(int.from_bytes(payload[:2])) if payload else "eof"
        return "reset"

    def reset(self) -> None:
        """End the connection with a RST."""
        line = self.transport.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


AttackBehavior = Callable[[HostileClient], Awaitable[None]]


def flooding(chunk: bytes) -> AttackBehavior:
    return lambda enemy: enemy.flood(chunk)


def sending(*frames: bytes) -> AttackBehavior:
    """Send once, then listen to what the relay says to it."""

    async def send(enemy: HostileClient) -> None:
        enemy.client.send(*frames)
        await asyncio.Event().wait()

    return send


async def does_not_read(enemy: HostileClient) -> None:
    """Ask for more sound at once than may wait, go on talking, and take none of it."""
    enemy.send_json({"type": "hello", "v": 1, "maxAheadMs": None})
    enemy.transport.pause_reading()
    enemy.client.send(binary(LOTS + SPEECH))
    while True:
        enemy.client.send(binary(SPEECH))
        await asyncio.sleep(0.1)


async def reads_a_drip(enemy: HostileClient) -> None:
    """The same, with a client that takes a little now and then."""
    enemy.send_json({"type": "hello", "v": 1, "maxAheadMs": None})
    enemy.client.send(binary(LOTS + SPEECH))
    while True:
        enemy.transport.pause_reading()
        await asyncio.sleep(0.5)
        enemy.transport.resume_reading()
        await asyncio.sleep(0)


async def half_open(enemy: HostileClient) -> None:
    """Be there for the kernel alone."""
    enemy.transport.pause_reading()
    await asyncio.Event().wait()


async def vanishes(enemy: HostileClient) -> None:
    """Leave in the middle of a message."""
    await enemy.ready()
    enemy.client.writer.write(masked(binary(bytes(60_000)))[:1000])
    await enemy.client.writer.drain()
    enemy.transport.abort()


async def resets(enemy: HostileClient) -> None:
    await enemy.ready()
    enemy.client.send(binary(SPEECH))
    enemy.reset()


async def storms_hellos(enemy: HostileClient) -> None:
    number = 0
    while True:
        number += 1
        enemy.send_json({"type": "hello", "v": 1, "voice": f"voice_{number}", **DOOR})
        await enemy.client.writer.drain()
        await asyncio.sleep(0)


async def never_answers(enemy: HostileClient) -> None:
    """Bring a tool, have it called, and say nothing."""
    enemy.send_json(DOOR)
    await enemy.ready()
    while True:
        enemy.client.send(binary(CALL + b"d" + SPEECH))
        await asyncio.sleep(0.1)


async def answers_wrongly(enemy: HostileClient) -> None:
    await enemy.ready()
    while True:
        enemy.send_json({"type": "toolResult", "callId": f"call_{os.urandom(4).hex()}", "output": 1})
        await asyncio.sleep(0.02)


async def drips(enemy: HostileClient) -> None:
    await enemy.drip(masked(text(json.dumps({"type": "clear"}))) * 100)


ATTACKS: dict[str, tuple[AttackBehavior, set[str]]] = {
    "does not read": (does_not_read, {"cut"}),
    "reads a drip": (reads_a_drip, {"cut"}),
    "half open": (half_open, {"cut"}),
    "audio": (flooding(masked(binary(bytes(60_000)))), {"cut"}),
    "tiny frames": (flooding(masked(binary(b"x"))), {"cut"}),
    "messages": (flooding(masked(text('{"type":"clear"}'))), {"cut", "1008"}),
    "pings": (flooding(masked(ping(bytes(8)))), {"cut"}),
    "pongs": (flooding(masked(pong())), {"cut"}),
    "fragments": (
        flooding(
            masked(binary(b"x", fin=False)) + masked(continuation(b"y", fin=False)) * 4000 + masked(continuation(b"z"))
        ),
        {"cut"},
    ),
    "a drip": (drips, {"cut"}),
    "bad JSON": (flooding(masked(text("{"))), {"1008"}),
    "bad UTF-8": (sending(masked(text(b"\xff\xfe"))), {"1007"}),
    "reserved bits": (sending(masked(text("{}", rsv1=True))), {"1002"}),
    "oversized": (sending(masked(binary(bytes(70_000)))), {"1009"}),
    "a length of exabytes": (sending(b"\x82\xff" + (2**62).to_bytes(8) + bytes(4)), {"1009"}),
    "unmasked": (sending(binary(b"xx").serialize(mask=False)), {"1002"}),
    "vanishes": (vanishes, {"left"}),
    "resets": (resets, {"left"}),
    "never answers": (never_answers, {"cut"}),
    "answers wrongly": (answers_wrongly, {"1008"}),
    "hellos": (storms_hellos, {"cut", "1008"}),
}
"""What they do, and how it ends: with a close code, because the client has left, or "cut" when its time is up."""
BEFORE_THE_HANDSHAKE = ("drips a head", "leaves during the head", "is refused")


async def misbehave(name: str, port: int, until: float) -> str:
    """One connection; how it ended."""
    loop = asyncio.get_running_loop()
    client = await RawClient.open(port)
    enemy = HostileClient(client)
    try:
        if name in BEFORE_THE_HANDSHAKE:
            return await _before_the_handshake(name, enemy, until)
        client.writer.write(upgrade_request("/?rate=24000"))
        head = await client.head()
        if not head.startswith(b"HTTP/1.1 101 "):
            return head[9:12].decode()
        way = asyncio.ensure_future(ATTACKS[name][0](enemy))
        listening = asyncio.ensure_future(enemy.listen())
        await asyncio.wait({way, listening}, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        if way.done() and way.exception() is not None and not listening.done():
            await asyncio.wait({listening}, timeout=1)  # what could not be sent any more: the answer is on its way
        ended = listening.result() if listening.done() else "left" if way.done() else "cut"
        for task in (way, listening):
            task.cancel()
        await asyncio.gather(way, listening, return_exceptions=True)
        return "left" if name in ("vanishes", "resets") else ended
    finally:
        client.writer.transport.abort()


async def _before_the_handshake(name: str, enemy: HostileClient, until: float) -> str:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout_at(until):
            if name == "drips a head":
                await enemy.drip(upgrade_request("/"))
            elif name == "leaves during the head":
                enemy.client.writer.write(upgrade_request("/")[:50])
                await asyncio.sleep(min(0.05, until - loop.time()))
                enemy.reset()
            else:
                enemy.client.writer.write(upgrade_request("/", Sec_WebSocket_Version="12"))
                await enemy.client.head()
                await asyncio.sleep(0.05)
    return "head"


async def work(names: list[str], port: int, seconds: float, seen: dict[str, Counter[str]]) -> None:
    """Misbehave in each way for an equal part of the time."""
    loop = asyncio.get_running_loop()
    for name in names:
        until = loop.time() + seconds / len(names)
        while loop.time() < until - 0.05:
            try:
                seen.setdefault(name, Counter())[await misbehave(name, port, until)] += 1
            except (OSError, EOFError, TimeoutError) as error:
                seen.setdefault(name, Counter())[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_S)


async def main(port: int, n_workers: int, seconds: float) -> dict[str, dict[str, int]]:
    ways = [*ATTACKS, *BEFORE_THE_HANDSHAKE]
    seen: dict[str, Counter[str]] = {}
    await asyncio.gather(*(work(ways[n::n_workers], port, seconds, seen) for n in range(n_workers)))
    return {name: dict(ends) for name, ends in seen.items()}


class Attack:
    """The same from a process of its own, which gets what the others leave of the processors."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def begin(cls, port: int, n_workers: int, seconds: float) -> "Attack":
        """Returns when it has begun."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.chaos.hostile", str(port), str(n_workers), str(seconds)),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"here we come\n"
        return cls(process)

    async def end(self) -> dict[str, dict[str, int]]:
        """Wait for its end; what became of each way."""
        out, _ = await self._process.communicate()
        assert self._process.returncode == 0
        told: dict[str, dict[str, int]] = json.loads(out)
        return told


if __name__ == "__main__":
    raw_websocket.TIMEOUT_S = 3600.0  # they have time
    os.nice(10)  # what they do to the relay is the question, not what they do to the machine
    given = sys.argv[1:]
    print("here we come", flush=True)
    print(json.dumps(asyncio.run(main(int(given[0]), int(given[1]), float(given[2])))))
