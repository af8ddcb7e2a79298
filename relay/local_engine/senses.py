"""Words and voice as the sessions use them: made in this process, or (workers/pool.py) in processes of their own."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from relay.local_engine.listening import Listener, OwnListener, Recognition
from relay.local_engine.speech.tts import Voice


class SensesLost(Exception):
    """The process that listened or spoke has ended; what it knew of the turn is gone."""


class Senses(Protocol):
    """What all sessions share."""

    async def warm(self) -> None:
        """Be ready for the first turn."""

    def listener(self) -> Listener:
        """Where a session's speech becomes words."""

    async def speak(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        """One sentence as audio; `output` is the session's `audio.output`. May raise SensesLost.

        `is_first`: nothing of this answer is heard yet, so it goes before those that are being heard.
        """

    async def close(self) -> None:
        """End everything."""


class OwnSenses:
    """Words in this process's spare moments, and the voice in one thread of it. Raises ConfigError without a voice."""

    def __init__(self) -> None:
        self._voice = Voice()
        self._recognition = Recognition()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="relay-voice")

    async def warm(self) -> None:
        """Nothing to do: everything is here."""

    def listener(self) -> Listener:
        """A listener for one session."""
        return OwnListener(self._recognition)

    async def speak(self, sentence: str, output: dict[str, Any], *, is_first: bool = False) -> bytes:
        """One sentence as audio."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._voice.speak, sentence, output)

    async def close(self) -> None:
        """Let the thread end."""
        await self._recognition.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
