"""From rounds to a table and to JSON."""

import io
import json

from rich.console import Console

from scripts.benchmark.fake_peers import Percentiles
from scripts.benchmark.measure import Measurement
from scripts.benchmark.report import haproxy_ratio, print_table, to_json


def measured(subject: str, number: int, cpu_ms: float | None, **more: object) -> Measurement:
    figures = {
        "sessions": 20, "rate_hz": 24_000, "up": Percentiles(0.1, 0.5, 2.0), "down": Percentiles(0.2, 0.6, 3.0),
        "idle_kib": 40.0, "active_kib": 61.4, "base_kib": 50_000.0, "load_percent": 20.0, "late_ms": 1.0, "doubts": (),
    } | more  # fmt: skip
    return Measurement(subject=subject, round=number, cpu_ms=cpu_ms, **figures)  # type: ignore[arg-type]


ROUNDS = [
    measured("relay", 1, 4.0),
    measured("haproxy", 1, 2.0),
    measured("relay", 2, 9.0),  # a busy machine: both are dearer
    measured("haproxy", 2, 6.0),
    measured("relay", 3, 3.2, doubts=("1 of 20 sessions were lost",)),
    measured("haproxy", 3, 2.0),
]


def test_ratios_are_taken_within_each_round() -> None:
    assert haproxy_ratio(ROUNDS, (24_000, 20, "relay")) == 1.6
    assert haproxy_ratio(ROUNDS, (24_000, 20, "haproxy")) is None
    assert haproxy_ratio([measured("relay", 1, 4.0)], (24_000, 20, "relay")) is None
    assert haproxy_ratio([measured("relay", 1, None), measured("haproxy", 1, 0.0)], (24_000, 20, "relay")) is None


def test_what_recording_costs_is_told_within_each_round_too() -> None:
    late = Percentiles(0.2, 1.0, 4.0)
    rounds = [
        measured("relay", 1, 4.0),
        measured("recording", 1, 6.0, up=late),
        measured("recording", 2, 9.0, up=late),  # a busy machine
        measured("relay", 2, 6.0),
        measured("recording", 3, 5.0),  # beside nothing
    ]
    (plain, recorded) = json.loads(to_json(rounds))["summary"]
    assert "recording" not in plain
    assert recorded["recording"] == {"cpu": 1.5, "p99_up": 2.0, "p99_down": 1.0}
    out = io.StringIO()
    print_table(rounds, Console(file=out, width=120))
    told = "recording costs, 20 × 24000 Hz: cpu × 1.50, p99 up × 2.00, p99 down × 1.00"
    assert told in [line.rstrip() for line in out.getvalue().splitlines()]


def test_the_table_shows_medians_and_every_doubt() -> None:
    out = io.StringIO()
    print_table(ROUNDS, Console(file=out, width=120))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert " ".join(lines[1].split()) == "24000 20 relay 4.00 1.60 0.10 / 0.50 0.20 / 0.60 40 / 61"
    assert " ".join(lines[2].split()) == "24000 20 haproxy 2.00 – 0.10 / 0.50 0.20 / 0.60 40 / 61"
    assert lines[-1] == "round 3, 20 × 24000 Hz, relay: 1 of 20 sessions were lost"


def test_what_could_not_be_measured_is_a_dash() -> None:
    out = io.StringIO()
    nothing = Percentiles(None, None, None)
    print_table([measured("relay", 1, None, up=nothing, idle_kib=None, active_kib=-0.2)], Console(file=out, width=120))
    assert " ".join(out.getvalue().splitlines()[1].split()) == "24000 20 relay – – – / – 0.20 / 0.60 – / 0"


def test_the_json_holds_all_rounds_and_what_they_ran_on() -> None:
    told = json.loads(to_json(ROUNDS))
    assert len(told["rounds"]) == 6
    assert told["rounds"][4]["doubts"] == ["1 of 20 sessions were lost"]
    assert told["summary"][0] == {
        "rate_hz": 24_000, "sessions": 20, "subject": "relay", "cpu_ms": 4.0, "times_haproxy": 1.6
    }  # fmt: skip
    assert told["machine"]["packages"]["picows"]
