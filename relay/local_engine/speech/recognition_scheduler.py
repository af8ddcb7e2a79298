"""The recognition scheduler of one process: recognizes all sessions' utterances in steps of 100 ms of audio.

Finished turns go before turns that are still being spoken, because a response waits for them. Its callers bound the
queue: an utterance has at most `recognizer.MAX_UTTERANCE_MS` of audio, and a session has at most
`connection.MAX_PENDING_TRANSCRIPTS` utterances.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from relay.local_engine.nlu.grammar import Grammar
from relay.local_engine.speech.backend import fail_future
from relay.local_engine.speech.recognizer import (
    MAX_UTTERANCE_BYTES,
    STEP_BYTES,
    RecognitionResult,
    Recognizer,
    RecognizerPool,
)
from relay.local_engine.speech.turn_detector import Completeness

_log = logging.getLogger(__name__)


class RecognitionJob:
    """The recognition of one utterance. `on_cepstral_mean` receives the recognizer's cepstral mean afterwards."""

    def __init__(
        self,
        grammar: Grammar,
        cepstral_mean: str | None,
        *,
        is_narrowband: bool,
        on_cepstral_mean: Callable[[str], None],
    ) -> None:
        self.transcript: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.is_ended = self.is_discarded = False
        self._completeness_queries: list[asyncio.Future[Completeness]] = []
        self._silence_ms = 0
        self._grammar = grammar
        self._cepstral_mean = cepstral_mean
        self._is_narrowband = is_narrowband
        self._on_cepstral_mean = on_cepstral_mean
        self._unprocessed = bytearray()
        self._fed_bytes = 0
        self._recognizer: Recognizer | None = None
        self._final_steps: Generator[None, None, RecognitionResult] | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether a result of it is awaited."""
        return self.is_ended or self.is_discarded or bool(self._completeness_queries)

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to do."""
        return bool(self._unprocessed) or self.is_urgent

    def feed(self, pcm: bytes) -> None:
        """Feed audio; audio beyond MAX_UTTERANCE_MS is dropped."""
        pcm = pcm[: max(MAX_UTTERANCE_BYTES - self._fed_bytes, 0)]
        self._fed_bytes += len(pcm)
        self._unprocessed += pcm

    def query_completeness(self, silence_ms: int) -> asyncio.Future[Completeness]:
        """Judge the completeness of the words once all audio so far is recognized."""
        query: asyncio.Future[Completeness] = asyncio.get_running_loop().create_future()
        self._completeness_queries.append(query)
        self._silence_ms = silence_ms
        return query

    def step(self, pool: RecognizerPool) -> bool:
        """Work for some milliseconds; returns True when the utterance is done."""
        if self.is_discarded:
            self._discard(pool)
            return True
        if self._recognizer is None:
            self._recognizer = pool.acquire(self._grammar)
            self._recognizer.start(self._cepstral_mean, is_narrowband=self._is_narrowband)
        elif self._unprocessed:
            self._recognizer.feed(bytes(self._unprocessed[:STEP_BYTES]))
            del self._unprocessed[:STEP_BYTES]
        elif self._completeness_queries:
            completeness = self._recognizer.completeness(self._silence_ms)
            for query in self._completeness_queries:
                _resolve(query, completeness)
            self._completeness_queries.clear()
        elif self.is_ended:
            return self._end_step(self._recognizer, pool)
        return False

    def fail(self, error: Exception) -> None:
        """Fail all pending results. The decoder is not reused."""
        self._recognizer = None
        fail_future(self.transcript, error)
        for query in self._completeness_queries:
            fail_future(query, error)

    def _end_step(self, recognizer: Recognizer, pool: RecognizerPool) -> bool:
        if self._final_steps is None:
            self._final_steps = recognizer.finish()
        try:
            next(self._final_steps)
        except StopIteration as end:
            self._on_cepstral_mean(recognizer.cepstral_mean)
            pool.release(recognizer)
            self._recognizer = None
            _resolve(self.transcript, end.value.text)
            return True
        return False

    def _discard(self, pool: RecognizerPool) -> None:
        if self._recognizer is not None:
            if self._final_steps is None:
                self._recognizer.abandon()
                pool.release(self._recognizer)
            self._recognizer = None
        self.transcript.cancel()
        for query in self._completeness_queries:
            _resolve(query, "unknown")


class RecognitionScheduler:
    """Recognizes all utterances of this process, in steps that yield to the event loop."""

    def __init__(self) -> None:
        self._pool = RecognizerPool()
        self._jobs: deque[RecognitionJob] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, job: RecognitionJob) -> None:
        """Schedule an utterance."""
        self._jobs.append(job)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """Resume: an utterance has work."""
        self._wake.set()

    async def close(self) -> None:
        """Stop the scheduler's task."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            job = self._next()
            if job is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                is_over = job.step(self._pool)
            except Exception as error:
                _log.exception("recognition failed")
                job.fail(error)
                is_over = True
            if is_over:
                self._jobs.remove(job)
            await asyncio.sleep(0)

    def _next(self) -> RecognitionJob | None:
        """Return the next utterance to work on, urgent ones first, and move it to the end of the queue."""
        job = next((u for u in self._jobs if u.is_urgent), None)
        job = job or next((u for u in self._jobs if u.has_work), None)
        if job is not None:
            self._jobs.remove(job)
            self._jobs.append(job)
        return job


def _resolve(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)
