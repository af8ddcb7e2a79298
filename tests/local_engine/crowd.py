"""Many users who speak to one engine at once, in real time: `python -m tests.local_engine.crowd`.

Each asks, listens to the whole answer as it would be played, and asks again; the engine runs as a program of its own,
over real sockets. What is measured: how late the turn's events are against the moment at which the audio that decides
them was sent, how soon the answer sounds, and what CPU and memory it took.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import quantiles
from typing import Any

import pybase64
import websockets

from audio.files import read_audio
from tests.local_engine.engine_stage import SAMPLES, TOOLS

CHUNK_MS = 20
BYTES_PER_MS = 48
SENTENCES = ("roll-two-dice", "time-in-tokyo", "convert-five-miles", "dice-and-time")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Latencies:
    """What all users saw; ms."""

    started: list[float] = field(default_factory=list)
    stopped: list[float] = field(default_factory=list)
    words: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    turns: int = 0
    understood: int = 0


@dataclass(frozen=True)
class Cost:
    """Of the engine and its workers: CPU seconds, and resident memory."""

    cpu_s: float
    rss_mb: float


class User:
    """One client with a microphone that never stops."""

    def __init__(self, socket: websockets.ClientConnection, seen: Latencies, number: int) -> None:
        self._socket, self._seen = socket, seen
        self._numbers = count(number)
        self._sent_at: list[float] = []
        self._to_say = b""
        self._is_done = asyncio.Event()

    async def talk(self, seconds: float) -> None:
        """Speak and listen for so long, and then until the turn is over."""
        speaking = asyncio.create_task(self._microphone())
        try:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                sample = SENTENCES[next(self._numbers) % len(SENTENCES)]
                self._to_say = read_audio(SAMPLES / f"{sample}.flac", 24_000)
                listening_s = await self._turn()
                await asyncio.sleep(min(listening_s, max(end - time.monotonic(), 0)))
        finally:
            speaking.cancel()
            await asyncio.wait([speaking])

    async def _microphone(self) -> None:
        """20 ms every 20 ms: what is to be said, or silence; late chunks are caught up with."""
        start, size = time.monotonic(), CHUNK_MS * BYTES_PER_MS
        for number in count():
            await asyncio.sleep(start + number * CHUNK_MS / 1000 - time.monotonic())
            chunk, self._to_say = self._to_say[:size].ljust(size, b"\0"), self._to_say[size:]
            audio = pybase64.b64encode(chunk).decode()
            self._sent_at.append(time.monotonic())
            await self._socket.send(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')

    async def _turn(self) -> float:
        """One question and its answer, whose length in s is returned; a tool call is answered at once."""
        seen, calls, since = self._seen, list[str](), dict[str, float]()
        sound_bytes = 0
        async with asyncio.timeout(60):
            while True:
                event = json.loads(await self._socket.recv())
                now = time.monotonic()
                match event["type"]:
                    case "input_audio_buffer.speech_started":
                        # The second frame over the threshold decides; the client can't know which one that is, but
                        # the prefix of 300 ms and the two frames of 32 ms are in the audio before it.
                        seen.started.append(self._late_ms(event["audio_start_ms"] + 300 + 64, now))
                    case "input_audio_buffer.speech_stopped":
                        seen.stopped.append(self._late_ms(event["audio_end_ms"], now))
                        since["stopped"] = now
                    case "conversation.item.input_audio_transcription.completed":
                        seen.words.append((now - since["stopped"]) * 1000)
                        seen.understood += not event["transcript"].startswith("[")
                    case "response.created":
                        since["created"] = now
                    case "response.output_audio.delta":
                        sound_bytes += len(event["delta"]) * 3 // 4
                        if "created" in since:
                            seen.answered.append((now - since.pop("created")) * 1000)
                    case "response.function_call_arguments.done":
                        calls.append(event["call_id"])
                    case "error":
                        raise AssertionError(event)
                    case "response.done" if calls:
                        await self._return(calls)
                        calls = []
                    case "response.done":
                        seen.turns += 1
                        return sound_bytes / BYTES_PER_MS / 1000

    async def _return(self, calls: list[str]) -> None:
        for call_id in calls:
            output = json.dumps({"total": self._seen.turns * 13 % 97, "more": next(self._numbers) * 7})
            item = {"type": "function_call_output", "call_id": call_id, "output": output}
            await self._socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await self._socket.send('{"type":"response.create"}')

    def _late_ms(self, audio_ms: float, now: float) -> float:
        """How long ago the chunk with that moment of audio was sent."""
        index = min(max(-(-int(audio_ms) // CHUNK_MS) - 1, 0), len(self._sent_at) - 1)
        return (now - self._sent_at[index]) * 1000


@asynccontextmanager
async def engine() -> AsyncIterator[tuple[int, int]]:
    """An engine as a program: its port and process id."""
    command = (sys.executable, "-m", "relay.local_engine", "--host", "127.0.0.1", "--port", "0")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(json.loads(await process.stdout.readline())["port"]), process.pid
    finally:
        process.terminate()
        await process.wait()


def cost(pid: int) -> Cost:
    """Of a process and its children, by now."""
    cpu, rss = 0.0, 0.0
    for one in [pid, *_children(pid)]:
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        cpu += (int(fields[11]) + int(fields[12])) / _TICKS
        rss += int(fields[21]) * _PAGE / 1e6
    return Cost(cpu, rss)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def crowd(port: int, users: int, seconds: float) -> Latencies:
    """So many users at once, and what they saw."""
    seen = Latencies()
    await asyncio.gather(*(_user(port, seen, number, seconds) for number in range(users)))
    return seen


async def _user(port: int, seen: Latencies, number: int, seconds: float) -> None:
    url = f"ws://127.0.0.1:{port}/v1/realtime?model=relay-local"
    session: dict[str, Any] = {"type": "realtime", "tools": TOOLS}
    session["audio"] = {"input": {"transcription": {"model": "local"}}, "output": {"voice": _VOICES[number % 4]}}
    async with websockets.connect(url, max_size=None, close_timeout=0.5, compression=None) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        await User(socket, seen, number).talk(seconds)


OUTPUT_VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
_VOICES = ("marin", "cedar", "alloy", "ballad")


def at(values: list[float], percent: int) -> float:
    """A percentile."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def table(seen: Latencies) -> str:
    """The figures as a Markdown table."""
    rows = [
        ("speech_started behind its audio", seen.started),
        ("speech_stopped behind its audio", seen.stopped),
        ("words behind speech_stopped", seen.words),
        ("first sound behind response.created", seen.answered),
    ]
    lines = ["| ms | p50 | p95 | p99 | most |", "|---|---|---|---|---|"]
    for name, values in rows:
        lines.append(
            f"| {name} | " + " | ".join(f"{at(values, p):.0f}" for p in (50, 95, 99)) + f" | {max(values):.0f} |"
        )
    return "\n".join(lines)


async def first_sounds(port: int, rounds: int = 3) -> dict[str, list[float]]:
    """From response.created to the first sound, in ms, by voice, with nobody else about; the first one is cold."""
    found: dict[str, list[float]] = {}
    for voice in OUTPUT_VOICES:
        url = f"ws://127.0.0.1:{port}/v1/realtime?model=relay-local"
        async with websockets.connect(url, max_size=None, close_timeout=0.5) as socket:
            session = {"type": "realtime", "audio": {"output": {"voice": voice}}}
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            for _ in range(rounds):
                await socket.send('{"type":"response.create"}')
                found.setdefault(voice, []).append(await _first_sound_ms(socket))
    return found


async def _first_sound_ms(socket: websockets.ClientConnection) -> float:
    begun, sounded = 0.0, 0.0
    while True:
        event = json.loads(await socket.recv())
        if event["type"] == "response.created":
            begun = time.monotonic()
        elif event["type"] == "response.output_audio.delta":
            sounded = sounded or time.monotonic()
        elif event["type"] == "response.done":
            return (sounded - begun) * 1000


async def measured(users: int, seconds: float) -> str:
    """A whole run as text."""
    async with engine() as (port, pid):
        sounds = await first_sounds(port)
        await crowd(port, 1, 0.1)
        before, start = cost(pid), time.monotonic()
        seen = await crowd(port, users, seconds)
        after, lasted_s = cost(pid), time.monotonic() - start
    cores = (after.cpu_s - before.cpu_s) / lasted_s
    memory = (after.rss_mb - before.rss_mb) / users
    return (
        f"{users} users, {seen.turns} turns in {lasted_s:.0f} s, {seen.understood} of {len(seen.words)} understood; "
        f"{cores:.2f} cores, {before.rss_mb:.0f} MB and {memory:.1f} MB for each user\n\n{table(seen)}\n\n"
        f"alone, first sound behind response.created: {_share([ms for values in sounds.values() for ms in values])}; "
        f"the first of each voice: {_share([values[0] for values in sounds.values()])}"
    )


def _share(values: list[float]) -> str:
    return f"p50 {at(values, 50):.0f} ms, p95 {at(values, 95):.0f} ms"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    print(asyncio.run(measured(arguments.users, arguments.seconds)))


if __name__ == "__main__":
    main()
