"""Whole measurements, by the command: short, but with everything in them."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from relay.child_environment import python_command
from scripts.benchmark.load import LoadSpec
from scripts.benchmark.measure import _find_doubts
from scripts.benchmark.targets import find_haproxy

GOOD = {"alive": 4, "up_delivered": 1.0, "down_delivered": 0.995, "late_ms": 2.0}


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"alive": 3}, "1 of 4 sessions were lost"),
        ({"up_delivered": 0.9}, "10 % of the sound up did not arrive"),
        ({"down_delivered": 0.5}, "50 % of the sound down did not arrive"),
        ({"late_ms": 31.0}, "the load itself was 31 ms late"),
    ],
)
def test_a_figure_that_should_not_be_believed_says_so(change: dict, doubt: str) -> None:
    load = LoadSpec("device", 4, 24_000, 1, 1)
    assert _find_doubts(GOOD, load, 20.0, is_pinned=True) == []
    assert _find_doubts(GOOD | change, load, 20.0, is_pinned=True) == [doubt]


def test_a_load_at_its_own_limit_says_so() -> None:
    load = LoadSpec("device", 4, 24_000, 1, 1)
    assert _find_doubts(GOOD, load, 93.0, is_pinned=True) == ["the load took 93 % of its core"]
    assert _find_doubts(GOOD, load, None, is_pinned=False) == ["one core for load and subject"]


async def bench(*arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *python_command("scripts.benchmark", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
    )
    async with asyncio.timeout(60):
        printed, complained = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode(), complained.decode()


@pytest.mark.long
async def test_recording_is_measured_beside_not_recording() -> None:
    code, printed, complained = await bench("--quick", "--recording", "--json")
    assert code == 0, complained
    measured = json.loads(printed)
    assert [one["subject"] for one in measured["rounds"]] == ["relay", "recording"]
    assert {"p99_up", "p99_down"} <= measured["summary"][1]["recording"].keys()
    assert not [doubt for one in measured["rounds"] for doubt in one["doubts"] if "lost" in doubt]


async def test_a_quick_run_measures_all_there_is_to_measure(tmp_path: Path) -> None:
    for name in ("audio", "json", "numpy", "relay"):  # of these, nothing is imported
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the working folder was run')")
    code, printed, complained = await bench("--quick", "--json", cwd=tmp_path)
    assert code == 0, complained
    rounds = json.loads(printed)["rounds"]
    assert [one["subject"] for one in rounds] == (["relay", "haproxy"] if find_haproxy() else ["relay"])
    for one in rounds:
        assert (one["sessions"], one["rate_hz"], one["round"]) == (4, 24_000, 1)
        assert not [doubt for doubt in one["doubts"] if "lost" in doubt or "arrive" in doubt]
        for direction in ("up", "down"):
            assert 0 < one[direction]["p50"] <= one[direction]["p99"] <= one[direction]["worst"]
        if sys.platform == "linux":
            assert one["cpu_ms"] > 0
            assert one["base_kib"] > 1000
            assert one["active_kib"] is not None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--sessions", "many"], "--sessions must be a number or several with commas"),
        (["--sessions", "0"], "--sessions must be at least 1"),
        (["--rate", "44100"], "--rate must be one of 8000, 16000, 24000, 48000"),
    ],
)
async def test_a_wrong_option_is_a_sentence(arguments: list[str], complaint: str) -> None:
    code, printed, complained = await bench(*arguments)
    assert (code, printed) == (2, "")
    assert complaint in complained
    assert "Traceback" not in complained
