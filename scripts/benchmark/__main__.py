"""`scripts/bench`: the cost of a relay on this machine, compared with HAProxy if it is installed."""

import asyncio
import sys
from typing import Annotated

import typer
from rich.console import Console

from scripts.benchmark.load import LoadSpec
from scripts.benchmark.measure import Measurement, measure_round
from scripts.benchmark.report import print_table, to_json
from scripts.benchmark.targets import BenchError, TargetName, find_haproxy

RATES_HZ = (8000, 16_000, 24_000, 48_000)


def bench(
    sessions: Annotated[
        str, typer.Option(help="Concurrent sessions. A list, such as 20,100, measures one setup for each.")
    ] = "20",
    rate: Annotated[str, typer.Option(help="Sample rate of the devices in Hz, or a list.")] = "24000,16000",
    seconds: Annotated[float, typer.Option(min=0.5, help="Measured seconds of each round.")] = 6.0,
    warm: Annotated[float, typer.Option(min=0.0, help="Seconds of load before the measurement.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each setup. The table shows medians.")] = 3,
    alone: Annotated[bool, typer.Option(help="Do not compare with HAProxy.")] = False,
    recording: Annotated[
        bool, typer.Option(help="Compare with a relay that records every session, in alternation, instead of HAProxy.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print every round as JSON instead of a table.")] = False,
    quick: Annotated[bool, typer.Option(help="Run one short round as a check. Its figures are not reliable.")] = False,
) -> None:
    """Load a relay with device sessions and measure CPU, added latency and memory.

    The relay runs on one core, the load (devices and an upstream that responds at once) on another. If HAProxy is
    installed, both are measured at the same time under equal loads, so that the ratio is valid on a busy machine too.
    """
    if quick:
        sessions, rate, seconds, warm, rounds = "4", "24000", 1.0, 0.5, 1
    setups = [(n, hz) for hz in _numbers(rate, "--rate", RATES_HZ) for n in _numbers(sessions, "--sessions", None)]
    targets: list[TargetName] = ["relay"] if alone or recording or find_haproxy() is None else ["relay", "haproxy"]
    groups: list[list[TargetName]] = [targets, ["recording"]] if recording else [targets]
    stderr = Console(stderr=True)
    measurements: list[Measurement] = []
    for n, hz in setups:
        for number in range(1, rounds + 1):
            # The recording relay runs alone: two targets would wait for each other's disk and CPU work.
            for names in groups if number % 2 else groups[::-1]:
                stderr.print(f"{n} × {hz} Hz, round {number} of {rounds}: {', '.join(names)}", style="dim")
                load = LoadSpec("device", n, hz, seconds, warm)
                measurements += asyncio.run(measure_round(names, load, number))
    if json:
        typer.echo(to_json(measurements))
    else:
        print_table(measurements, Console(width=None if sys.stdout.isatty() else 120))
        if len(targets) == 1 and not alone and not recording:
            stderr.print("HAProxy is not installed. To compare with it: sudo apt-get install haproxy")


def _numbers(text: str, option: str, allowed: tuple[int, ...] | None) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise BenchError(f"{option} must be a number or a list such as 20,100, not {text!r}") from None
    if any(number < 1 or (allowed is not None and number not in allowed) for number in numbers):
        choice = f"one of {', '.join(map(str, allowed))}" if allowed else "at least 1"
        raise BenchError(f"{option} must be {choice}, not {text!r}")
    return numbers


def main() -> None:
    """Run the command; a BenchError is one sentence on stderr and exit code 2."""
    try:
        typer.run(bench)
    except BenchError as error:
        typer.echo(f"relay: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
