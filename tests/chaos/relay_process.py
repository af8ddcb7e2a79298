"""A relay in a process of its own, as `relay serve` runs it, and what that process holds: memory, tasks, descriptors.

Run as a script it is that relay, and answers each line on its standard input with one line of JSON about itself.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Holding:
    """What the relay's process holds at one moment."""

    tasks: int
    sessions: int
    descriptors: int
    pss_kib: int
    waits_s: list[float] = field(default_factory=list, repr=False)
    """How long each of many looks at the clock waited for the relay's own work since the last time it was asked."""


class RelayProcess:
    """A running relay, seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/?rate=24000"

    def pss_kib(self) -> int:
        """Memory of the process, shared pages in proportion; asks the kernel, not the relay."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))

    def cpu_s(self) -> float:
        """Processor time used so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def holding(self) -> Holding:
        """What it holds now, after a collection of garbage."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        async with asyncio.timeout(START_TIMEOUT_S):
            told = json.loads(await self._process.stdout.readline())
        descriptors = len(os.listdir(f"/proc/{self._process.pid}/fd"))  # noqa: PTH208  # names alone, no paths
        return Holding(told["tasks"], told["sessions"], descriptors, self.pss_kib(), told["waits_s"])

    async def settled(self, start: Holding, timeout_s: float) -> Holding:
        """What it holds once no session is left and all else is as at the `start`, or when the time is up."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            now = await self.holding()
            done = (now.tasks, now.sessions, now.descriptors) == (start.tasks, start.sessions, start.descriptors)
            if done or loop.time() > until:
                return now
            await asyncio.sleep(0.2)


@asynccontextmanager
async def relay_process(upstream_url: str, **settings: str) -> AsyncIterator[RelayProcess]:
    """A relay on a free port; `settings` are its environment, over `RELAY_UPSTREAM` and nothing else of ours."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "OPENAI_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.relay_process",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 1024 * 1024,
        env=inherited | {"RELAY_UPSTREAM": upstream_url, "PORT": "0", "RELAY_LOG_LEVEL": "warning", **settings},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            port = int(await process.stdout.readline())
        yield RelayProcess(process, port)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    assert process.returncode == 0, "the relay ends in peace"


# -- the relay's own end ----------------------------------------------------------------------------------------------


class Waits:
    """Looks at the clock every `EVERY_S`, and notes how late it comes to it for work of this process alone.

    What the machine does meanwhile is left out: nobody can be later because of the relay than its thread has computed.
    """

    EVERY_S = 0.005

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waits_s: list[float] = []
        self._due, self._cpu_s = loop.time(), time.thread_time()
        self._look()

    def take(self) -> list[float]:
        """What was noted since the last time."""
        waits_s, self._waits_s = self._waits_s, []
        self._cpu_s = time.thread_time()  # the collection of garbage before is nobody's traffic
        return waits_s

    def _look(self) -> None:
        now, cpu_s = self._loop.time(), time.thread_time()
        self._waits_s.append(round(min(now - self._due, cpu_s - self._cpu_s), 6))
        self._due, self._cpu_s = now + self.EVERY_S, cpu_s
        self._loop.call_at(self._due, self._look)


async def _run() -> None:
    from aiohttp import web

    from relay.app.connections import RelayRunner
    from relay.config import Settings
    from relay.logs import setup_logging
    from relay.server import create_app
    from relay.state import RELAY
    from relay.toolkit.registry import ToolRegistry

    settings = Settings(_env_file=None)  # type: ignore[call-arg]
    setup_logging(settings.log_level, settings.log_format)
    app = create_app(settings, ToolRegistry())
    runner = RelayRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    gc.collect()  # as `serve` does
    gc.freeze()
    print(runner.addresses[0][1], flush=True)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    waits = Waits(loop)
    loop.add_signal_handler(15, stop.set)

    def answer() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            return
        gc.collect()
        told = {"tasks": len(asyncio.all_tasks()), "sessions": len(app[RELAY].sessions), "waits_s": waits.take()}
        print(json.dumps(told), flush=True)

    loop.add_reader(0, answer)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(_run())
