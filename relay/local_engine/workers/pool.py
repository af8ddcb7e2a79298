"""The server's side of the workers: who listens and speaks for whom, and what happens when one of them ends."""

import asyncio
import contextlib
import itertools
import logging
import os
from typing import Any

from relay.child_environment import python_command, python_environment
from relay.json_types import JsonObject
from relay.local_engine.speech.backend import (
    SessionRecognizer,
    SpeechBackend,
    SpeechBackendLost,
    fail_future,
    resolved_future,
)
from relay.local_engine.speech.tts import SpeechSynthesizer
from relay.local_engine.speech.turn_detector import Completeness
from relay.local_engine.workers import encode_message, read_message

MAX_WORKERS = 8
MAX_UNREAD_BYTES = 64 * 1024 * 1024
"""Of requests that a worker has not read: one that hangs is ended there, like one that has crashed."""
_MIN_RESTART_DELAY_S, _MAX_RESTART_DELAY_S = 0.05, 5.0
_STABLE_AFTER_S = 5.0
_COMMAND = python_command("relay.local_engine.workers")
_numbers = itertools.count(1)

_log = logging.getLogger(__name__)


def default_worker_count() -> int:
    """How many processes listen if nothing is said: one for each core that we may use."""
    return max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4))


class WorkerProcess:
    """One worker: started when it is first needed, and again, after a pause that grows, when it has ended.

    Requests go out at once and in their order. `generation` grows whenever the process ends: what a session told the
    one before is gone.
    """

    def __init__(self, name: str, command: tuple[str, ...] = _COMMAND) -> None:
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
        """The process id, if it runs."""
        return None if self._process is None else self._process.pid

    def request(self, head: JsonObject, body: bytes = b"") -> "asyncio.Future[Any]":
        """Send a request; the answer is what it finds, SensesLost if the worker ends, RuntimeError if it fails."""
        number = next(_numbers)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        future.add_done_callback(lambda _: self._pending.pop(number, None))
        self._send(encode_message({**head, "n": number}, body))
        return future

    def notify(self, head: JsonObject, body: bytes = b"") -> None:
        """Send a request that has no answer."""
        self._send(encode_message({**head, "n": 0}, body))

    async def stop(self) -> None:
        """End the worker at once: it keeps nothing that would have to be saved."""
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
            stdin.write(message)  # where the other end is gone, `_run` knows in a moment
            if stdin.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
                _log.error("the worker %s reads nothing any more; it is ended", self.name)
                self._kill()

    async def _run(self) -> None:
        """Start the process, hand out its answers, and clear up behind it."""
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
            _log.exception("the worker %s cannot be started", self.name)
        else:
            self._process = process
            assert process.stdin is not None
            process.stdin.write(b"".join(self._unsent))
            self._unsent, self._unsent_bytes = [], 0
            await self._read(process)
            code = await process.wait()
        lasted_s = loop.time() - started_at
        self._restart_delay_s = (
            0.0
            if lasted_s > _STABLE_AFTER_S
            else min(max(self._restart_delay_s * 2, _MIN_RESTART_DELAY_S), _MAX_RESTART_DELAY_S)
        )
        self._process = self._task = None
        if code != 0 and not self._is_stopping:
            _log.error(
                "the worker %s ended with %s after %.1f s; it starts again when it is needed", self.name, code, lasted_s
            )
        self._fail_pending(f"ended with {code}")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out answers until the worker ends."""
        assert process.stdout is not None
        try:
            while True:
                head, body = await read_message(process.stdout)
                answer = self._pending.get(head["n"])
                if answer is None or answer.done():
                    continue
                if "error" in head:
                    fail_future(answer, RuntimeError(head["error"]))
                else:
                    answer.set_result(head.get("result", body))
        except asyncio.IncompleteReadError:
            pass
        except ValueError:
            _log.exception("the worker %s sends what is no answer", self.name)
            self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _fail_pending(self, reason: str) -> None:
        """All that was asked or told is gone."""
        self.generation += 1
        self._unsent, self._unsent_bytes = [], 0
        for future in list(self._pending.values()):
            fail_future(future, SpeechBackendLost(f"the worker {self.name} {reason}"))


class RemoteRecognizer(SessionRecognizer):
    """A session's listener in a worker. A turn whose worker ends is lost; the next one finds the worker again."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._id = f"ears_{next(_numbers)}"
        self._tools = b"[]"
        self._sent_config: tuple[int, bytes] | None = None
        self._turn_generation: int | None = None
        self._is_open = True
        worker.n_sessions += 1

    def configure(self, tools: bytes) -> None:
        self._tools = tools

    def start_turn(self, *, is_narrowband: bool) -> None:
        self._ensure_configured()
        self._turn_generation = self._worker.generation
        self._worker.notify({"do": "begin", "session": self._id, "narrow": is_narrowband})

    def feed(self, pcm: bytes) -> None:
        if self._turn_generation == self._worker.generation:
            self._worker.notify({"do": "feed", "session": self._id}, pcm)

    def query_completeness(self, silence_ms: int) -> "asyncio.Future[Completeness]":
        return self._request_for_turn({"do": "so_far", "silence_ms": silence_ms})

    def end_turn(self) -> "asyncio.Future[str | None]":
        if self._turn_generation is None:
            return resolved_future("")
        answer: asyncio.Future[str | None] = self._request_for_turn({"do": "end"})
        self._turn_generation = None
        return answer

    def discard_turn(self) -> None:
        if self._turn_generation == self._worker.generation:
            self._worker.notify({"do": "drop", "session": self._id})
        self._turn_generation = None

    def transcribe_clip(self, pcm: bytes, *, is_narrowband: bool) -> "asyncio.Future[str | None]":
        self._ensure_configured()
        return self._worker.request({"do": "clip", "session": self._id, "narrow": is_narrowband}, pcm)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._worker.n_sessions -= 1
        if self._sent_config is not None and self._sent_config[0] == self._worker.generation:
            self._worker.notify({"do": "close", "session": self._id})

    def _ensure_configured(self) -> None:
        """Tell the worker of today what to listen for, if it does not know."""
        config = (self._worker.generation, self._tools)
        if self._sent_config != config:
            self._sent_config = config
            self._worker.notify({"do": "configure", "session": self._id}, self._tools)

    def _request_for_turn(self, head: JsonObject) -> "asyncio.Future[Any]":
        """Ask about the turn, if its worker still lives."""
        if self._turn_generation == self._worker.generation:
            return self._worker.request({**head, "session": self._id})
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        fail_future(future, SpeechBackendLost(f"the worker {self._worker.name} was started again"))
        return future


class ProcessBackend(SpeechBackend):
    """`listeners` processes that listen, and one that speaks. Raises ConfigError if there is no voice."""

    def __init__(self, n_recognizers: int) -> None:
        SpeechSynthesizer()
        in_background = (*_COMMAND, "--background")
        self._recognizers = [
            WorkerProcess(f"ears {number + 1}", in_background) for number in range(min(n_recognizers, MAX_WORKERS))
        ]
        self._synthesizer = WorkerProcess("voice")

    @property
    def workers(self) -> list[WorkerProcess]:
        """All of them: those that listen, then the one that speaks."""
        return [*self._recognizers, self._synthesizer]

    async def warm_up(self) -> None:
        """Start all workers, so that the first turn does not wait for them; one that fails is tried again on demand."""
        warm_ups = [worker.request({"do": "warm", "for": "words"}) for worker in self._recognizers]
        warm_ups.append(self._synthesizer.request({"do": "warm", "for": "speech"}))
        for failure in await asyncio.gather(*warm_ups, return_exceptions=True):
            if isinstance(failure, Exception):
                _log.warning("a worker is not ready: %s", failure)

    def new_recognizer(self) -> SessionRecognizer:
        """A listener in the worker with the fewest sessions."""
        return RemoteRecognizer(min(self._recognizers, key=lambda worker: worker.n_sessions))

    async def synthesize(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        request = {"do": "speak", "sentence": sentence, "output": output, "is_first": is_first}
        audio: bytes = await self._synthesizer.request(request)
        return audio

    async def close(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self.workers))
