"""The speech backend's interface: recognition and synthesis, in this process or in worker processes.

Implementations: `in_process_backend.InProcessBackend` and `workers.process_backend.ProcessBackend`.
"""

import asyncio
from typing import Any, Protocol, TypeVar

from relay.local_engine.speech.turn_detector import Completeness

_T = TypeVar("_T")


class SpeechBackendLost(Exception):
    """The worker process has ended; its state of the turn is lost."""


class SessionRecognizer(Protocol):
    """One session's speech recognizer. No method blocks; results are futures, which may raise SpeechBackendLost."""

    def configure(self, tools: bytes) -> None:
        """Recognize requests to these tools from the next turn on: JSON, as `grammar.grammar_for_tools` expects it."""

    def start_turn(self, *, is_narrowband: bool) -> None:
        """Start a turn; `is_narrowband`: its audio is upsampled from 8 kHz."""

    def feed(self, pcm: bytes) -> None:
        """Feed audio of the turn: PCM16, 16 kHz."""

    def query_completeness(self, silence_ms: int) -> asyncio.Future[Completeness]:
        """Judge whether the turn's words so far are complete; the last `silence_ms` of the audio are silence."""

    def end_turn(self) -> asyncio.Future[str | None]:
        """End the turn; returns its transcript ("": no speech, None: not understood)."""

    def discard_turn(self) -> None:
        """Discard the turn."""

    def transcribe_clip(self, pcm: bytes, *, is_narrowband: bool) -> asyncio.Future[str | None]:
        """Transcribe a clip, independently of the turns."""

    def close(self) -> None:
        """End the session's recognition and drop pending results."""


class SpeechBackend(Protocol):
    """Recognition and synthesis for all sessions of a server."""

    async def warm_up(self) -> None:
        """Load everything, so that the first turn does not wait."""

    def new_recognizer(self) -> SessionRecognizer:
        """Create the recognizer of a session."""

    async def synthesize(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        """Synthesize a sentence; `output` is the session's `audio.output`. May raise SpeechBackendLost.

        `is_first`: the response has no audio yet, so it takes precedence over responses that are playing already.
        """

    async def close(self) -> None:
        """Stop all work and end the worker processes."""


def resolved_future(value: _T) -> "asyncio.Future[_T]":
    """Return a future that is done."""
    future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


def fail_future(future: "asyncio.Future[Any]", error: Exception) -> None:
    """Set an exception unless the future is done; no warning if nobody awaits it."""
    if not future.done():
        future.set_exception(error)
        future.exception()
