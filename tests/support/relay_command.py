"""The `relay` command in a process of its own, as its user starts it."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

RELAY_COMMAND = Path(sys.executable).with_name("relay")
START_TIMEOUT_S = 60.0


def relay_environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    ours = re.compile(r"RELAY_|OPENAI_|NAVAI_|AZURE_|ELEVENLABS_|HOST$|PORT$")
    kept = {name: value for name, value in os.environ.items() if not ours.match(name)}
    return kept | {"HOME": str(tmp_path)} | settings


class ServeProcess:
    """A `relay serve` process, its port and its log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log = ""
        self.port = 0

    async def read_until(self, pattern: str) -> re.Match[str]:
        assert self.process.stderr is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            while not (found := re.search(pattern, self.log)):
                line = await self.process.stderr.readline()
                assert line, f"ended before {pattern!r}:\n{self.log}"
                self.log += line.decode()
        return found


@asynccontextmanager
async def serve_process(
    tmp_path: Path, *arguments: str, open_files: tuple[int, int] | None = None, umask: int = -1, **settings: str
) -> AsyncIterator[ServeProcess]:
    """A relay that has come up; `open_files` are its soft and its hard limit of descriptors."""
    process = await asyncio.create_subprocess_exec(
        *(_limited(*open_files) if open_files else ()), RELAY_COMMAND, "serve", "--port", "0", *arguments,
        stderr=asyncio.subprocess.PIPE, env=relay_environment(tmp_path, **settings), cwd=tmp_path, umask=umask,
    )  # fmt: skip
    served = ServeProcess(process)
    try:
        found = await served.read_until(r"ready: open http://127\.0\.0\.1:(\d+)")
        served.port = int(found[1])
        yield served
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _limited(soft: int, hard: int) -> tuple[str, ...]:
    """The beginning of a command whose program may open so many files."""
    return "sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh"
