"""Recognition, one process's worth: every session's utterances as they are spoken, in turns of a tenth of a second.

Whoever has ended their turn is served before those who still speak, for somebody waits for that answer. What is queued
is bounded by its callers: an utterance holds `asr.MAX_UTTERANCE_MS` of audio, and a session a few utterances
(`session.MAX_PENDING_TRANSCRIPTS`).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from relay.local_engine.nlu.grammar import Grammar, grammar_for_tools
from relay.local_engine.speech.backend import SessionRecognizer, SpeechBackend, fail_future, resolved_future
from relay.local_engine.speech.recognizer import (
    MAX_UTTERANCE_BYTES,
    STEP_BYTES,
    RecognitionResult,
    Recognizer,
    RecognizerPool,
)
from relay.local_engine.speech.tts import SpeechSynthesizer
from relay.local_engine.speech.turn_detector import Completeness

_log = logging.getLogger(__name__)


class RecognitionJob:
    """One turn on its way to words. `settle` is told the recogniser's idea of the microphone afterwards."""

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
        self._grammar, self._cepstral_mean, self._is_narrowband, self._on_cepstral_mean = (
            grammar,
            cepstral_mean,
            is_narrowband,
            on_cepstral_mean,
        )
        self._unprocessed = bytearray()
        self._fed_bytes = 0
        self._recognizer: Recognizer | None = None
        self._final_steps: Generator[None, None, RecognitionResult] | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for it."""
        return self.is_ended or self.is_discarded or bool(self._completeness_queries)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._unprocessed) or self.is_urgent

    def feed(self, pcm: bytes) -> None:
        """More sound; what is beyond LONGEST_MS is dropped."""
        pcm = pcm[: max(MAX_UTTERANCE_BYTES - self._fed_bytes, 0)]
        self._fed_bytes += len(pcm)
        self._unprocessed += pcm

    def query_completeness(self, silence_ms: int) -> asyncio.Future[Completeness]:
        """What the words are when all that was fed is heard."""
        answer: asyncio.Future[Completeness] = asyncio.get_running_loop().create_future()
        self._completeness_queries.append(answer)
        self._silence_ms = silence_ms
        return answer

    def step(self, pool: RecognizerPool) -> bool:
        """Do the next bit of work, some milliseconds; true when the utterance is over and done with."""
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
            for answer in self._completeness_queries:
                _resolve(answer, completeness)
            self._completeness_queries.clear()
        elif self.is_ended:
            return self._end_step(self._recognizer, pool)
        return False

    def fail(self, error: Exception) -> None:
        """It broke: whoever waits learns it. Its decoder is not used again."""
        self._recognizer = None
        fail_future(self.transcript, error)
        for answer in self._completeness_queries:
            fail_future(answer, error)

    def _end_step(self, recogniser: Recognizer, pool: RecognizerPool) -> bool:
        if self._final_steps is None:
            self._final_steps = recogniser.finish()
        try:
            next(self._final_steps)
        except StopIteration as end:
            self._on_cepstral_mean(recogniser.cepstral_mean)
            pool.release(recogniser)
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
        for answer in self._completeness_queries:
            _resolve(answer, "unknown")


class RecognitionScheduler:
    """All utterances of this process. `run` does the work, in steps between which everything else goes on."""

    def __init__(self) -> None:
        self._pool = RecognizerPool()
        self._jobs: deque[RecognitionJob] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, job: RecognitionJob) -> None:
        """Take an utterance in."""
        self._jobs.append(job)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """Some utterance has work."""
        self._wake.set()

    async def close(self) -> None:
        """Stop working."""
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
                _log.exception("an utterance could not be recognised")
                job.fail(error)
                is_over = True
            if is_over:
                self._jobs.remove(job)
            await asyncio.sleep(0)

    def _next(self) -> RecognitionJob | None:
        """The utterance whose turn it is; it goes to the end of the queue."""
        job = next((u for u in self._jobs if u.is_urgent), None)
        job = job or next((u for u in self._jobs if u.has_work), None)
        if job is not None:
            self._jobs.remove(job)
            self._jobs.append(job)
        return job


class InProcessRecognizer(SessionRecognizer):
    """A session's listener in this process."""

    def __init__(self, scheduler: RecognitionScheduler) -> None:
        self._scheduler = scheduler
        self._grammar = grammar_for_tools(b"[]")
        self._cepstral_mean: str | None = None
        self._turn: RecognitionJob | None = None
        self._open_jobs: set[RecognitionJob] = set()

    def configure(self, tools: bytes) -> None:
        self._grammar = grammar_for_tools(tools)

    def start_turn(self, *, is_narrowband: bool) -> None:
        """A turn begins; one that was under way is forgotten."""
        self.discard_turn()
        self._turn = self._start_job(is_narrowband=is_narrowband)

    def feed(self, pcm: bytes) -> None:
        if self._turn is not None:
            self._turn.feed(pcm)
            self._scheduler.wake()

    def query_completeness(self, silence_ms: int) -> asyncio.Future[Completeness]:
        if self._turn is None:
            return resolved_future("unknown")
        self._scheduler.wake()
        return self._turn.query_completeness(silence_ms)

    def end_turn(self) -> asyncio.Future[str | None]:
        turn, self._turn = self._turn, None
        if turn is None:
            return resolved_future("")
        turn.is_ended = True
        self._scheduler.wake()
        return turn.transcript

    def discard_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.is_discarded = True
            self._scheduler.wake()

    def transcribe_clip(self, pcm: bytes, *, is_narrowband: bool) -> asyncio.Future[str | None]:
        clip = self._start_job(is_narrowband=is_narrowband)
        clip.feed(pcm)
        clip.is_ended = True
        self._scheduler.wake()
        return clip.transcript

    def close(self) -> None:
        for job in self._open_jobs:
            job.is_discarded = True
        self._scheduler.wake()

    def _start_job(self, *, is_narrowband: bool) -> RecognitionJob:
        job = RecognitionJob(
            self._grammar, self._cepstral_mean, is_narrowband=is_narrowband, on_cepstral_mean=self._set_cepstral_mean
        )
        self._open_jobs.add(job)
        job.transcript.add_done_callback(lambda _: self._open_jobs.discard(job))
        self._scheduler.add(job)
        return job

    def _set_cepstral_mean(self, cepstral_mean: str) -> None:
        self._cepstral_mean = cepstral_mean


class InProcessBackend(SpeechBackend):
    """Words in this process's spare moments, and the voice in one thread of it. Raises ConfigError without a voice."""

    def __init__(self) -> None:
        self._synthesizer = SpeechSynthesizer()
        self._scheduler = RecognitionScheduler()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="relay-voice")

    async def warm_up(self) -> None:
        """Nothing to do: everything is here."""

    def new_recognizer(self) -> SessionRecognizer:
        return InProcessRecognizer(self._scheduler)

    async def synthesize(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._synthesizer.synthesize, sentence, output
        )

    async def close(self) -> None:
        """Let the thread end."""
        await self._scheduler.close()
        self._executor.shutdown(wait=False, cancel_futures=True)


def _resolve(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)
