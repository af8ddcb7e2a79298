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
from relay.local_engine.speech.recognition_scheduler import InProcessRecognizer, RecognitionScheduler
from relay.local_engine.speech.tts import SpeechSynthesizer
from relay.local_engine.workers import encode_message, read_message
from relay.log_lines import log_to_stderr

BACKGROUND_NICENESS = 5
"""With `--background`. Words may be late, turns and sound may not: on a busy machine these go first."""


class Worker:
    """Sessions' listeners, and a voice, by request."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._scheduler = RecognitionScheduler()
        self._recognizers = defaultdict[str, InProcessRecognizer](partial(InProcessRecognizer, self._scheduler))
        self._synthesizer: SpeechSynthesizer | None = None
        self._speech_queues: tuple[deque[JsonObject], deque[JsonObject]] = (deque(), deque())
        self._speech_queued = asyncio.Event()
        self._speech_task: asyncio.Task[None] | None = None

    def handle_request(self, head: JsonObject, body: bytes) -> None:
        """A request."""
        try:
            self._start(head, body)
        except Exception as error:
            logging.getLogger(__name__).exception("a request failed")
            self._respond(head, error=error)

    def _start(self, head: JsonObject, body: bytes) -> None:
        match head["do"]:
            case "warm":
                if head["for"] == "speech":
                    self._get_synthesizer().warm_up()
                else:
                    import pocketsphinx  # noqa: F401
                self._respond(head)
            case "speak":
                self._speech_queues[0 if head["is_first"] else 1].append(head)
                self._speech_queued.set()
                if self._speech_task is None:
                    self._speech_task = asyncio.get_running_loop().create_task(self._speak())
            case "close":
                listener = self._recognizers.pop(head["session"], None)
                if listener is not None:
                    listener.close()
            case what:
                self._recognize(what, head, body)

    def _recognize(self, action: str, head: JsonObject, body: bytes) -> None:
        recognizer = self._recognizers[head["session"]]
        match action:
            case "configure":
                recognizer.configure(body)
            case "begin":
                recognizer.start_turn(is_narrowband=head["narrow"])
            case "feed":
                recognizer.feed(body)
            case "so_far":
                self._respond_later(head, recognizer.query_completeness(head["silence_ms"]))
            case "end":
                self._respond_later(head, recognizer.end_turn())
            case "drop":
                recognizer.discard_turn()
            case "clip":
                self._respond_later(head, recognizer.transcribe_clip(body, is_narrowband=head["narrow"]))
            case unknown:
                raise ValueError(f"no worker can {unknown}")

    def _respond_later(self, head: JsonObject, future: "asyncio.Future[Any]") -> None:
        def settle(done: "asyncio.Future[Any]") -> None:
            if not done.cancelled():
                error = done.exception()
                self._respond(head, None if error else done.result(), error=error)

        future.add_done_callback(settle)

    async def _speak(self) -> None:
        """One sentence after the other, what begins an answer first."""
        while True:
            queue = self._speech_queues[0] or self._speech_queues[1]
            if not queue:
                self._speech_queued.clear()
                await self._speech_queued.wait()
                continue
            head = queue.popleft()
            try:
                self._respond(head, self._get_synthesizer().synthesize(head["sentence"], head["output"]))
            except Exception as error:
                logging.getLogger(__name__).exception("a sentence could not be spoken")
                self._respond(head, error=error)
            await asyncio.sleep(0)

    def _get_synthesizer(self) -> SpeechSynthesizer:
        if self._synthesizer is None:
            self._synthesizer = SpeechSynthesizer()
        return self._synthesizer

    def _respond(self, head: JsonObject, result: Any = None, *, error: BaseException | None = None) -> None:
        if not head["n"]:
            return
        if error is not None:
            self._write(encode_message({"n": head["n"], "error": f"{type(error).__name__}: {error}"[:500]}))
        elif isinstance(result, bytes):
            self._write(encode_message({"n": head["n"]}, result))
        else:
            self._write(encode_message({"n": head["n"], "result": result}))


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
            worker.handle_request(*await read_message(reader))


if __name__ == "__main__":
    log_to_stderr()
    asyncio.run(_main())
