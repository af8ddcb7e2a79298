"""Ears and voice as the sessions use them: in this process, or (workers/pool.py) in processes of their own."""

import asyncio
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from relay.local_engine.asr import RecogniserPool
from relay.local_engine.ears import Ears, Started, Stopped
from relay.local_engine.situation import grammar_of
from relay.local_engine.speech.tts import Voice


class SensesLost(Exception):
    """The process that heard or spoke has ended; what it knew of the turn is gone."""


class Hearing(Protocol):
    """One session's ears. Every method may raise SensesLost, after which only `close` is of use."""

    async def configure(self, input_format: str, turn_detection: dict[str, Any] | None, tools: bytes) -> None:
        """Listen this way from now on."""

    async def hear(self, audio: bytes) -> Started | Stopped | None:
        """Take in audio, up to the first thing that happens; b"" goes on behind that. None: nothing is left."""

    async def finish(self) -> str | None:
        """End the turn; returns what was said ("": nothing, None: not understood)."""

    async def clip(self, audio: bytes) -> str | None:
        """Recognise a clip apart from the stream."""

    async def forget(self) -> None:
        """Drop the turn under way."""

    def close(self) -> None:
        """Give everything back."""


class Senses(Protocol):
    """What all sessions share."""

    async def warm(self) -> None:
        """Be ready for the first turn."""

    async def ears(self, start_ms: int = 0) -> Hearing:
        """Ears for a session that has heard `start_ms` of audio already."""

    async def speak(self, sentence: str, output: dict[str, Any]) -> bytes:
        """One sentence as audio; `output` is the session's `audio.output`. May raise SensesLost."""

    async def close(self) -> None:
        """End everything."""


class OwnHearing:
    """Ears in this process, giving way to other work between slices of 100 ms."""

    def __init__(self, pool: RecogniserPool, start_ms: int = 0) -> None:
        self._ears = Ears(pool, start_ms)
        self._work: Iterator[Started | Stopped | None] = iter(())

    async def configure(self, input_format: str, turn_detection: dict[str, Any] | None, tools: bytes) -> None:
        """Listen this way from now on."""
        self._ears.configure(input_format, turn_detection, grammar_of(tools))

    async def hear(self, audio: bytes) -> Started | Stopped | None:
        """Take in audio, up to the first thing that happens."""
        if audio:
            self._work = self._ears.hear(audio)
        for event in self._work:
            if event is not None:
                return event
            await asyncio.sleep(0)
        return None

    async def finish(self) -> str | None:
        """End the turn; returns what was said."""
        return await _in_steps(self._ears.finish())

    async def clip(self, audio: bytes) -> str | None:
        """Recognise a clip apart from the stream."""
        return await _in_steps(self._ears.clip(audio))

    async def forget(self) -> None:
        """Drop the turn under way."""
        self._ears.forget()

    def close(self) -> None:
        """Give the recogniser back."""
        self._ears.close()


class OwnSenses:
    """Ears in this process, and the voice in one thread of it. Raises ConfigError if there is no voice."""

    def __init__(self) -> None:
        self._voice = Voice()
        self._recognisers = RecogniserPool()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="relay-voice")

    async def warm(self) -> None:
        """Nothing to do: everything is here."""

    async def ears(self, start_ms: int = 0) -> Hearing:
        """Ears for one session."""
        return OwnHearing(self._recognisers, start_ms)

    async def speak(self, sentence: str, output: dict[str, Any]) -> bytes:
        """One sentence as audio."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._voice.speak, sentence, output)

    async def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)


async def _in_steps(work: Generator[None, None, str | None]) -> str | None:
    """Run a generator to its end, giving way between its steps."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: str | None = end.value
            return result
        await asyncio.sleep(0)
