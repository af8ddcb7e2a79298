"""A load test of one engine with many users in real time: `python -m tests.local_engine.load`.

Each user asks, waits for the playing time of the answer, and asks again. The engine runs in its own process, over real
sockets. Measured are the delay of turn events after the audio that causes them, the delay of the first audio of an
answer, and CPU and memory.
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
from tests.local_engine.engine_harness import SAMPLES, TOOLS

CHUNK_MS = 20
BYTES_PER_MS = 48
SENTENCES = ("roll-two-dice", "time-in-tokyo", "convert-five-miles", "dice-and-time")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Latencies:
    """The latencies of all users, in ms, and the number of turns."""

    started: list[float] = field(default_factory=list)
    stopped: list[float] = field(default_factory=list)
    transcribed: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    turns: int = 0
    understood: int = 0


@dataclass(frozen=True)
class Cost:
    """The CPU seconds and the resident memory of the engine and its workers."""

    cpu_s: float
    rss_mb: float


class User:
    """One client with a continuous microphone."""

    def __init__(self, socket: websockets.ClientConnection, latencies: Latencies, number: int) -> None:
        self._socket, self._latencies = socket, latencies
        self._numbers = count(number)
        self._sent_at: list[float] = []
        self._to_say = b""
        self._is_done = asyncio.Event()

    async def talk(self, seconds: float) -> None:
        """Take turns for `seconds`, and finish the last one."""
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
        """Send 20 ms of speech or silence every 20 ms; late chunks are sent at once."""
        start, size = time.monotonic(), CHUNK_MS * BYTES_PER_MS
        for number in count():
            await asyncio.sleep(start + number * CHUNK_MS / 1000 - time.monotonic())
            chunk, self._to_say = self._to_say[:size].ljust(size, b"\0"), self._to_say[size:]
            audio = pybase64.b64encode(chunk).decode()
            self._sent_at.append(time.monotonic())
            await self._socket.send(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')

    async def _turn(self) -> float:
        """Run one question and its answer; returns the answer's length in s. Tool calls are answered immediately."""
        latencies, calls, since = self._latencies, list[str](), dict[str, float]()
        audio_bytes = 0
        async with asyncio.timeout(60):
            while True:
                event = json.loads(await self._socket.recv())
                now = time.monotonic()
                match event["type"]:
                    case "input_audio_buffer.speech_started":
                        # The second frame over the threshold starts the turn. The client cannot know which one that is,
                        # but the prefix of 300 ms and two frames of 32 ms precede it.
                        latencies.started.append(self._late_ms(event["audio_start_ms"] + 300 + 64, now))
                    case "input_audio_buffer.speech_stopped":
                        latencies.stopped.append(self._late_ms(event["audio_end_ms"], now))
                        since["stopped"] = now
                    case "conversation.item.input_audio_transcription.completed":
                        latencies.transcribed.append((now - since["stopped"]) * 1000)
                        latencies.understood += not event["transcript"].startswith("[")
                    case "response.created":
                        since["created"] = now
                    case "response.output_audio.delta":
                        audio_bytes += len(event["delta"]) * 3 // 4
                        if "created" in since:
                            latencies.answered.append((now - since.pop("created")) * 1000)
                    case "response.function_call_arguments.done":
                        calls.append(event["call_id"])
                    case "error":
                        raise AssertionError(event)
                    case "response.done" if calls:
                        await self._return(calls)
                        calls = []
                    case "response.done":
                        latencies.turns += 1
                        return audio_bytes / BYTES_PER_MS / 1000

    async def _return(self, calls: list[str]) -> None:
        for call_id in calls:
            output = json.dumps({"total": self._latencies.turns * 13 % 97, "more": next(self._numbers) * 7})
            item = {"type": "function_call_output", "call_id": call_id, "output": output}
            await self._socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await self._socket.send('{"type":"response.create"}')

    def _late_ms(self, audio_ms: float, now: float) -> float:
        """Return the time since the chunk with this audio position was sent."""
        index = min(max(-(-int(audio_ms) // CHUNK_MS) - 1, 0), len(self._sent_at) - 1)
        return (now - self._sent_at[index]) * 1000


@asynccontextmanager
async def engine() -> AsyncIterator[tuple[int, int]]:
    """Run an engine in its own process; yields its port and process id."""
    command = (sys.executable, "-m", "relay.local_engine", "--host", "127.0.0.1", "--port", "0")
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(json.loads(await process.stdout.readline())["port"]), process.pid
    finally:
        process.terminate()
        await process.wait()


def cost(pid: int) -> Cost:
    """Return the cost of a process and its children so far."""
    cpu, rss = 0.0, 0.0
    for process_id in [pid, *_children(pid)]:
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        cpu += (int(fields[11]) + int(fields[12])) / _TICKS
        rss += int(fields[21]) * _PAGE / 1e6
    return Cost(cpu, rss)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def run_users(port: int, users: int, seconds: float) -> Latencies:
    """Run `users` users at once; returns their latencies."""
    latencies = Latencies()
    await asyncio.gather(*(_user(port, latencies, number, seconds) for number in range(users)))
    return latencies


async def _user(port: int, latencies: Latencies, number: int, seconds: float) -> None:
    url = f"ws://127.0.0.1:{port}/v1/realtime?model=relay-local"
    session: dict[str, Any] = {"type": "realtime", "tools": TOOLS}
    session["audio"] = {"input": {"transcription": {"model": "local"}}, "output": {"voice": _VOICES[number % 4]}}
    async with websockets.connect(url, max_size=None, close_timeout=0.5, compression=None) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": session}))
        await User(socket, latencies, number).talk(seconds)


OUTPUT_VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
_VOICES = ("marin", "cedar", "alloy", "ballad")


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def table(latencies: Latencies) -> str:
    """Return the figures as a Markdown table."""
    rows = [
        ("speech_started after its audio", latencies.started),
        ("speech_stopped after its audio", latencies.stopped),
        ("transcript after speech_stopped", latencies.transcribed),
        ("first audio after response.created", latencies.answered),
    ]
    lines = ["| ms | p50 | p95 | p99 | max |", "|---|---|---|---|---|"]
    for name, values in rows:
        lines.append(
            f"| {name} | "
            + " | ".join(f"{percentile(values, p):.0f}" for p in (50, 95, 99))
            + f" | {max(values):.0f} |"
        )
    return "\n".join(lines)


async def first_audio_by_voice(port: int, rounds: int = 3) -> dict[str, list[float]]:
    """Measure response.created to first audio, in ms, by voice, without load; the first value of a voice is cold."""
    latencies_ms: dict[str, list[float]] = {}
    for voice in OUTPUT_VOICES:
        url = f"ws://127.0.0.1:{port}/v1/realtime?model=relay-local"
        async with websockets.connect(url, max_size=None, close_timeout=0.5) as socket:
            session = {"type": "realtime", "audio": {"output": {"voice": voice}}}
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            for _ in range(rounds):
                await socket.send('{"type":"response.create"}')
                latencies_ms.setdefault(voice, []).append(await _first_audio_ms(socket))
    return latencies_ms


async def _first_audio_ms(socket: websockets.ClientConnection) -> float:
    created_at, first_audio_at = 0.0, 0.0
    while True:
        event = json.loads(await socket.recv())
        if event["type"] == "response.created":
            created_at = time.monotonic()
        elif event["type"] == "response.output_audio.delta":
            first_audio_at = first_audio_at or time.monotonic()
        elif event["type"] == "response.done":
            return (first_audio_at - created_at) * 1000


async def measured(users: int, seconds: float) -> str:
    """Run everything; returns a report."""
    async with engine() as (port, pid):
        first_audio_ms = await first_audio_by_voice(port)
        await run_users(port, 1, 0.1)
        before, start = cost(pid), time.monotonic()
        latencies = await run_users(port, users, seconds)
        after, lasted_s = cost(pid), time.monotonic() - start
    cores = (after.cpu_s - before.cpu_s) / lasted_s
    memory = (after.rss_mb - before.rss_mb) / users
    all_ms = [ms for values in first_audio_ms.values() for ms in values]
    return (
        f"{users} users, {latencies.turns} turns in {lasted_s:.0f} s, "
        f"{latencies.understood} of {len(latencies.transcribed)} understood; {cores:.2f} cores, "
        f"{before.rss_mb:.0f} MB and {memory:.1f} MB for each user\n\n{table(latencies)}\n\n"
        f"without load, first audio after response.created: {_share(all_ms)}; "
        f"the first of each voice: {_share([values[0] for values in first_audio_ms.values()])}"
    )


def _share(values: list[float]) -> str:
    return f"p50 {percentile(values, 50):.0f} ms, p95 {percentile(values, 95):.0f} ms"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()
    print(asyncio.run(measured(arguments.users, arguments.seconds)))


if __name__ == "__main__":
    main()
