"""Formats measurements as a table and as JSON: medians of the rounds, and of the ratios within each round."""

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


def group_by_setup(measurements: Sequence[Measurement]) -> dict[SetupKey, list[Measurement]]:
    """Group the measurements by rate, sessions and measurement, in order."""
    groups: dict[SetupKey, list[Measurement]] = {}
    for measurement in measurements:
        key = (measurement.rate_hz, measurement.sessions, measurement.subject)
        groups.setdefault(key, []).append(measurement)
    return groups


def haproxy_ratio(measurements: Sequence[Measurement], key: SetupKey) -> float | None:
    """Return CPU relative to HAProxy: the median of the ratios within each round."""
    rate_hz, sessions, subject = key
    groups = group_by_setup(measurements)
    haproxy_ms = {haproxy.round: haproxy.cpu_ms for haproxy in groups.get((rate_hz, sessions, "haproxy"), [])}
    ratios = [
        measurement.cpu_ms / cpu_ms
        for measurement in groups[key]
        if measurement.cpu_ms is not None and (cpu_ms := haproxy_ms.get(measurement.round)) is not None and cpu_ms > 0
    ]
    return median(ratios) if ratios and subject != "haproxy" else None


def recording_ratios(measurements: Sequence[Measurement], rate_hz: int, sessions: int) -> dict[str, float]:
    """Return the cost of recording as medians of the ratios within each round: CPU, and added latency at p99."""
    groups = group_by_setup(measurements)
    plain = {relay.round: relay for relay in groups.get((rate_hz, sessions, "relay"), [])}
    recording = groups.get((rate_hz, sessions, "recording"), [])
    pairs = [(measurement, plain[measurement.round]) for measurement in recording if measurement.round in plain]
    values = {
        "cpu": [(measurement.cpu_ms, relay.cpu_ms) for measurement, relay in pairs],
        "p99_up": [(measurement.up.p99, relay.up.p99) for measurement, relay in pairs],
        "p99_down": [(measurement.down.p99, relay.down.p99) for measurement, relay in pairs],
    }
    ratios = {name: [value / base for value, base in rounds if value and base] for name, rounds in values.items()}
    return {name: round(median(rounds), 3) for name, rounds in ratios.items() if rounds}


def print_table(measurements: Sequence[Measurement], console: Console) -> None:
    """Print one row for each setup, and all doubts below."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("rate", "sessions", "", "CPU ms", "× haproxy", "up ms p50/p99", "down ms p50/p99", "KiB idle/active"):
        table.add_column(title, justify="left" if not title else "right", no_wrap=True)
    for key, rounds in group_by_setup(measurements).items():
        table.add_row(
            f"{key[0]}",
            f"{key[1]}",
            key[2],
            _format_number(_median(m.cpu_ms for m in rounds), 2),
            _format_number(haproxy_ratio(measurements, key), 2),
            _format_pair(((m.up.p50, m.up.p99) for m in rounds), 2),
            _format_pair(((m.down.p50, m.down.p99) for m in rounds), 2),
            _format_pair(((m.idle_kib, m.active_kib) for m in rounds), 0),
        )
    console.print(table)
    console.print(
        "CPU: user and system time per session and second. Latency: added latency, including both fake peers. "
        "Memory: user space per session. All values are medians of the rounds."
    )
    _print_notes(measurements, console)


def _print_notes(measurements: Sequence[Measurement], console: Console) -> None:
    """Print the cost of recording, and all doubts."""
    for rate_hz, sessions, subject in group_by_setup(measurements):
        if subject == "recording":
            ratios = recording_ratios(measurements, rate_hz, sessions)
            costs = ", ".join(f"{name.replace('_', ' ')} × {value:.2f}" for name, value in ratios.items())
            console.print(f"recording costs, {sessions} × {rate_hz} Hz: {costs}")
    for measurement in measurements:
        setup = f"{measurement.sessions} × {measurement.rate_hz} Hz, {measurement.subject}"
        for doubt in measurement.doubts:
            console.print(f"round {measurement.round}, {setup}: {doubt}", style="yellow")


def to_json(measurements: Sequence[Measurement]) -> str:
    """Return all rounds, a summary, and the machine as JSON."""
    packages = {name: metadata.version(name) for name in ("aiohttp", "picows", "uvloop", "orjson")}
    machine = {"python": platform.python_version(), "system": platform.platform(), "packages": packages}
    summary: list[dict[str, Any]] = [
        {
            "rate_hz": key[0],
            "sessions": key[1],
            "subject": key[2],
            "cpu_ms": _median(measurement.cpu_ms for measurement in rounds),
            "times_haproxy": haproxy_ratio(measurements, key),
        }
        | ({"recording": recording_ratios(measurements, key[0], key[1])} if key[2] == "recording" else {})
        for key, rounds in group_by_setup(measurements).items()
    ]
    rounds = [asdict(measurement) for measurement in measurements]
    return json.dumps({"machine": machine, "summary": summary, "rounds": rounds}, indent=2)


def _median(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return median(measured) if measured else None


def _format_pair(pairs: Iterable[tuple[float | None, float | None]], digits: int) -> str:
    return " / ".join(_format_number(_median(values), digits) for values in zip(*pairs, strict=True))


def _format_number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"
