"""Words and voice as the sessions use them: made in this process (listening.py), or in others (workers/pool.py)."""

import asyncio
from typing import Any, Protocol, TypeVar

from relay.local_engine.speech.turn_detector import Completeness

_T = TypeVar("_T")


class SpeechBackendLost(Exception):
    """The process that listened or spoke has ended; what it knew of the turn is gone."""


class SessionRecognizer(Protocol):
    """Where one session's speech becomes words. Nothing waits here; results are futures, and may be SensesLost."""

    def configure(self, tools: bytes) -> None:
        """The tools to listen for, from the next turn on: their JSON, as `grammar.grammar_for_tools` takes it."""

    def start_turn(self, *, is_narrowband: bool) -> None:
        """A turn begins; `is_narrowband` is for audio that was 8 kHz."""

    def feed(self, pcm: bytes) -> None:
        """More of the turn: PCM16, 16 kHz."""

    def query_completeness(self, silence_ms: int) -> asyncio.Future[Completeness]:
        """What the words of the turn are by now; the last `silence_ms` of what was fed hold none."""

    def end_turn(self) -> asyncio.Future[str | None]:
        """The turn is over: its words ("": nothing was said, None: not understood)."""

    def discard_turn(self) -> None:
        """Forget the turn."""

    def transcribe_clip(self, pcm: bytes, *, is_narrowband: bool) -> asyncio.Future[str | None]:
        """The words of a clip, apart from the turns."""

    def close(self) -> None:
        """The session is over; what was asked for comes to nothing."""


class SpeechBackend(Protocol):
    """What all sessions share."""

    async def warm_up(self) -> None:
        """Be ready for the first turn."""

    def new_recognizer(self) -> SessionRecognizer:
        """Where a session's speech becomes words."""

    async def synthesize(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        """One sentence as audio; `output` is the session's `audio.output`. May raise SensesLost.

        `is_first`: nothing of this answer is heard yet, so it goes before those that are being heard.
        """

    async def close(self) -> None:
        """End everything."""


def resolved_future(value: _T) -> "asyncio.Future[_T]":
    """A future that is over already."""
    future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def fail_future(future: "asyncio.Future[Any]", error: Exception) -> None:
    """Let whoever waits for an answer that is not there yet learn why none comes; maybe nobody does."""
    if not future.done():
        future.set_exception(error)
        future.exception()
