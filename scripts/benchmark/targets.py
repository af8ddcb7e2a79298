"""What is measured: a relay, one that records, and HAProxy, a proxy of raw TCP, which costs the least there can be."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from relay.child_environment import child_environment, python_command, python_environment
from relay.errors import RelayError
from scripts.benchmark import proc_stats as process
from scripts.benchmark.fake_peers import LoadProtocol

TargetName = Literal["relay", "recording", "haproxy"]
PROTOCOLS: dict[TargetName, LoadProtocol] = {"relay": "device", "recording": "device", "haproxy": "realtime"}
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class BenchError(RelayError):
    """The measurement could not be made; the text is the sentence for the user."""


def find_haproxy() -> str | None:
    """The path of HAProxy, if it is installed; Debian keeps it where not every PATH looks."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def run_target(
    name: TargetName, upstream_port: int, sessions: int, core: int | None
) -> AsyncIterator[tuple[int, str]]:
    """Start a subject in front of the model at `upstream_port`; gives its pid and the address for its clients."""
    port = _free_port()
    with TemporaryDirectory(prefix="relay-bench-") as folder:
        command, environment = _command(name, Path(folder), port, upstream_port, sessions)
        target = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        process.pin_to_core(target.pid, core)
        stderr_tail = asyncio.create_task(_read_stderr_tail(target))
        try:
            await _wait_until_listening(port, target, stderr_tail, name)
            yield target.pid, f"ws://127.0.0.1:{port}/"
        finally:
            await _stop(target)
            await stderr_tail


def _command(
    name: TargetName, folder: Path, port: int, upstream_port: int, sessions: int
) -> tuple[list[str], dict[str, str]]:
    if name == "haproxy":
        haproxy = find_haproxy()
        if haproxy is None:
            raise BenchError("HAProxy is not installed. Install it with: sudo apt-get install haproxy")
        config = files(__package__).joinpath("haproxy.cfg").read_text()
        (folder / "haproxy.cfg").write_text(config.format(port=port, upstream_port=upstream_port))
        return [haproxy, "-db", "-f", "haproxy.cfg"], child_environment(os.environ)
    (folder / "tools").mkdir(mode=0o700)
    # It runs in an empty folder, so that no `.env` and no tool of the user's takes part.
    environment = python_environment(os.environ) | {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "RELAY_UPSTREAM": f"ws://127.0.0.1:{upstream_port}/v1/realtime",
        "RELAY_MAX_SESSIONS": str(sessions),
        "RELAY_LOG_LEVEL": "warning",
    }
    if name == "recording":
        environment |= {"RELAY_RECORD": "on", "RELAY_RECORDINGS_DIR": str(folder / "recordings")}
    return [*python_command("relay", "serve")], environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _wait_until_listening(
    port: int, target: asyncio.subprocess.Process, stderr_tail: "asyncio.Task[str]", name: TargetName
) -> None:
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    while asyncio.get_running_loop().time() < deadline:
        if target.returncode is not None:
            raise BenchError(f"{name} did not start: {(await stderr_tail).strip() or 'it said nothing'}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)  # nobody tells us when another process listens
        else:
            writer.close()
            return
    raise BenchError(f"{name} did not listen within {START_TIMEOUT_S:.0f} s")


async def _read_stderr_tail(target: asyncio.subprocess.Process) -> str:
    """Read what the subject complains of, so that it never waits for a reader; the last of it is kept."""
    assert target.stderr is not None
    tail = b""
    while read := await target.stderr.read(4096):
        tail = (tail + read)[-2000:]
    return tail.decode(errors="replace")


async def _stop(target: asyncio.subprocess.Process) -> None:
    if target.returncode is not None:
        return
    target.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await target.wait()
    except TimeoutError:
        target.kill()
        await target.wait()
