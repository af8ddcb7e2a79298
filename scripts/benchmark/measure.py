"""Measures one target: runs it under a load process, and reads /proc at the phases of the load."""

import asyncio
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import orjson

from relay.child_environment import python_command, python_environment
from scripts.benchmark import proc_stats
from scripts.benchmark.fake_peers import Percentiles
from scripts.benchmark.load import LoadSpec
from scripts.benchmark.targets import PROTOCOLS, BenchError, TargetName, run_target

MAX_LATE_MS = 10.0
MAX_LOAD_PERCENT = 85.0
MIN_DELIVERED = 0.99
PHASE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """A target in one round. CPU is in ms per session and second, memory in KiB of user space per session."""

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
    """Reasons why the figures are not reliable; empty if they are."""


CpuReading = tuple[float, float | None, float | None]
"""The time, the CPU time of the target and that of the load process, in seconds."""


class _Readings(NamedTuple):
    """The readings of one measurement; `cpu` is the reading at the end and that at the start."""

    cpu: tuple[CpuReading, CpuReading]
    base_kib: float | None
    idle_kib: float | None
    active_kib: float | None
    result: dict[str, Any]


class LoadProcess:
    """A load process and its reports."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, spec: LoadSpec, core: int | None) -> "LoadProcess":
        """Start a load process on a core."""
        argument = orjson.dumps(asdict(spec)).decode()
        process = await asyncio.create_subprocess_exec(
            *python_command("scripts.benchmark.load", argument),
            env=python_environment(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        proc_stats.pin_to_core(process.pid, core)
        return cls(process)

    async def wait_for(self, phase: str, timeout_s: float = PHASE_TIMEOUT_S) -> dict[str, Any]:
        """Wait for the report of a phase."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchError(f"the load did not reach '{phase}' within {timeout_s:.0f} s") from None
        if not line:
            raise BenchError(f"the load ended before '{phase}'; see its output above")
        message: dict[str, Any] = orjson.loads(line)
        assert message["phase"] == phase, f"{message['phase']} instead of {phase}"
        return message

    def send_line(self, line: str) -> None:
        """Write a line to the standard input of the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def stop(self) -> None:
        """Kill the process if it still runs, and wait for it."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


async def measure_round(names: Sequence[TargetName], spec: LoadSpec, number: int) -> list[Measurement]:
    """Measure all targets at the same time under equal loads, so that a busy machine affects all alike."""
    return list(await asyncio.gather(*(measure(name, spec, number) for name in names)))


async def measure(name: TargetName, spec: LoadSpec, number: int) -> Measurement:
    """Measure one target under one load."""
    spec = replace(spec, protocol=PROTOCOLS[name])
    target_core, load_core = proc_stats.choose_cores() or (None, None)
    readings = await _read_phases(name, spec, target_core, load_core)
    seconds, cpu_s, load_s = (_difference(end, start) for end, start in zip(*readings.cpu, strict=True))
    assert seconds is not None
    load_percent = None if load_s is None else load_s / seconds * 100
    return Measurement(
        subject=name,
        sessions=spec.sessions,
        rate_hz=spec.rate_hz,
        round=number,
        cpu_ms=None if cpu_s is None else cpu_s / seconds / spec.sessions * 1000,
        up=Percentiles(**readings.result["up"]),
        down=Percentiles(**readings.result["down"]),
        idle_kib=_per_session(_difference(readings.idle_kib, readings.base_kib), spec.sessions),
        active_kib=_per_session(_difference(readings.active_kib, readings.base_kib), spec.sessions),
        base_kib=readings.base_kib,
        load_percent=load_percent,
        late_ms=readings.result["late_ms"],
        doubts=tuple(_find_doubts(readings.result, spec, load_percent, is_pinned=load_core is not None)),
    )


async def _read_phases(name: TargetName, spec: LoadSpec, target_core: int | None, load_core: int | None) -> _Readings:
    load_process = await LoadProcess.start(spec, load_core)
    try:
        upstream_port = (await load_process.wait_for("listening"))["port"]
        async with run_target(name, upstream_port, spec.sessions, target_core) as (pid, url):
            base_kib = proc_stats.memory_kib(pid)
            load_process.send_line(url)
            await load_process.wait_for("connected", PHASE_TIMEOUT_S + spec.sessions / spec.ramp_per_s)
            await load_process.wait_for("idle")
            idle_kib = proc_stats.memory_kib(pid)
            await load_process.wait_for("start", PHASE_TIMEOUT_S + spec.warmup_s)
            cpu_at_start = _read_cpu(pid, load_process.pid)
            await load_process.wait_for("end", PHASE_TIMEOUT_S + spec.seconds)
            cpu_at_end = _read_cpu(pid, load_process.pid)
            active_kib = proc_stats.memory_kib(pid)
            result = await load_process.wait_for("result")
            return _Readings((cpu_at_end, cpu_at_start), base_kib, idle_kib, active_kib, result)
    finally:
        await load_process.stop()


def _read_cpu(pid: int, load_pid: int) -> CpuReading:
    return asyncio.get_running_loop().time(), proc_stats.cpu_seconds(pid), proc_stats.cpu_seconds(load_pid)


def _difference(end: float | None, start: float | None) -> float | None:
    return None if end is None or start is None else end - start


def _per_session(kib: float | None, sessions: int) -> float | None:
    return None if kib is None else kib / sessions


def _find_doubts(result: dict[str, Any], spec: LoadSpec, load_percent: float | None, *, is_pinned: bool) -> list[str]:
    doubts = []
    if result["alive"] < spec.sessions:
        doubts.append(f"{spec.sessions - result['alive']} of {spec.sessions} sessions were lost")
    for direction in ("up", "down"):
        delivered = result[f"{direction}_delivered"]
        if delivered < MIN_DELIVERED:
            doubts.append(f"{100 * (1 - delivered):.0f} % of the audio {direction} did not arrive")
    if result["late_ms"] > MAX_LATE_MS:
        doubts.append(f"the load itself was {result['late_ms']:.0f} ms late")
    if load_percent is not None and load_percent > MAX_LOAD_PERCENT:
        doubts.append(f"the load took {load_percent:.0f} % of its core")
    if not is_pinned:
        doubts.append("the load and the target share one core")
    return doubts
