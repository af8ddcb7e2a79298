"""What a process and its children use, by Linux's /proc; where that is missing, figures are None."""

import os
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def process_tree(pid: int) -> list[int]:
    """The process and all below it that still live."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        with suppress(OSError):
            for children in (PROC / str(found[-1]) / "task").glob("*/children"):
                waiting += map(int, children.read_text().split())
    return found


def cpu_seconds(pid: int) -> float | None:
    """User and system time of the tree so far, all threads: by the scheduler's nanoseconds, or else by clock ticks."""
    total = 0.0
    for one in process_tree(pid):
        spent = _schedstat_seconds(one)
        if spent is None:
            spent = _stat_seconds(one)
        if spent is None and one == pid:
            return None
        total += spent or 0.0
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
    """Memory of the tree in user space: its own pages, and its share of those that others use too (PSS)."""
    total = 0.0
    for one in process_tree(pid):
        try:
            lines = (PROC / str(one) / "smaps_rollup").read_text().splitlines()
        except OSError:
            return None
        total += sum(float(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def choose_cores() -> tuple[int, int] | None:
    """One core for what is measured and another for the load; None where there is only one, or no way to choose."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


def pin_to_core(pid: int, core: int | None) -> None:
    """Let a process that has just begun run on one core only."""
    if core is not None:
        os.sched_setaffinity(pid, {core})
