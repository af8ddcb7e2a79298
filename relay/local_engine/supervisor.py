"""Runs the local engine as a supervised child process of the relay."""

import asyncio
import contextlib
import json
import logging
import os

from relay.child_environment import python_command, python_environment

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 3.0
FIRST_RETRY_S = 0.5
MAX_RETRY_S = 30.0
STABLE_AFTER_S = 10.0
_log = logging.getLogger("relay.engine")


class EngineSupervisor:
    """Runs `python -m relay.local_engine` on a free loopback port, and restarts it with exponential backoff.

    `url` is its address, None while it is down; `failure` is the reason if the last start failed.
    """

    def __init__(self) -> None:
        self.url: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._restart_task: asyncio.Task[None] | None = None
        self.failure: str | None = None

    async def start(self) -> None:
        """Start the engine and wait until it listens. Raises RuntimeError if it does not start."""
        await self._spawn()
        self._restart_task = asyncio.get_running_loop().create_task(self._restart_on_exit())

    async def stop(self) -> None:
        """Stop the engine, in bounded time."""
        if self._restart_task is not None:
            self._restart_task.cancel()
            await asyncio.wait([self._restart_task])
            self._restart_task = None
        self.url = None
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _spawn(self) -> None:
        # The engine exits when its standard input closes, so that it also ends if the relay is killed.
        self._process = process = await asyncio.create_subprocess_exec(
            *python_command("relay.local_engine", "--host", "127.0.0.1", "--port", "0", "--exit-with-stdin"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=python_environment(os.environ),
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                assert process.stdout is not None
                line = await process.stdout.readline()
            self.url = f"ws://127.0.0.1:{int(json.loads(line)['port'])}/v1/realtime"
            self.failure = None
        except (TimeoutError, ValueError, KeyError, TypeError) as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            self.failure = "the local engine did not start; its error is above in the log"
            raise RuntimeError(self.failure) from error

    async def _restart_on_exit(self) -> None:
        loop = asyncio.get_running_loop()
        retry_s, started_at = FIRST_RETRY_S, loop.time()
        while True:
            process = self._process
            if process is not None:
                code = await process.wait()
                self.url = None
                if loop.time() - started_at > STABLE_AFTER_S:
                    retry_s = FIRST_RETRY_S
                _log.error("local engine exited: status=%s restart_in_s=%.1f", code, retry_s)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, MAX_RETRY_S)
            try:
                await self._spawn()
                started_at = loop.time()
                _log.info("local engine restarted")
            except (RuntimeError, OSError) as error:
                self._process = None
                _log.error("local engine failed to start: %s", error)
