"""The local engine as a supervised child: started with the relay, restarted when it dies, gone when the relay is."""

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
STEADY_S = 10.0

_log = logging.getLogger("relay.engine")


class EngineProcess:
    """Runs `python -m relay.local_engine` on a free loopback port.

    `url` is where it listens, None while it is not up; `failure` is why the last start failed.
    """

    def __init__(self) -> None:
        self.url: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.failure: str | None = None

    async def start(self) -> None:
        """Start the engine and wait until it listens. Raises RuntimeError with its last words if it does not."""
        await self._spawn()
        self._supervisor = asyncio.get_running_loop().create_task(self._supervise())

    async def stop(self) -> None:
        """End the engine, in bounded time."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            self._supervisor = None
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
        # The engine ends when its standard input does: also when we are killed and cannot say goodbye.
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
            self.failure = "the local engine did not start; its own message is above"
            raise RuntimeError(self.failure) from error

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        retry_s, started_at = FIRST_RETRY_S, loop.time()
        while True:
            process = self._process
            if process is not None:
                code = await process.wait()
                self.url = None
                if loop.time() - started_at > STEADY_S:
                    retry_s = FIRST_RETRY_S
                _log.error("the local engine ended with %s; starting it again in %.1f s", code, retry_s)
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, MAX_RETRY_S)
            try:
                await self._spawn()
                started_at = loop.time()
                _log.info("the local engine is up again")
            except (RuntimeError, OSError) as error:
                self._process = None
                _log.error("the local engine cannot be started: %s", error)
