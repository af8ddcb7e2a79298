"""Recognition, one process's worth: every session's utterances as they are spoken, in turns of a tenth of a second.

Whoever has ended their turn is served before those who still speak, for somebody waits for that answer. What is queued
is bounded by its callers: an utterance holds `asr.LONGEST_MS` of audio, and a session a few utterances
(`session.MOST_UTTERANCES`).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from relay.local_engine.nlu.grammar import Grammar, grammar_of
from relay.local_engine.speech.backend import Listener, Senses, fail, known
from relay.local_engine.speech.recognizer import LONGEST_BYTES, STEP_BYTES, Heard, Recogniser, RecogniserPool
from relay.local_engine.speech.tts import Voice
from relay.local_engine.speech.turn_detector import Completeness

log = logging.getLogger(__name__)


class Utterance:
    """One turn on its way to words. `settle` is told the recogniser's idea of the microphone afterwards."""

    def __init__(self, grammar: Grammar, sound: str | None, *, narrow: bool, settle: Callable[[str], None]) -> None:
        self.words: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self.is_ended = self.is_dropped = False
        self._asked: list[asyncio.Future[Completeness]] = []
        self._silence_ms = 0
        self._grammar, self._sound, self._narrow, self._settle = grammar, sound, narrow, settle
        self._waiting = bytearray()
        self._taken_bytes = 0
        self._recogniser: Recogniser | None = None
        self._last_work: Generator[None, None, Heard] | None = None

    @property
    def is_urgent(self) -> bool:
        """Whether somebody waits for it."""
        return self.is_ended or self.is_dropped or bool(self._asked)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._waiting) or self.is_urgent

    def feed(self, pcm: bytes) -> None:
        """More sound; what is beyond LONGEST_MS is dropped."""
        pcm = pcm[: max(LONGEST_BYTES - self._taken_bytes, 0)]
        self._taken_bytes += len(pcm)
        self._waiting += pcm

    def ask(self, silence_ms: int) -> asyncio.Future[Completeness]:
        """What the words are when all that was fed is heard."""
        answer: asyncio.Future[Completeness] = asyncio.get_running_loop().create_future()
        self._asked.append(answer)
        self._silence_ms = silence_ms
        return answer

    def step(self, pool: RecogniserPool) -> bool:
        """Do the next bit of work, some milliseconds; true when the utterance is over and done with."""
        if self.is_dropped:
            self._give_up(pool)
            return True
        if self._recogniser is None:
            self._recogniser = pool.take(self._grammar)
            self._recogniser.start(self._sound, narrow=self._narrow)
        elif self._waiting:
            self._recogniser.feed(bytes(self._waiting[:STEP_BYTES]))
            del self._waiting[:STEP_BYTES]
        elif self._asked:
            completeness = self._recogniser.completeness(self._silence_ms)
            for answer in self._asked:
                _resolve(answer, completeness)
            self._asked.clear()
        elif self.is_ended:
            return self._end_step(self._recogniser, pool)
        return False

    def fail(self, error: Exception) -> None:
        """It broke: whoever waits learns it. Its decoder is not used again."""
        self._recogniser = None
        fail(self.words, error)
        for answer in self._asked:
            fail(answer, error)

    def _end_step(self, recogniser: Recogniser, pool: RecogniserPool) -> bool:
        if self._last_work is None:
            self._last_work = recogniser.finish()
        try:
            next(self._last_work)
        except StopIteration as end:
            self._settle(recogniser.sound)
            pool.give_back(recogniser)
            self._recogniser = None
            _resolve(self.words, end.value.text)
            return True
        return False

    def _give_up(self, pool: RecogniserPool) -> None:
        if self._recogniser is not None:
            if self._last_work is None:
                self._recogniser.abandon()
                pool.give_back(self._recogniser)
            self._recogniser = None
        self.words.cancel()
        for answer in self._asked:
            _resolve(answer, "unknown")


class Recognition:
    """All utterances of this process. `run` does the work, in steps between which everything else goes on."""

    def __init__(self) -> None:
        self._pool = RecogniserPool()
        self._utterances: deque[Utterance] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, utterance: Utterance) -> None:
        """Take an utterance in."""
        self._utterances.append(utterance)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def go_on(self) -> None:
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
            utterance = self._next()
            if utterance is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            try:
                is_over = utterance.step(self._pool)
            except Exception as error:
                log.exception("an utterance could not be recognised")
                utterance.fail(error)
                is_over = True
            if is_over:
                self._utterances.remove(utterance)
            await asyncio.sleep(0)

    def _next(self) -> Utterance | None:
        """The utterance whose turn it is; it goes to the end of the queue."""
        ready = next((u for u in self._utterances if u.is_urgent), None)
        ready = ready or next((u for u in self._utterances if u.has_work), None)
        if ready is not None:
            self._utterances.remove(ready)
            self._utterances.append(ready)
        return ready


class OwnListener(Listener):
    """A session's listener in this process."""

    def __init__(self, recognition: Recognition) -> None:
        self._recognition = recognition
        self._grammar = grammar_of(b"[]")
        self._sound: str | None = None
        self._turn: Utterance | None = None
        self._open: set[Utterance] = set()

    def configure(self, tools: bytes) -> None:
        self._grammar = grammar_of(tools)

    def begin(self, *, narrow: bool) -> None:
        """A turn begins; one that was under way is forgotten."""
        self.drop()
        self._turn = self._new(narrow=narrow)

    def feed(self, pcm: bytes) -> None:
        if self._turn is not None:
            self._turn.feed(pcm)
            self._recognition.go_on()

    def so_far(self, silence_ms: int) -> asyncio.Future[Completeness]:
        if self._turn is None:
            return known("unknown")
        self._recognition.go_on()
        return self._turn.ask(silence_ms)

    def end(self) -> asyncio.Future[str | None]:
        turn, self._turn = self._turn, None
        if turn is None:
            return known("")
        turn.is_ended = True
        self._recognition.go_on()
        return turn.words

    def drop(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.is_dropped = True
            self._recognition.go_on()

    def clip(self, pcm: bytes, *, narrow: bool) -> asyncio.Future[str | None]:
        clip = self._new(narrow=narrow)
        clip.feed(pcm)
        clip.is_ended = True
        self._recognition.go_on()
        return clip.words

    def close(self) -> None:
        for utterance in self._open:
            utterance.is_dropped = True
        self._recognition.go_on()

    def _new(self, *, narrow: bool) -> Utterance:
        utterance = Utterance(self._grammar, self._sound, narrow=narrow, settle=self._settle)
        self._open.add(utterance)
        utterance.words.add_done_callback(lambda _: self._open.discard(utterance))
        self._recognition.add(utterance)
        return utterance

    def _settle(self, sound: str) -> None:
        self._sound = sound


class OwnSenses(Senses):
    """Words in this process's spare moments, and the voice in one thread of it. Raises ConfigError without a voice."""

    def __init__(self) -> None:
        self._voice = Voice()
        self._recognition = Recognition()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="relay-voice")

    async def warm(self) -> None:
        """Nothing to do: everything is here."""

    def listener(self) -> Listener:
        return OwnListener(self._recognition)

    async def speak(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._voice.speak, sentence, output)

    async def close(self) -> None:
        """Let the thread end."""
        await self._recognition.close()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _resolve(future: "asyncio.Future[Any]", value: Any) -> None:
    if not future.done():
        future.set_result(value)
