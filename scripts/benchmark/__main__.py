"""`scripts/bench`: what a relay costs on this machine, beside HAProxy where that is installed."""

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
    sessions: Annotated[str, typer.Option(help="Sessions at once; a list makes one setup of each.")] = "20",
    rate: Annotated[str, typer.Option(help="The devices' sample rate in Hz, or a list.")] = "24000,16000",
    seconds: Annotated[float, typer.Option(min=0.5, help="How long each round is measured.")] = 6.0,
    warm: Annotated[float, typer.Option(min=0.0, help="How long the load runs before that.")] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each setup; the table shows medians.")] = 3,
    alone: Annotated[bool, typer.Option(help="Leave HAProxy out, even where it is installed.")] = False,
    recording: Annotated[
        bool, typer.Option(help="Compare with a relay that records every session, in turns, instead of with HAProxy.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print every round as JSON instead of a table.")] = False,
    quick: Annotated[bool, typer.Option(help="One short round: does it work at all? Not a figure to quote.")] = False,
) -> None:
    """Load a relay with device sessions and measure CPU, added latency and memory.

    The relay runs on one core, the load (devices and a model that answers at once) on another. With HAProxy installed,
    both are measured at the same time under equal loads, so that the ratio holds on a busy machine too.
    """
    if quick:
        sessions, rate, seconds, warm, rounds = "4", "24000", 1.0, 0.5, 1
    setups = [(n, hz) for hz in _numbers(rate, "--rate", RATES_HZ) for n in _numbers(sessions, "--sessions", None)]
    subjects: list[TargetName] = ["relay"] if alone or recording or find_haproxy() is None else ["relay", "haproxy"]
    turns: list[list[TargetName]] = [subjects, ["recording"]] if recording else [subjects]
    note = Console(stderr=True)
    measured: list[Measurement] = []
    for n, hz in setups:
        for number in range(1, rounds + 1):
            # One that records has the core for itself: beside another, each would wait for the other one's work.
            for names in turns if number % 2 else turns[::-1]:
                note.print(f"{n} × {hz} Hz, round {number} of {rounds}: {' beside '.join(names)}", style="dim")
                load = LoadSpec("device", n, hz, seconds, warm)
                measured += asyncio.run(measure_round(names, load, number))
    if json:
        typer.echo(to_json(measured))
    else:
        print_table(measured, Console(width=None if sys.stdout.isatty() else 120))
        if len(subjects) == 1 and not alone and not recording:
            note.print("HAProxy is not installed: there is nothing to compare with (sudo apt-get install haproxy)")


def _numbers(text: str, option: str, allowed: tuple[int, ...] | None) -> list[int]:
    try:
        numbers = [int(one) for one in text.split(",")]
    except ValueError:
        raise BenchError(f"{option} must be a number or several with commas, such as 20,100; not {text!r}") from None
    if any(one < 1 or (allowed is not None and one not in allowed) for one in numbers):
        choice = f"one of {', '.join(map(str, allowed))}" if allowed else "at least 1"
        raise BenchError(f"{option} must be {choice}; not {text!r}")
    return numbers


def main() -> None:
    """Entry point; an error of ours is one sentence and exit code 2."""
    try:
        typer.run(bench)
    except BenchError as error:
        typer.echo(f"relay: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
