"""A relay in its own process, as `relay serve` runs it, and measurements of its resources and its work.

Run as a script it is that relay; it answers each line on its standard input with one line of JSON about itself.
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
from typing import IO, Any

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 30.0
QUIET_S, QUIET_LOOKS = 0.015, 2
"""A relay is idle after computing for less than a quarter of QUIET_S, QUIET_LOOKS times in a row."""
OURS = ("RELAY_", "OPENAI_", "AZURE_", "ELEVENLABS_", "NAVAI_")
"""The prefixes of our settings."""


@dataclass(frozen=True)
class Resources:
    """The resources of the relay's process at one moment."""

    tasks: int
    sessions: int
    descriptors: int
    pss_kib: int


@dataclass(frozen=True)
class WorkSample:
    """The work of the relay's process since the last query."""

    sessions: int
    cpu_s: float
    waits_s: list[float] = field(repr=False)
    """How long each sample of the clock was delayed by the relay's own work."""
    every_s: float
    """The time between two undelayed samples."""

    @property
    def longest_wait_s(self) -> float:
        """The longest block of the event loop, up to `every_s` too short."""
        return max(self.waits_s, default=0.0)

    def wait_s(self, share: float) -> float:
        """Return the quantile of the wait of a frame that arrives at a random moment.

        A frame that arrives while the relay is busy for w seconds waits 0 to w seconds.
        """
        total_s = sum(self.waits_s) + self.every_s * len(self.waits_s)
        beyond_s, longest_first = (1 - share) * total_s, sorted(self.waits_s, reverse=True)
        sum_s = 0.0
        for number, wait_s in enumerate(longest_first, start=1):
            sum_s += wait_s
            following_s = longest_first[number] if number < len(longest_first) else 0.0
            if sum_s - number * following_s >= beyond_s:
                return (sum_s - beyond_s) / number
        return 0.0


class RelayProcess:
    """A running relay, as other processes see it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/?rate=24000"

    def pss_kib(self) -> int:
        """Return the proportional set size of the process, from the kernel."""
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))

    async def resources(self) -> Resources:
        """Return its resources after a garbage collection."""
        state = await self._ask(b"resources")
        descriptors = len(os.listdir(f"/proc/{self._process.pid}/fd"))  # noqa: PTH208  # names alone, no paths
        return Resources(state["tasks"], state["sessions"], descriptors, self.pss_kib())

    async def work(self) -> WorkSample:
        """Return its work since the last query, without a garbage collection."""
        return WorkSample(**await self._ask(b"work"))

    async def quiet(self, timeout_s: float = 5.0) -> WorkSample:
        """Wait until it is idle; returns its work since the last query."""
        until = time.monotonic() + timeout_s
        parts, n_quiet = [await self.work()], 0
        while n_quiet < QUIET_LOOKS and time.monotonic() < until:
            await asyncio.sleep(QUIET_S)
            parts.append(await self.work())
            n_quiet = n_quiet + 1 if parts[-1].cpu_s < QUIET_S / 4 else 0
        waits_s = [wait_s for part in parts for wait_s in part.waits_s]
        return WorkSample(parts[-1].sessions, sum(part.cpu_s for part in parts), waits_s, parts[-1].every_s)

    async def _ask(self, query: bytes) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(query + b"\n")
        async with asyncio.timeout(START_TIMEOUT_S):
            state: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return state

    async def settled(self, start: Resources, timeout_s: float) -> Resources:
        """Wait until all sessions ended and the resources are as at `start`, or a timeout; returns the resources."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            now = await self.resources()
            done = (now.tasks, now.sessions, now.descriptors) == (start.tasks, start.sessions, start.descriptors)
            if done or loop.time() > until:
                return now
            await asyncio.sleep(0.2)


@asynccontextmanager
async def relay_process(
    upstream_url: str, *, look_every_s: float = 0.005, log: IO[bytes] | None = None, **settings: str
) -> AsyncIterator[RelayProcess]:
    """Run a relay on a free port; `settings` are its environment variables besides `RELAY_UPSTREAM`.

    It samples the clock every `look_every_s`. It has the tools that `RELAY_TOOLS` names, and logs to `log` or to this
    process's standard error.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.relay_process",
        str(look_every_s),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
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
    assert process.returncode == 0, "the relay ends with code 0"


# -- the relay's process ----------------------------------------------------------------------------------------------


class LoopDelays:
    """Samples the clock every `every_s` and records the delays caused by this process.

    A delay counts only up to the processor time of the process, so that other load on the machine does not matter. All
    threads count, because one that holds the GIL delays the loop as well.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float) -> None:
        self._loop = loop
        self._every_s = every_s
        self._waits_s: list[float] = []
        self._due, self._cpu_s = time.monotonic(), time.process_time()
        self._taken_cpu_s = self._cpu_s
        self._sample()

    def take(self) -> dict[str, Any]:
        """Return the delays and the processor time since the last call."""
        waits_s, self._waits_s = self._waits_s, []
        cpu_s = time.process_time()
        used_s, self._taken_cpu_s = cpu_s - self._taken_cpu_s, cpu_s
        return {"cpu_s": used_s, "waits_s": waits_s, "every_s": self._every_s}

    def restart(self) -> None:
        """Drop the delays so far."""
        self._waits_s = []
        self._due, self._cpu_s = time.monotonic(), time.process_time()
        self._taken_cpu_s = self._cpu_s

    def _sample(self) -> None:
        now, cpu_s = time.monotonic(), time.process_time()
        self._waits_s.append(round(max(0.0, min(now - self._due, cpu_s - self._cpu_s)), 6))
        self._due, self._cpu_s = now + self._every_s, cpu_s
        self._loop.call_later(self._every_s, self._sample)


async def _run(look_every_s: float) -> None:

    from relay.app.context import SESSIONS
    from relay.app.log_setup import setup_logging
    from relay.app.server import create_app
    from relay.app.serving import RelayRunner, RelaySite
    from relay.config.environment import Environment
    from relay.config.settings import Settings
    from relay.toolkit.registry import ToolRegistry

    settings = Settings.load(Environment(os.environ))
    setup_logging(settings.log.level, settings.log.format)
    registry = None if "folders" in settings.tools.model_fields_set else ToolRegistry()
    app = create_app(settings, registry)
    runner = RelayRunner(app)
    await runner.setup()
    await RelaySite(runner, "127.0.0.1", 0, None).start()
    gc.collect()  # as `serve` does
    gc.freeze()
    print(runner.addresses[0][1], flush=True)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    delays = LoopDelays(loop, look_every_s)
    loop.add_signal_handler(15, stop.set)

    def answer() -> None:
        query = os.read(0, 64)
        if not query:
            loop.remove_reader(0)
            return
        state: dict[str, Any] = {"sessions": len(app[SESSIONS].active)}
        if query.startswith(b"work"):
            state |= delays.take()
        else:
            gc.collect()
            state["tasks"] = len(asyncio.all_tasks())
            delays.restart()  # do not count the garbage collection
        print(json.dumps(state), flush=True)

    loop.add_reader(0, answer)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        loop_runner.run(_run(float(sys.argv[1])))
