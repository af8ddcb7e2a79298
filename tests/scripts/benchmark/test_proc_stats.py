"""Readings of /proc, compared with what this process and a child of it know of themselves."""

import os
import subprocess
import sys

import pytest

from scripts.benchmark import proc_stats as process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def test_cpu_time_is_counted() -> None:
    """In a process of its own: a thread that ends takes its time with it, and the tests' process has such threads."""
    program = (
        "import time; print(input(), flush=True); begin = time.process_time()\n"
        "while time.process_time() - begin < 0.1: pass\n"
        "print('done', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        before = process.cpu_seconds(child.pid)
        child.stdin.write("go\n")
        child.stdin.flush()
        assert [child.stdout.readline(), child.stdout.readline()] == ["go\n", "done\n"]
        after = process.cpu_seconds(child.pid)
        child.stdin.write("end\n")
    assert before is not None
    assert after is not None
    assert 0.05 < after - before < 1.0


def test_clock_ticks_say_the_same_where_the_scheduler_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = process.cpu_seconds(os.getpid())
    monkeypatch.setattr(process, "_schedstat_seconds", lambda pid: None)
    coarse = process.cpu_seconds(os.getpid())
    assert fine is not None
    assert coarse == pytest.approx(fine, rel=0.3, abs=0.5)


def test_children_belong_to_the_tree_and_to_its_memory() -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    own = process.memory_kib(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "1\n"
        assert len(process.process_tree(child.pid)) == 2
        assert len(process.process_tree(os.getpid())) >= 3
        both = process.memory_kib(child.pid)
        child.communicate("\n")
    assert own is not None
    assert own > 10_000
    assert both is not None
    assert 2000 < both < own


def test_where_there_is_no_proc_there_are_no_figures(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(process, "PROC", tmp_path)
    assert process.process_tree(1) == [1]
    assert process.cpu_seconds(1) is None
    assert process.memory_kib(1) is None


def test_load_and_subject_get_a_core_each_where_there_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 3, 4})
    assert process.choose_cores() == (3, 4)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert process.choose_cores() is None
    monkeypatch.delattr(os, "sched_getaffinity")
    assert process.choose_cores() is None
    process.pin_to_core(os.getpid(), None)
