"""A worker: `python -m relay.local_engine.workers`. Serves requests on standard input until that ends.

A request's head is {"n": number, "do": what, "session": id, ...}. Those with a number above 0 are answered with
{"n": the same, "result": ...}, with {"n": ...} and sound, or with {"n": ..., "error": text}, whenever the answer is
there; 0 wants none. What a session asks for is begun in its order; sessions take turns in small steps of work.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from relay.json_types import JsonObject
from relay.local_engine.speech.recognition_scheduler import OwnListener, Recognition
from relay.local_engine.speech.tts import Voice
from relay.local_engine.workers import pack, receive
from relay.log_lines import log_to_stderr

BACKGROUND_NICENESS = 5
"""With `--background`. Words may be late, turns and sound may not: on a busy machine these go first."""


class Worker:
    """Sessions' listeners, and a voice, by request."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._recognition = Recognition()
        self._listeners = defaultdict[str, OwnListener](partial(OwnListener, self._recognition))
        self._voice: Voice | None = None
        self._to_speak: tuple[deque[JsonObject], deque[JsonObject]] = (deque(), deque())
        self._has_to_speak = asyncio.Event()
        self._speaking: asyncio.Task[None] | None = None

    def take(self, head: JsonObject, body: bytes) -> None:
        """A request."""
        try:
            self._begin(head, body)
        except Exception as error:
            logging.getLogger(__name__).exception("a request failed")
            self._answer(head, error=error)

    def _begin(self, head: JsonObject, body: bytes) -> None:
        match head["do"]:
            case "warm":
                if head["for"] == "speech":
                    self._ready_voice().warm()
                else:
                    import pocketsphinx  # noqa: F401
                self._answer(head)
            case "speak":
                self._to_speak[0 if head["is_first"] else 1].append(head)
                self._has_to_speak.set()
                if self._speaking is None:
                    self._speaking = asyncio.get_running_loop().create_task(self._speak())
            case "close":
                listener = self._listeners.pop(head["session"], None)
                if listener is not None:
                    listener.close()
            case what:
                self._listen(what, head, body)

    def _listen(self, what: str, head: JsonObject, body: bytes) -> None:
        listener = self._listeners[head["session"]]
        match what:
            case "configure":
                listener.configure(body)
            case "begin":
                listener.begin(narrow=head["narrow"])
            case "feed":
                listener.feed(body)
            case "so_far":
                self._answer_later(head, listener.so_far(head["silence_ms"]))
            case "end":
                self._answer_later(head, listener.end())
            case "drop":
                listener.drop()
            case "clip":
                self._answer_later(head, listener.clip(body, narrow=head["narrow"]))
            case unknown:
                raise ValueError(f"no worker can {unknown}")

    def _answer_later(self, head: JsonObject, result: "asyncio.Future[Any]") -> None:
        def settle(done: "asyncio.Future[Any]") -> None:
            if not done.cancelled():
                error = done.exception()
                self._answer(head, None if error else done.result(), error=error)

        result.add_done_callback(settle)

    async def _speak(self) -> None:
        """One sentence after the other, what begins an answer first."""
        while True:
            waiting = self._to_speak[0] or self._to_speak[1]
            if not waiting:
                self._has_to_speak.clear()
                await self._has_to_speak.wait()
                continue
            head = waiting.popleft()
            try:
                self._answer(head, self._ready_voice().speak(head["sentence"], head["output"]))
            except Exception as error:
                logging.getLogger(__name__).exception("a sentence could not be spoken")
                self._answer(head, error=error)
            await asyncio.sleep(0)

    def _ready_voice(self) -> Voice:
        if self._voice is None:
            self._voice = Voice()
        return self._voice

    def _answer(self, head: JsonObject, result: Any = None, *, error: BaseException | None = None) -> None:
        if not head["n"]:
            return
        if error is not None:
            self._write(pack({"n": head["n"], "error": f"{type(error).__name__}: {error}"[:500]}))
        elif isinstance(result, bytes):
            self._write(pack({"n": head["n"]}, result))
        else:
            self._write(pack({"n": head["n"], "result": result}))


async def _main() -> None:
    if "--background" in sys.argv:
        os.nice(BACKGROUND_NICENESS)
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        # ^C reaches the whole group: the server says when a worker ends, by closing its input.
        loop.add_signal_handler(name, lambda: None)
    # The answers keep standard output to themselves: what a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, _ = await loop.connect_write_pipe(asyncio.Protocol, answers)
    # Nothing piles up in the transport: an answer's sound has somebody who waits for it and asks no more meanwhile.
    worker = Worker(transport.write)
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            worker.take(*await receive(reader))


if __name__ == "__main__":
    log_to_stderr()
    asyncio.run(_main())
