"""Measurements as a table and as JSON: the median of the rounds, ratios within each round."""

import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib import metadata
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benchmark.measure import Measurement
from scripts.benchmark.targets import TargetName

SetupKey = tuple[int, int, TargetName]


def group_by_setup(measured: Sequence[Measurement]) -> dict[SetupKey, list[Measurement]]:
    """The rounds of each (rate, sessions, subject), in the order they were made."""
    groups: dict[SetupKey, list[Measurement]] = {}
    for one in measured:
        groups.setdefault((one.rate_hz, one.sessions, one.subject), []).append(one)
    return groups


def haproxy_ratio(measured: Sequence[Measurement], key: SetupKey) -> float | None:
    """CPU over HAProxy's: the median of the ratios within each round, which a busy machine disturbs least."""
    rate_hz, sessions, subject = key
    groups = group_by_setup(measured)
    floor = {one.round: one.cpu_ms for one in groups.get((rate_hz, sessions, "haproxy"), [])}
    ratios = [
        one.cpu_ms / cpu_ms
        for one in groups[key]
        if one.cpu_ms is not None and (cpu_ms := floor.get(one.round)) is not None and cpu_ms > 0
    ]
    return median(ratios) if ratios and subject != "haproxy" else None


def recording_ratios(measured: Sequence[Measurement], rate_hz: int, sessions: int) -> dict[str, float]:
    """What recording costs, as medians of the ratios within each round: CPU, and added latency at p99 up and down."""
    groups = group_by_setup(measured)
    plain = {one.round: one for one in groups.get((rate_hz, sessions, "relay"), [])}
    pairs = [(one, plain[one.round]) for one in groups.get((rate_hz, sessions, "recording"), []) if one.round in plain]
    values = {
        "cpu": [(one.cpu_ms, other.cpu_ms) for one, other in pairs],
        "p99_up": [(one.up.p99, other.up.p99) for one, other in pairs],
        "p99_down": [(one.down.p99, other.down.p99) for one, other in pairs],
    }
    known = {name: [one / other for one, other in both if one and other] for name, both in values.items()}
    return {name: round(median(ratios), 3) for name, ratios in known.items() if ratios}


def print_table(measured: Sequence[Measurement], console: Console) -> None:
    """Print one row for each setup, and below it every doubt."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("rate", "sessions", "", "CPU ms", "× haproxy", "up ms p50/p99", "down ms p50/p99", "KiB idle/active"):
        shown.add_column(title, justify="left" if not title else "right", no_wrap=True)
    for key, rounds in group_by_setup(measured).items():
        shown.add_row(
            f"{key[0]}",
            f"{key[1]}",
            key[2],
            _format_number(_median(one.cpu_ms for one in rounds), 2),
            _format_number(haproxy_ratio(measured, key), 2),
            _format_pair((one.up.p50 for one in rounds), (one.up.p99 for one in rounds), 2),
            _format_pair((one.down.p50 for one in rounds), (one.down.p99 for one in rounds), 2),
            _format_pair((one.idle_kib for one in rounds), (one.active_kib for one in rounds), 0),
        )
    console.print(shown)
    console.print(
        "CPU: per session and second, user and system. Latency: added, with the load's own two ends in it. "
        "Memory: per session, user space. Medians of the rounds."
    )
    for rate_hz, sessions, subject in group_by_setup(measured):
        if subject == "recording":
            found = recording_ratios(measured, rate_hz, sessions)
            told = ", ".join(f"{name.replace('_', ' ')} × {value:.2f}" for name, value in found.items())
            console.print(f"recording costs, {sessions} × {rate_hz} Hz: {told}")
    for one in measured:
        for doubt in one.doubts:
            console.print(
                f"round {one.round}, {one.sessions} × {one.rate_hz} Hz, {one.subject}: {doubt}", style="yellow"
            )


def to_json(measured: Sequence[Measurement]) -> str:
    """All rounds, and what they were made on."""
    packages = {name: metadata.version(name) for name in ("aiohttp", "picows", "uvloop", "orjson")}
    machine = {"python": platform.python_version(), "system": platform.platform(), "packages": packages}
    summary: list[dict[str, Any]] = [
        {
            "rate_hz": key[0],
            "sessions": key[1],
            "subject": key[2],
            "cpu_ms": _median(one.cpu_ms for one in rounds),
            "times_haproxy": haproxy_ratio(measured, key),
        }
        | ({"recording": recording_ratios(measured, key[0], key[1])} if key[2] == "recording" else {})
        for key, rounds in group_by_setup(measured).items()
    ]
    return json.dumps({"machine": machine, "summary": summary, "rounds": [asdict(one) for one in measured]}, indent=2)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _format_pair(some: Iterable[float | None], others: Iterable[float | None], digits: int) -> str:
    return f"{_format_number(_median(some), digits)} / {_format_number(_median(others), digits)}"


def _format_number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"
