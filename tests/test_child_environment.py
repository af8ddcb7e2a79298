"""What child processes get of the relay's environment, and from where they import."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.child_environment import TLS_VARIABLES, child_environment, python_command, python_environment
from relay.local_engine.supervisor import EngineSupervisor
from relay.local_engine.workers.worker_process import WorkerProcess
from relay.recording.service import RecordingService

ROOT = Path(__file__).parent.parent
SECRETS = {
    "OPENAI_API_KEY": "sk-child-0001-abcdef",
    "DB_DSN": "postgres://user:pa55-child-0002@db/x",
    "AWS_CREDS": "AKIACHILD0003",
    "GIT_ASKPASS": "/bin/child-0004",
    "HTTPS_PROXY": "http://user:pa55-child-0005@proxy:3128",
    "RELAY_API_KEYS": "relay-child-0006-abcdef",
}
KEPT = {"PATH": "/usr/bin", "HOME": "/root", "LANG": "C.UTF-8", "LC_ALL": "C", "TZ": "UTC", "OMP_NUM_THREADS": "1"}
EVIL = "import pathlib; pathlib.Path({mark!r}).touch()\n"
NAMES = ("audio.py", "relay.py", "json.py", "asyncio.py", "logging.py", "numpy.py", "sitecustomize.py")


def test_a_child_gets_what_the_table_names_and_nothing_else() -> None:
    environ = (
        SECRETS | KEPT | {"PYTHONSTARTUP": "/x.py", "PYTHONPATH": "/x", "LD_PRELOAD": "/x.so", "SSL_CERT_FILE": "/c"}
    )
    assert child_environment(environ) == KEPT
    assert child_environment(environ, TLS_VARIABLES) == KEPT | {"SSL_CERT_FILE": "/c"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", None),
        (":", None),
        (".", None),
        ("src:lib", None),
        ("/a:/b", "/a:/b"),
        (":/a:.:/b:", "/a:/b"),
    ],
)
def test_an_import_path_keeps_what_is_no_working_folder(given: str, kept: str | None) -> None:
    assert python_environment({"PYTHONPATH": given}).get("PYTHONPATH") == kept


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder full of modules that nobody may run, and an environment full of secrets."""
    folder = tmp_path / "evil"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(EVIL.format(mark=str(tmp_path / f"{name} was run")))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", "."]))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    yield folder
    assert not list(tmp_path.glob("* was run"))


async def environment_of(pid: int | None, module: str) -> str:
    """What a process began with, once it runs a module of ours: before that, it is a copy of its parent."""
    async with asyncio.timeout(20):
        while f"\0{module}\0" not in told_of(pid, "cmdline"):  # noqa: ASYNC110  # another process tells nobody
            await asyncio.sleep(0.02)
    return told_of(pid, "environ")


def told_of(pid: int | None, what: str) -> str:
    return Path(f"/proc/{pid}/{what}").read_text()


def children_of(pid: int) -> list[int]:
    return [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]


def check(environment: str) -> None:
    shown = [value for value in SECRETS.values() if value in environment]
    assert not shown
    assert "PATH=" in environment


async def test_the_engine_and_its_workers(evil: Path) -> None:
    before = set(children_of(os.getpid()))
    engine = EngineSupervisor()
    await engine.start()
    try:
        [pid] = set(children_of(os.getpid())) - before
        check(await environment_of(pid, "relay.local_engine"))
        async with asyncio.timeout(20):
            while len(workers := children_of(pid)) < 2:  # noqa: ASYNC110  # another process tells nobody
                await asyncio.sleep(0.02)
        for worker in workers:
            check(await environment_of(worker, "relay.local_engine.workers"))
    finally:
        await engine.stop()


async def test_a_worker(evil: Path) -> None:
    worker = WorkerProcess("voice")
    try:
        await asyncio.wait_for(worker.request({"do": "warm_up", "for": "synthesis"}), 20)
        check(await environment_of(worker.pid, "relay.local_engine.workers"))
    finally:
        await worker.stop()


def test_a_command_of_ours_runs_from_anywhere(evil: Path) -> None:
    done = subprocess.run(
        python_command("relay.cli.finish_recordings", "--help"),
        env=python_environment(os.environ), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "--max-days" in done.stdout


async def test_the_recording_finisher(evil: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, done = tmp_path / "seen", tmp_path / "done"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n{{ env; echo "ran with $*"; }} > {seen}\necho > {done}\n')
    python.chmod(0o700)
    os.mkfifo(done)
    monkeypatch.setattr(sys, "executable", str(python))
    (tmp_path / "recordings").mkdir()
    service = RecordingService(tmp_path / "recordings", "on")
    service.start()
    try:
        await asyncio.wait_for(asyncio.to_thread(done.read_text), 10)
    finally:
        await service.stop()
    check(seen.read_text())
    assert "ran with -P -m relay.cli.finish_recordings" in seen.read_text()


@pytest.mark.skipif(sys.base_prefix == sys.prefix, reason="needs an interpreter without the relay")
def test_sources_that_were_never_installed_are_found_and_hide_nothing(evil: Path, tmp_path: Path) -> None:
    """As where a folder of sources is run by an interpreter that has the packages alone."""
    sources = tmp_path / "sources"
    (sources / "relay").mkdir(parents=True)
    shutil.copy(ROOT / "relay" / "child_environment.py", sources / "relay")
    (sources / "relay" / "__init__.py").touch()
    (sources / "relay" / "child.py").write_text("import json, sys\nprint(json.__name__, __name__, *sys.argv[1:])\n")
    (sources / "json.py").write_text(EVIL.format(mark=str(tmp_path / "json.py of the sources was run")))
    program = (
        f"import sys; sys.path.append({str(sources)!r}); import os, subprocess; "
        "from relay.child_environment import python_command, python_environment; "
        "subprocess.run(python_command('relay.child', 'a', '--b'), env=python_environment(os.environ), check=True)"
    )
    python = Path(sys.base_prefix) / "bin" / "python3"
    environ = {"PATH": os.environ["PATH"]}
    done = subprocess.run([python, "-P", "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["json", "__main__", "a", "--b"]


def test_the_relay_command(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    command = [Path(sys.executable).with_name("relay"), "talk", "--text", "hello", "--url", "ws://127.0.0.1:9/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == 1  # nobody listens there


# -- all of them ------------------------------------------------------------------------------------------------------

STARTS_A_PROCESS = re.compile(
    r"create_subprocess_\w+\(|\bsubprocess\.(?:run|Popen|call|check_\w+|getoutput)\(|\bos\.(?:system|popen|exec\w+|spawn\w+|"
    r"posix_spawn\w*|fork\w*)\(|\bmultiprocessing\b|\bProcessPoolExecutor\b|\bstdio_client\("
)
HOW = {
    "scripts/benchmark/measure.py": "python_command(",
    "scripts/benchmark/targets.py": "python_command(",
    "relay/local_engine/supervisor.py": "python_command(",
    "relay/local_engine/workers/worker_process.py": "python_command(",
    "relay/recording/service.py": "python_command(",
    "relay/toolkit/mcp/client.py": "child_environment(",  # a server's own command; it gets no PYTHONPATH
}
"""What starts processes, and by what: a new place is one row."""
RUNS_PYTHON = re.compile(r"""(?:python3?|\$\{?python\}?|\$\{?candidate\}?)"?[ \t]+(-\w\S*)""")


def test_every_place_that_starts_a_process_is_known() -> None:
    paths = [*(ROOT / "relay").rglob("*.py"), *(ROOT / "scripts" / "benchmark").glob("*.py")]
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in paths}
    starting = {name for name, text in sources.items() if STARTS_A_PROCESS.search(text)}
    assert starting == HOW.keys()
    assert [name for name, how in HOW.items() if how not in sources[name]] == []
    assert "sys.executable" not in "".join(text for name, text in sources.items() if "child_environment" not in name)


def scripts() -> list[Path]:
    found = [path for path in (ROOT / "scripts").iterdir() if path.is_file() and path.suffix != ".lock"]
    return sorted([*found, ROOT / ".ci" / "run"])


@pytest.mark.parametrize("path", scripts(), ids=lambda path: path.name)
def test_scripts_run_python_without_the_working_folder(path: Path) -> None:
    text = path.read_text()
    assert {option for option in RUNS_PYTHON.findall(text) if option != "-P"} == set()
    assert "sys.path.insert" not in text
