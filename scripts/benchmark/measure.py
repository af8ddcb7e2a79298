"""One measurement: a subject, a load process, and readings of /proc when the load says where it is."""

import asyncio
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from relay.child_environment import python_command, python_environment
from scripts.benchmark import proc_stats as process
from scripts.benchmark.fake_peers import Percentiles
from scripts.benchmark.load import LoadSpec
from scripts.benchmark.targets import PROTOCOLS, BenchError, TargetName, run_target

MAX_LATE_MS = 10.0
MAX_LOAD_PERCENT = 85.0
MIN_DELIVERED = 0.99
PHASE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One subject in one round. CPU in ms per session and second; memory in KiB per session, in user space."""

    subject: TargetName
    sessions: int
    rate_hz: int
    round: int
    cpu_ms: float | None
    up: Percentiles
    down: Percentiles
    idle_kib: float | None
    active_kib: float | None
    base_kib: float | None
    load_percent: float | None
    late_ms: float
    doubts: tuple[str, ...]
    """Why this figure should not be believed; empty for a good one."""


class LoadProcess:
    """A load process, read line by line."""

    def __init__(self, started: asyncio.subprocess.Process) -> None:
        self._process = started
        self.pid = started.pid

    @classmethod
    async def start(cls, load: LoadSpec, core: int | None) -> "LoadProcess":
        """Start it on its own core."""
        spec = orjson.dumps(asdict(load)).decode()
        started = await asyncio.create_subprocess_exec(
            *python_command("scripts.benchmark.load", spec),
            env=python_environment(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        process.pin_to_core(started.pid, core)
        return cls(started)

    async def wait_for(self, phase: str, timeout_s: float = PHASE_TIMEOUT_S) -> dict[str, Any]:
        """Wait for a phase to begin."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchError(f"the load did not reach '{phase}' within {timeout_s:.0f} s") from None
        if not line:
            raise BenchError(f"the load ended before '{phase}'; what it says stands above")
        message: dict[str, Any] = orjson.loads(line)
        assert message["phase"] == phase, f"{message['phase']} instead of {phase}"
        return message

    def send_line(self, line: str) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def stop(self) -> None:
        """Let it go, by force if need be."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def measure_round(names: Sequence[TargetName], load: LoadSpec, number: int) -> list[Measurement]:
    """All subjects at once under equal loads: what a busy machine does to one, it does to the others."""
    return list(await asyncio.gather(*(measure(name, load, number) for name in names)))


async def measure(name: TargetName, load: LoadSpec, number: int) -> Measurement:
    """One subject under one load."""
    load = replace(load, protocol=PROTOCOLS[name])
    subject_core, load_core = process.choose_cores() or (None, None)
    load_process = await LoadProcess.start(load, load_core)
    try:
        upstream_port = (await load_process.wait_for("listening"))["port"]
        async with run_target(name, upstream_port, load.sessions, subject_core) as (pid, url):
            base_kib = process.memory_kib(pid)
            load_process.send_line(url)
            await load_process.wait_for("connected", PHASE_TIMEOUT_S + load.sessions / load.ramp_per_s)
            await load_process.wait_for("idle")
            idle_kib = process.memory_kib(pid)
            await load_process.wait_for("start", PHASE_TIMEOUT_S + load.warmup_s)
            before = _read_cpu(pid, load_process.pid)
            await load_process.wait_for("end", PHASE_TIMEOUT_S + load.seconds)
            after = _read_cpu(pid, load_process.pid)
            active_kib = process.memory_kib(pid)
            result = await load_process.wait_for("result")
    finally:
        await load_process.stop()
    seconds, cpu_s, load_s = (_difference(late, early) for late, early in zip(after, before, strict=True))
    assert seconds is not None
    load_percent = None if load_s is None else load_s / seconds * 100
    return Measurement(
        subject=name,
        sessions=load.sessions,
        rate_hz=load.rate_hz,
        round=number,
        cpu_ms=None if cpu_s is None else cpu_s / seconds / load.sessions * 1000,
        up=Percentiles(**result["up"]),
        down=Percentiles(**result["down"]),
        idle_kib=_per_session(_difference(idle_kib, base_kib), load.sessions),
        active_kib=_per_session(_difference(active_kib, base_kib), load.sessions),
        base_kib=base_kib,
        load_percent=load_percent,
        late_ms=result["late_ms"],
        doubts=tuple(_find_doubts(result, load, load_percent, is_pinned=load_core is not None)),
    )


def _read_cpu(pid: int, load_pid: int) -> tuple[float, float | None, float | None]:
    return asyncio.get_running_loop().time(), process.cpu_seconds(pid), process.cpu_seconds(load_pid)


def _difference(late: float | None, early: float | None) -> float | None:
    return None if late is None or early is None else late - early


def _per_session(kib: float | None, sessions: int) -> float | None:
    return None if kib is None else kib / sessions


def _find_doubts(result: dict[str, Any], load: LoadSpec, load_percent: float | None, *, is_pinned: bool) -> list[str]:
    doubts = []
    if result["alive"] < load.sessions:
        doubts.append(f"{load.sessions - result['alive']} of {load.sessions} sessions were lost")
    for direction in ("up", "down"):
        delivered = result[f"{direction}_delivered"]
        if delivered < MIN_DELIVERED:
            doubts.append(f"{100 * (1 - delivered):.0f} % of the sound {direction} did not arrive")
    if result["late_ms"] > MAX_LATE_MS:
        doubts.append(f"the load itself was {result['late_ms']:.0f} ms late")
    if load_percent is not None and load_percent > MAX_LOAD_PERCENT:
        doubts.append(f"the load took {load_percent:.0f} % of its core")
    if not is_pinned:
        doubts.append("one core for load and subject")
    return doubts
