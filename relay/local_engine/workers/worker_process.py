"""A worker process as the server sees it: started on demand, restarted after a crash, driven by messages."""

import asyncio
import contextlib
import itertools
import logging
import os
from typing import Any

from relay.child_environment import python_command, python_environment
from relay.json_types import JsonObject
from relay.local_engine.speech.backend import SpeechBackendLost, fail_future
from relay.local_engine.workers.messages import encode_message, read_message

MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""The limit of requests that a worker has not read. A worker above it is killed, as if it had crashed."""
_MIN_RESTART_DELAY_S, _MAX_RESTART_DELAY_S = 0.05, 5.0
_STABLE_AFTER_S = 5.0
WORKER_COMMAND = python_command("relay.local_engine.workers")
_request_numbers = itertools.count(1)

_log = logging.getLogger(__name__)


class WorkerProcess:
    """One worker: started on the first request, and restarted on demand, after a growing delay, when it has ended.

    Requests are sent immediately and in order. `generation` is incremented whenever the process ends: the state that
    sessions had in it is lost.
    """

    def __init__(self, name: str, command: tuple[str, ...] = WORKER_COMMAND) -> None:
        self.name = name
        self.n_sessions = 0
        self.generation = 0
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._is_stopping = False
        self._restart_delay_s = 0.0

    @property
    def pid(self) -> int | None:
        """The process id, or None if it does not run."""
        return None if self._process is None else self._process.pid

    def request(self, head: JsonObject, body: bytes = b"") -> "asyncio.Future[Any]":
        """Send a request; returns its result. Raises SpeechBackendLost if the worker ends, RuntimeError if it fails."""
        number = next(_request_numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        future.add_done_callback(lambda _: self._pending.pop(number, None))
        self._send(encode_message({**head, "n": number}, body))
        return future

    def notify(self, head: JsonObject, body: bytes = b"") -> None:
        """Send a request that has no response."""
        self._send(encode_message({**head, "n": 0}, body))

    async def stop(self) -> None:
        """Kill the worker: it has no state to save."""
        self._is_stopping = True
        if self._task is not None:
            if self._process is None:
                self._task.cancel()
            self._kill()
            await asyncio.wait([self._task])
        self._fail_pending("has been stopped")

    def _send(self, message: bytes) -> None:
        if self._is_stopping:
            self._fail_pending("has been stopped")
            return
        stdin = None if self._process is None else self._process.stdin
        if stdin is None:
            self._unsent.append(message)
            self._unsent_bytes += len(message)
            if self._unsent_bytes > MAX_UNREAD_BYTES:
                self._fail_pending("does not start")
            elif self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())
        else:
            stdin.write(message)  # if the process has ended, `_run` is about to notice it
            if stdin.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
                _log.error("worker killed, it reads no requests worker=%r", self.name)
                self._kill()

    async def _run(self) -> None:
        """Start the process, resolve its responses, and clean up after its end."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._restart_delay_s)
        started_at, code = loop.time(), None
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=python_environment(os.environ),
            )
        except OSError:
            _log.exception("worker cannot be started worker=%r", self.name)
        else:
            self._process = process
            assert process.stdin is not None
            process.stdin.write(b"".join(self._unsent))
            self._unsent, self._unsent_bytes = [], 0
            await self._read(process)
            code = await process.wait()
        lasted_s = loop.time() - started_at
        next_delay_s = min(max(self._restart_delay_s * 2, _MIN_RESTART_DELAY_S), _MAX_RESTART_DELAY_S)
        self._restart_delay_s = 0.0 if lasted_s > _STABLE_AFTER_S else next_delay_s
        self._process = self._task = None
        if code != 0 and not self._is_stopping:
            _log.error("worker ended, restarts on demand worker=%r code=%s lasted_s=%.1f", self.name, code, lasted_s)
        self._fail_pending(f"ended with {code}")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Resolve requests until the worker ends."""
        assert process.stdout is not None
        try:
            while True:
                head, body = await read_message(process.stdout)
                future = self._pending.get(head["n"])
                if future is None or future.done():
                    continue
                if "error" in head:
                    fail_future(future, RuntimeError(head["error"]))
                else:
                    future.set_result(head.get("result", body))
        except asyncio.IncompleteReadError:
            pass
        except ValueError:
            _log.exception("worker killed, invalid response worker=%r", self.name)
            self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _fail_pending(self, reason: str) -> None:
        """Fail all requests: the process and its state are gone."""
        self.generation += 1
        self._unsent, self._unsent_bytes = [], 0
        for future in list(self._pending.values()):
            fail_future(future, SpeechBackendLost(f"worker {self.name} {reason}"))
