"""CPU and memory of a process and its children, from Linux's /proc; None on other systems."""

import os
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def process_tree(pid: int) -> list[int]:
    """Return the pids of a process and its living descendants."""
    pids, pending = [], [pid]
    while pending:
        pids.append(pending.pop())
        with suppress(OSError):
            for children in (PROC / str(pids[-1]) / "task").glob("*/children"):
                pending += map(int, children.read_text().split())
    return pids


def cpu_seconds(pid: int) -> float | None:
    """Return the user and system time of the tree: from the scheduler in nanoseconds, else in clock ticks."""
    total = 0.0
    for member in process_tree(pid):
        seconds = _schedstat_seconds(member)
        if seconds is None:
            seconds = _stat_seconds(member)
        if seconds is None and member == pid:
            return None
        total += seconds or 0.0
    return total


def _schedstat_seconds(pid: int) -> float | None:
    try:
        tasks = list((PROC / str(pid) / "task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9 if tasks else None
    except (OSError, IndexError, ValueError):
        return None


def _stat_seconds(pid: int) -> float | None:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


def memory_kib(pid: int) -> float | None:
    """Return the user-space memory of the tree: private pages plus its share of shared pages (PSS)."""
    total = 0.0
    for member in process_tree(pid):
        try:
            lines = (PROC / str(member) / "smaps_rollup").read_text().splitlines()
        except OSError:
            return None
        total += sum(float(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def choose_cores() -> tuple[int, int] | None:
    """Return a core for the target and one for the load; None with a single core or without affinity."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


def pin_to_core(pid: int, core: int | None) -> None:
    """Restrict a process to one core; call it right after the start."""
    if core is not None:
        os.sched_setaffinity(pid, {core})
