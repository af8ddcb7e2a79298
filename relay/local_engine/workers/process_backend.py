"""The speech backend in worker processes: several that recognize, and one that synthesizes."""

import asyncio
import itertools
import logging
import os
from typing import Any

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
from relay.local_engine.workers.worker_process import WORKER_COMMAND, WorkerProcess

MAX_WORKERS = 8

_recognizer_numbers = itertools.count(1)

_log = logging.getLogger(__name__)


def default_worker_count() -> int:
    """Return the default number of recognizer processes: one per usable core, at most four."""
    return max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 4))


class RemoteRecognizer(SessionRecognizer):
    """A session's recognizer in a worker. If the worker ends, the turn is lost; the next one restarts the worker."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._id = f"session_{next(_recognizer_numbers)}"
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
        self._worker.notify({"do": "start_turn", "session": self._id, "is_narrowband": is_narrowband})

    def feed(self, pcm: bytes) -> None:
        if self._turn_generation == self._worker.generation:
            self._worker.notify({"do": "feed", "session": self._id}, pcm)

    def query_completeness(self, silence_ms: int) -> "asyncio.Future[Completeness]":
        return self._request_for_turn({"do": "query_completeness", "silence_ms": silence_ms})

    def end_turn(self) -> "asyncio.Future[str | None]":
        if self._turn_generation is None:
            return resolved_future("")
        transcript: asyncio.Future[str | None] = self._request_for_turn({"do": "end_turn"})
        self._turn_generation = None
        return transcript

    def discard_turn(self) -> None:
        if self._turn_generation == self._worker.generation:
            self._worker.notify({"do": "discard_turn", "session": self._id})
        self._turn_generation = None

    def transcribe_clip(self, pcm: bytes, *, is_narrowband: bool) -> "asyncio.Future[str | None]":
        self._ensure_configured()
        return self._worker.request({"do": "transcribe_clip", "session": self._id, "is_narrowband": is_narrowband}, pcm)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._worker.n_sessions -= 1
        if self._sent_config is not None and self._sent_config[0] == self._worker.generation:
            self._worker.notify({"do": "close", "session": self._id})

    def _ensure_configured(self) -> None:
        """Send the configuration to the current worker, unless it has it already."""
        config = (self._worker.generation, self._tools)
        if self._sent_config != config:
            self._sent_config = config
            self._worker.notify({"do": "configure", "session": self._id}, self._tools)

    def _request_for_turn(self, head: JsonObject) -> "asyncio.Future[Any]":
        """Send a request about the turn, if its worker is still the same process."""
        if self._turn_generation == self._worker.generation:
            return self._worker.request({**head, "session": self._id})
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        fail_future(future, SpeechBackendLost(f"worker {self._worker.name} has been restarted"))
        return future


class ProcessBackend(SpeechBackend):
    """Several recognizer processes and one synthesizer process. Raises ConfigError if no voice is installed."""

    def __init__(self, n_recognizers: int) -> None:
        SpeechSynthesizer()
        in_background = (*WORKER_COMMAND, "--background")
        self._recognizers = [
            WorkerProcess(f"recognizer {number + 1}", in_background)
            for number in range(min(n_recognizers, MAX_WORKERS))
        ]
        self._synthesizer = WorkerProcess("synthesizer")

    @property
    def workers(self) -> list[WorkerProcess]:
        """All workers: the recognizers, then the synthesizer."""
        return [*self._recognizers, self._synthesizer]

    async def warm_up(self) -> None:
        """Start all workers, so that the first turn does not wait; a worker that fails is retried on demand."""
        warm_ups = [worker.request({"do": "warm_up", "for": "recognition"}) for worker in self._recognizers]
        warm_ups.append(self._synthesizer.request({"do": "warm_up", "for": "synthesis"}))
        for failure in await asyncio.gather(*warm_ups, return_exceptions=True):
            if isinstance(failure, Exception):
                _log.warning("worker is not ready error=%s", failure)

    def new_recognizer(self) -> SessionRecognizer:
        """Create a recognizer in the worker with the fewest sessions."""
        return RemoteRecognizer(min(self._recognizers, key=lambda worker: worker.n_sessions))

    async def synthesize(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        request = {"do": "synthesize", "sentence": sentence, "output": output, "is_first": is_first}
        audio: bytes = await self._synthesizer.request(request)
        return audio

    async def close(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self.workers))
