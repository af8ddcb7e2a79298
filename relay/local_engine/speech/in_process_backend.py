"""The speech backend within this process: recognition in small steps on the event loop, synthesis in one thread."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from relay.local_engine.nlu.grammar import grammar_for_tools
from relay.local_engine.speech.backend import SessionRecognizer, SpeechBackend, resolved_future
from relay.local_engine.speech.recognition_scheduler import RecognitionJob, RecognitionScheduler
from relay.local_engine.speech.tts import SpeechSynthesizer
from relay.local_engine.speech.turn_detector import Completeness


class InProcessRecognizer(SessionRecognizer):
    """A session's recognizer in this process."""

    def __init__(self, scheduler: RecognitionScheduler) -> None:
        self._scheduler = scheduler
        self._grammar = grammar_for_tools(b"[]")
        self._cepstral_mean: str | None = None
        self._turn: RecognitionJob | None = None
        self._open_jobs: set[RecognitionJob] = set()

    def configure(self, tools: bytes) -> None:
        self._grammar = grammar_for_tools(tools)

    def start_turn(self, *, is_narrowband: bool) -> None:
        """Start a turn; a turn in progress is discarded."""
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
    """Recognition and synthesis in this process. Raises ConfigError if no voice is installed."""

    def __init__(self) -> None:
        self._synthesizer = SpeechSynthesizer()
        self._scheduler = RecognitionScheduler()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="relay-voice")

    async def warm_up(self) -> None:
        """Do nothing: there is no process to start."""

    def new_recognizer(self) -> SessionRecognizer:
        return InProcessRecognizer(self._scheduler)

    async def synthesize(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._synthesizer.synthesize, sentence, output
        )

    async def close(self) -> None:
        """Stop recognition and let the synthesis thread end."""
        await self._scheduler.close()
        self._executor.shutdown(wait=False, cancel_futures=True)
