"""Hostile device clients. Run as a script: `hostile.py PORT WORKERS SECONDS`.

Each worker runs one attack after the other, repeatedly on new connections, until the time is up. It prints how the
connections ended as JSON: {"attack": {"1002": n, …}}.
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
"""The pause between two connections: twice the rate allowed for one address (120 a minute)."""
SPEECH = b"\x01\x00" * 2400


class HostileClient:
    """One connection on which the client controls every byte."""

    def __init__(self, client: RawClient) -> None:
        self.client = client
        self.transport = client.writer.transport
        self._received = asyncio.Event()

    async def flood(self, chunk: bytes) -> None:
        """Send endlessly, as fast as the relay reads."""
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
        """Wait for the relay's first message: the upstream is connected."""
        await self._received.wait()

    async def listen(self) -> str:
        """Read until the end; returns the close code, "reset" or "eof"."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                opcode, payload = await self.client.frame()
                self._received.set()
                if opcode == 8:
                    return str(int.from_bytes(payload[:2])) if payload else "eof"
        return "reset"

    def reset(self) -> None:
        """End the connection with a TCP RST."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


AttackBehavior = Callable[[HostileClient], Awaitable[None]]


def flooding(chunk: bytes) -> AttackBehavior:
    return lambda hostile: hostile.flood(chunk)


def sending(*frames: bytes) -> AttackBehavior:
    """Send once, then wait for the reaction."""

    async def send(hostile: HostileClient) -> None:
        hostile.client.send(*frames)
        await asyncio.Event().wait()

    return send


async def does_not_read(hostile: HostileClient) -> None:
    """Request more audio than may be queued, keep talking, and read nothing."""
    hostile.send_json({"type": "hello", "v": 1, "maxAheadMs": None})
    hostile.transport.pause_reading()
    hostile.client.send(binary(LOTS + SPEECH))
    while True:
        hostile.client.send(binary(SPEECH))
        await asyncio.sleep(0.1)


async def reads_a_drip(hostile: HostileClient) -> None:
    """The same, but read a little now and then."""
    hostile.send_json({"type": "hello", "v": 1, "maxAheadMs": None})
    hostile.client.send(binary(LOTS + SPEECH))
    while True:
        hostile.transport.pause_reading()
        await asyncio.sleep(0.5)
        hostile.transport.resume_reading()
        await asyncio.sleep(0)


async def half_open(hostile: HostileClient) -> None:
    """Keep the connection open without reading or writing."""
    hostile.transport.pause_reading()
    await asyncio.Event().wait()


async def vanishes(hostile: HostileClient) -> None:
    """Abort in the middle of a message."""
    await hostile.ready()
    hostile.client.writer.write(masked(binary(bytes(60_000)))[:1000])
    await hostile.client.writer.drain()
    hostile.transport.abort()


async def resets(hostile: HostileClient) -> None:
    await hostile.ready()
    hostile.client.send(binary(SPEECH))
    hostile.reset()


async def storms_hellos(hostile: HostileClient) -> None:
    number = 0
    while True:
        number += 1
        hostile.send_json({"type": "hello", "v": 1, "voice": f"voice_{number}", **DOOR})
        await hostile.client.writer.drain()
        await asyncio.sleep(0)


async def never_answers(hostile: HostileClient) -> None:
    """Register a tool, cause calls to it, and never answer."""
    hostile.send_json(DOOR)
    await hostile.ready()
    while True:
        hostile.client.send(binary(CALL + b"d" + SPEECH))
        await asyncio.sleep(0.1)


async def answers_wrongly(hostile: HostileClient) -> None:
    await hostile.ready()
    while True:
        hostile.send_json({"type": "toolResult", "callId": f"call_{os.urandom(4).hex()}", "output": 1})
        await asyncio.sleep(0.02)


async def drips(hostile: HostileClient) -> None:
    await hostile.drip(masked(text(json.dumps({"type": "clear"}))) * 100)


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
"""The attacks and their possible ends: a close code, "left" by the client itself, or "cut" when the time is up."""
BEFORE_THE_HANDSHAKE = ("drips a head", "leaves during the head", "is refused")


async def attack_once(name: str, port: int, until: float) -> str:
    """Run one connection; returns how it ended."""
    loop = asyncio.get_running_loop()
    client = await RawClient.open(port)
    hostile = HostileClient(client)
    try:
        if name in BEFORE_THE_HANDSHAKE:
            return await _before_the_handshake(name, hostile, until)
        client.writer.write(upgrade_request("/?rate=24000"))
        head = await client.head()
        if not head.startswith(b"HTTP/1.1 101 "):
            return head[9:12].decode()
        attack = asyncio.ensure_future(ATTACKS[name][0](hostile))
        listening = asyncio.ensure_future(hostile.listen())
        await asyncio.wait({attack, listening}, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        if attack.done() and attack.exception() is not None and not listening.done():
            await asyncio.wait({listening}, timeout=1)  # sending failed: the relay's answer is in transit
        ended = listening.result() if listening.done() else "left" if attack.done() else "cut"
        for task in (attack, listening):
            task.cancel()
        await asyncio.gather(attack, listening, return_exceptions=True)
        return "left" if name in ("vanishes", "resets") else ended
    finally:
        client.writer.transport.abort()


async def _before_the_handshake(name: str, hostile: HostileClient, until: float) -> str:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout_at(until):
            if name == "drips a head":
                await hostile.drip(upgrade_request("/"))
            elif name == "leaves during the head":
                hostile.client.writer.write(upgrade_request("/")[:50])
                await asyncio.sleep(min(0.05, until - loop.time()))
                hostile.reset()
            else:
                hostile.client.writer.write(upgrade_request("/", Sec_WebSocket_Version="12"))
                await hostile.client.head()
                await asyncio.sleep(0.05)
    return "head"


async def work(names: list[str], port: int, seconds: float, ends: dict[str, Counter[str]]) -> None:
    """Run each attack for an equal part of the time."""
    loop = asyncio.get_running_loop()
    for name in names:
        until = loop.time() + seconds / len(names)
        while loop.time() < until - 0.05:
            try:
                ends.setdefault(name, Counter())[await attack_once(name, port, until)] += 1
            except (OSError, EOFError, TimeoutError) as error:
                ends.setdefault(name, Counter())[type(error).__name__] += 1
            await asyncio.sleep(PAUSE_S)


async def main(port: int, n_workers: int, seconds: float) -> dict[str, dict[str, int]]:
    attacks = [*ATTACKS, *BEFORE_THE_HANDSHAKE]
    ends: dict[str, Counter[str]] = {}
    await asyncio.gather(*(work(attacks[n::n_workers], port, seconds, ends) for n in range(n_workers)))
    return {name: dict(counts) for name, counts in ends.items()}


class Attack:
    """The attacks from a process of its own, at a low priority."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def begin(cls, port: int, n_workers: int, seconds: float) -> "Attack":
        """Start the process; returns when the attack has started."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.chaos.hostile", str(port), str(n_workers), str(seconds)),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"started\n"
        return cls(process)

    async def end(self) -> dict[str, dict[str, int]]:
        """Wait for the end; returns how the connections of each attack ended."""
        out, _ = await self._process.communicate()
        assert self._process.returncode == 0
        ends_by_behavior: dict[str, dict[str, int]] = json.loads(out)
        return ends_by_behavior


if __name__ == "__main__":
    raw_websocket.TIMEOUT_S = 3600.0  # no time limit
    os.nice(10)  # only their effect on the relay matters, not that on the machine
    arguments = sys.argv[1:]
    print("started", flush=True)
    print(json.dumps(asyncio.run(main(int(arguments[0]), int(arguments[1]), float(arguments[2])))))
