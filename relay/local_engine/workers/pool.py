"""The server's side of the workers: who listens and speaks for whom, and what happens when one of them ends."""

import asyncio
import contextlib
import itertools
import logging
import os
from typing import Any

from relay.child_environment import python_command, python_environment
from relay.json_types import JsonObject
from relay.local_engine.speech.backend import Listener, Senses, SensesLost, fail, known
from relay.local_engine.speech.tts import Voice
from relay.local_engine.speech.turn_detector import Completeness
from relay.local_engine.workers import pack, receive

MOST_WORKERS = 8
MOST_UNREAD_BYTES = 64 * 1024 * 1024
"""Of requests that a worker has not read: one that hangs is ended there, like one that has crashed."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_STEADY_S = 5.0
_COMMAND = python_command("relay.local_engine.workers")
_numbers = itertools.count(1)

log = logging.getLogger(__name__)


def usual_workers() -> int:
    """How many processes listen if nothing is said: one for each core that we may use."""
    return max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4))


class WorkerProcess:
    """One worker: started when it is first needed, and again, after a pause that grows, when it has ended.

    Requests go out at once and in their order. `generation` grows whenever the process ends: what a session told the
    one before is gone.
    """

    def __init__(self, name: str, command: tuple[str, ...] = _COMMAND) -> None:
        self.name = name
        self.sessions = 0
        self.generation = 0
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._stopping = False
        self._pause_s = 0.0

    @property
    def pid(self) -> int | None:
        """The process id, if it runs."""
        return None if self._process is None else self._process.pid

    def ask(self, head: JsonObject, body: bytes = b"") -> "asyncio.Future[Any]":
        """Send a request; the answer is what it finds, SensesLost if the worker ends, RuntimeError if it fails."""
        number = next(_numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        answer.add_done_callback(lambda _: self._waiting.pop(number, None))
        self._send(pack({**head, "n": number}, body))
        return answer

    def tell(self, head: JsonObject, body: bytes = b"") -> None:
        """Send a request that has no answer."""
        self._send(pack({**head, "n": 0}, body))

    async def stop(self) -> None:
        """End the worker at once: it keeps nothing that would have to be saved."""
        self._stopping = True
        if self._task is not None:
            if self._process is None:
                self._task.cancel()
            self._kill()
            await asyncio.wait([self._task])
        self._lose("has been stopped")

    def _send(self, message: bytes) -> None:
        if self._stopping:
            self._lose("has been stopped")
            return
        stdin = None if self._process is None else self._process.stdin
        if stdin is None:
            self._early.append(message)
            self._early_bytes += len(message)
            if self._early_bytes > MOST_UNREAD_BYTES:
                self._lose("does not start")
            elif self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())
        else:
            stdin.write(message)  # where the other end is gone, `_run` knows in a moment
            if stdin.transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
                log.error("the worker %s reads nothing any more; it is ended", self.name)
                self._kill()

    async def _run(self) -> None:
        """Start the process, hand out its answers, and clear up behind it."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._pause_s)
        started_at, code = loop.time(), None
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=python_environment(os.environ),
            )
        except OSError:
            log.exception("the worker %s cannot be started", self.name)
        else:
            self._process = process
            assert process.stdin is not None
            process.stdin.write(b"".join(self._early))
            self._early, self._early_bytes = [], 0
            await self._read(process)
            code = await process.wait()
        lasted_s = loop.time() - started_at
        self._pause_s = 0.0 if lasted_s > _STEADY_S else min(max(self._pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._process = self._task = None
        if code != 0 and not self._stopping:
            log.error(
                "the worker %s ended with %s after %.1f s; it starts again when it is needed", self.name, code, lasted_s
            )
        self._lose(f"ended with {code}")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out answers until the worker ends."""
        assert process.stdout is not None
        try:
            while True:
                head, body = await receive(process.stdout)
                answer = self._waiting.get(head["n"])
                if answer is None or answer.done():
                    continue
                if "error" in head:
                    fail(answer, RuntimeError(head["error"]))
                else:
                    answer.set_result(head.get("result", body))
        except asyncio.IncompleteReadError:
            pass
        except ValueError:
            log.exception("the worker %s sends what is no answer", self.name)
            self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _lose(self, why: str) -> None:
        """All that was asked or told is gone."""
        self.generation += 1
        self._early, self._early_bytes = [], 0
        for answer in list(self._waiting.values()):
            fail(answer, SensesLost(f"the worker {self.name} {why}"))


class RemoteListener(Listener):
    """A session's listener in a worker. A turn whose worker ends is lost; the next one finds the worker again."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._id = f"ears_{next(_numbers)}"
        self._tools = b"[]"
        self._told: tuple[int, bytes] | None = None
        self._turn_generation: int | None = None
        self._is_open = True
        worker.sessions += 1

    def configure(self, tools: bytes) -> None:
        self._tools = tools

    def begin(self, *, narrow: bool) -> None:
        self._meet()
        self._turn_generation = self._worker.generation
        self._worker.tell({"do": "begin", "session": self._id, "narrow": narrow})

    def feed(self, pcm: bytes) -> None:
        if self._turn_generation == self._worker.generation:
            self._worker.tell({"do": "feed", "session": self._id}, pcm)

    def so_far(self, silence_ms: int) -> "asyncio.Future[Completeness]":
        return self._asked({"do": "so_far", "silence_ms": silence_ms})

    def end(self) -> "asyncio.Future[str | None]":
        if self._turn_generation is None:
            return known("")
        answer: asyncio.Future[str | None] = self._asked({"do": "end"})
        self._turn_generation = None
        return answer

    def drop(self) -> None:
        if self._turn_generation == self._worker.generation:
            self._worker.tell({"do": "drop", "session": self._id})
        self._turn_generation = None

    def clip(self, pcm: bytes, *, narrow: bool) -> "asyncio.Future[str | None]":
        self._meet()
        return self._worker.ask({"do": "clip", "session": self._id, "narrow": narrow}, pcm)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._worker.sessions -= 1
        if self._told is not None and self._told[0] == self._worker.generation:
            self._worker.tell({"do": "close", "session": self._id})

    def _meet(self) -> None:
        """Tell the worker of today what to listen for, if it does not know."""
        today = (self._worker.generation, self._tools)
        if self._told != today:
            self._told = today
            self._worker.tell({"do": "configure", "session": self._id}, self._tools)

    def _asked(self, head: JsonObject) -> "asyncio.Future[Any]":
        """Ask about the turn, if its worker still lives."""
        if self._turn_generation == self._worker.generation:
            return self._worker.ask({**head, "session": self._id})
        lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        fail(lost, SensesLost(f"the worker {self._worker.name} was started again"))
        return lost


class WorkerSenses(Senses):
    """`listeners` processes that listen, and one that speaks. Raises ConfigError if there is no voice."""

    def __init__(self, listeners: int) -> None:
        Voice()
        in_background = (*_COMMAND, "--background")
        self._listeners = [
            WorkerProcess(f"ears {number + 1}", in_background) for number in range(min(listeners, MOST_WORKERS))
        ]
        self._speaker = WorkerProcess("voice")

    @property
    def workers(self) -> list[WorkerProcess]:
        """All of them: those that listen, then the one that speaks."""
        return [*self._listeners, self._speaker]

    async def warm(self) -> None:
        """Start all workers, so that the first turn does not wait for them; one that fails is tried again on demand."""
        asked = [worker.ask({"do": "warm", "for": "words"}) for worker in self._listeners]
        asked.append(self._speaker.ask({"do": "warm", "for": "speech"}))
        for failure in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(failure, Exception):
                log.warning("a worker is not ready: %s", failure)

    def listener(self) -> Listener:
        """A listener in the worker with the fewest sessions."""
        return RemoteListener(min(self._listeners, key=lambda worker: worker.sessions))

    async def speak(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        request = {"do": "speak", "sentence": sentence, "output": output, "is_first": is_first}
        sound: bytes = await self._speaker.ask(request)
        return sound

    async def close(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self.workers))
