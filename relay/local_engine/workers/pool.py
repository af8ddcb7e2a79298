"""The server's side of the workers: who hears and speaks for whom, and what happens when one of them ends."""

import asyncio
import contextlib
import itertools
import logging
import os
import sys
from typing import Any

from relay.local_engine.ears import Started, Stopped
from relay.local_engine.senses import Hearing, SensesLost
from relay.local_engine.speech.tts import Voice
from relay.local_engine.workers.messages import Obj, pack, receive

MOST_WORKERS = 8
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_STEADY_S = 5.0
_COMMAND = (sys.executable, "-P", "-m", "relay.local_engine.workers")
_numbers = itertools.count(1)

log = logging.getLogger(__name__)


def usual_workers() -> int:
    """How many processes listen if nothing is said: one for each core that we may use."""
    return max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4))


class WorkerProcess:
    """One worker: started when it is first needed, and again, after a pause that grows, when it has ended."""

    def __init__(self, name: str, command: tuple[str, ...] = _COMMAND) -> None:
        self.name = name
        self.sessions = 0
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[tuple[Obj, bytes]]] = {}
        self._stopping = False
        self._pause_s = 0.0
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        """The process id, if it runs."""
        return None if self._process is None else self._process.pid

    async def ask(self, head: Obj, body: bytes = b"") -> tuple[Obj, bytes]:
        """Send a request and wait for its answer. Raises SensesLost if the worker ends, RuntimeError if it fails."""
        process = await self._running()
        assert process.stdin is not None
        number = next(_numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            process.stdin.write(pack({"n": number, **head}, body))
            await process.stdin.drain()
            found, sound = await answer
        except (ConnectionError, RuntimeError) as error:
            await self._bury(process)
            raise SensesLost(f"the worker {self.name} has ended") from error
        finally:
            self._waiting.pop(number, None)
        if "error" in found:
            raise RuntimeError(found["error"])
        return found, sound

    def tell(self, head: Obj) -> None:
        """Send a request whose answer nobody waits for; nothing happens if the worker has ended."""
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(pack({"n": 0, **head}))

    async def stop(self) -> None:
        """End the worker at once: it keeps nothing that would have to be saved."""
        self._stopping = True
        process = self._process
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        if self._reader is not None:
            await asyncio.wait([self._reader])

    async def _bury(self, process: asyncio.subprocess.Process) -> None:
        """Its input is broken: wait until it is known to have ended, so that the next request starts another."""
        if self._process is process and self._reader is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait([self._reader])

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is None:
                await asyncio.sleep(self._pause_s)
                self._process = await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
                )
                self._started_at = asyncio.get_running_loop().time()
                self._reader = asyncio.get_running_loop().create_task(self._read(self._process))
            return self._process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Hand out answers until the worker ends."""
        assert process.stdout is not None
        try:
            while True:
                head, body = await receive(process.stdout)
                answer = self._waiting.get(head["n"])
                if answer is not None and not answer.done():
                    answer.set_result((head, body))
        except asyncio.IncompleteReadError:
            pass
        except ValueError:
            log.exception("the worker %s sends what is no answer", self.name)
            process.kill()
        self._ended(await process.wait())

    def _ended(self, code: int) -> None:
        self._process = None
        lasted_s = asyncio.get_running_loop().time() - self._started_at
        self._pause_s = 0.0 if lasted_s > _STEADY_S else min(max(self._pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        if code != 0 and not self._stopping:
            log.error(
                "the worker %s ended with %s after %.1f s; it starts again when it is needed", self.name, code, lasted_s
            )
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(SensesLost(f"the worker {self.name} ended with {code}"))


class RemoteHearing:
    """A session's ears in a worker."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._id = f"ears_{next(_numbers)}"
        self._pid: int | None = None
        worker.sessions += 1

    async def open(self, start_ms: int) -> None:
        """Begin, in whichever process the worker is now."""
        await self._worker.ask({"do": "open", "session": self._id, "start_ms": start_ms})
        self._pid = self._worker.pid

    async def configure(self, input_format: str, turn_detection: dict[str, Any] | None, tools: bytes) -> None:
        """Listen this way from now on."""
        await self._ask("configure", tools, format=input_format, turn_detection=turn_detection)

    async def hear(self, audio: bytes) -> Started | Stopped | None:
        """Take in audio, up to the first thing that happens."""
        event = await self._ask("hear", audio)
        if event is None:
            return None
        return Started(event["started"]) if "started" in event else Stopped(event["stopped"])

    async def finish(self) -> str | None:
        """End the turn; returns what was said."""
        words: str | None = await self._ask("finish")
        return words

    async def clip(self, audio: bytes) -> str | None:
        """Recognise a clip apart from the stream."""
        words: str | None = await self._ask("clip", audio)
        return words

    async def forget(self) -> None:
        """Drop the turn under way."""
        await self._ask("forget")

    def close(self) -> None:
        """Give everything back."""
        self._worker.sessions -= 1
        if self._pid is not None and self._pid == self._worker.pid:
            self._worker.tell({"do": "close", "session": self._id})

    async def _ask(self, what: str, body: bytes = b"", **fields: Any) -> Any:
        if self._pid != self._worker.pid:  # it is another process by now, which knows nothing of us
            raise SensesLost(f"the worker {self._worker.name} was started again")
        answer, _ = await self._worker.ask({"do": what, "session": self._id, **fields}, body)
        return answer["result"]


class WorkerSenses:
    """`listeners` processes that listen, and one that speaks. Raises ConfigError if there is no voice."""

    def __init__(self, listeners: int) -> None:
        Voice()
        self._listeners = [WorkerProcess(f"ears {number + 1}") for number in range(min(listeners, MOST_WORKERS))]
        self._speaker = WorkerProcess("voice")

    @property
    def workers(self) -> list[WorkerProcess]:
        """All of them: those that listen, then the one that speaks."""
        return [*self._listeners, self._speaker]

    async def warm(self) -> None:
        """Start all workers, so that the first turn does not wait for them; one that fails is tried again on demand."""
        asked = [worker.ask({"do": "warm", "session": "warm"}) for worker in self.workers]
        for failure in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(failure, Exception):
                log.warning("a worker is not ready: %s", failure)

    async def ears(self, start_ms: int = 0) -> Hearing:
        """Ears in the worker with the fewest sessions; one that dies on the way is tried once more."""
        hearing = RemoteHearing(min(self._listeners, key=lambda worker: worker.sessions))
        try:
            with contextlib.suppress(SensesLost):
                await hearing.open(start_ms)
                return hearing
            await hearing.open(start_ms)
        except BaseException:
            hearing.close()
            raise
        return hearing

    async def speak(self, sentence: str, output: dict[str, Any]) -> bytes:
        """One sentence as audio."""
        _, sound = await self._speaker.ask({"do": "speak", "session": "voice", "sentence": sentence, "output": output})
        return sound

    async def close(self) -> None:
        """End all workers."""
        await asyncio.gather(*(worker.stop() for worker in self.workers))
