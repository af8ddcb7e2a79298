"""A worker: `python -m relay.local_engine.workers`. Serves requests on standard input until it is closed.

The head of a request is {"n": number, "do": action, "session": id, ...}. A number above 0 asks for a response, sent
when it is ready: {"n": number, "result": ...}, {"n": number} with audio as the body, or {"n": number, "error": text}.
The requests of a session start in order; sessions share the process in small steps of work.
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
from relay.local_engine.speech.in_process_backend import InProcessRecognizer
from relay.local_engine.speech.recognition_scheduler import RecognitionScheduler
from relay.local_engine.speech.tts import SpeechSynthesizer
from relay.local_engine.workers.messages import encode_message, read_message
from relay.log_lines import log_to_stderr

BACKGROUND_NICENESS = 5
"""With `--background`: on a busy machine turn detection and synthesis go before recognition."""

_log = logging.getLogger(__name__)


class Worker:
    """Serves requests: the recognizers of sessions, and a synthesizer."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._scheduler = RecognitionScheduler()
        self._recognizers = defaultdict[str, InProcessRecognizer](partial(InProcessRecognizer, self._scheduler))
        self._synthesizer: SpeechSynthesizer | None = None
        self._speech_queues: tuple[deque[JsonObject], deque[JsonObject]] = (deque(), deque())
        self._speech_queued = asyncio.Event()
        self._speech_task: asyncio.Task[None] | None = None

    def handle_request(self, head: JsonObject, body: bytes) -> None:
        """Handle one request; an exception becomes its error response."""
        try:
            self._start(head, body)
        except Exception as error:
            _log.exception("request failed action=%s", head.get("do"))
            self._respond(head, error=error)

    def _start(self, head: JsonObject, body: bytes) -> None:
        match head["do"]:
            case "warm_up":
                if head["for"] == "synthesis":
                    self._get_synthesizer().warm_up()
                else:
                    import pocketsphinx  # noqa: F401
                self._respond(head)
            case "synthesize":
                self._speech_queues[0 if head["is_first"] else 1].append(head)
                self._speech_queued.set()
                if self._speech_task is None:
                    self._speech_task = asyncio.get_running_loop().create_task(self._synthesize())
            case "close":
                recognizer = self._recognizers.pop(head["session"], None)
                if recognizer is not None:
                    recognizer.close()
            case action:
                self._recognize(action, head, body)

    def _recognize(self, action: str, head: JsonObject, body: bytes) -> None:
        recognizer = self._recognizers[head["session"]]
        match action:
            case "configure":
                recognizer.configure(body)
            case "start_turn":
                recognizer.start_turn(is_narrowband=head["is_narrowband"])
            case "feed":
                recognizer.feed(body)
            case "query_completeness":
                self._respond_later(head, recognizer.query_completeness(head["silence_ms"]))
            case "end_turn":
                self._respond_later(head, recognizer.end_turn())
            case "discard_turn":
                recognizer.discard_turn()
            case "transcribe_clip":
                self._respond_later(head, recognizer.transcribe_clip(body, is_narrowband=head["is_narrowband"]))
            case unknown:
                raise ValueError(f"unknown action {unknown}")

    def _respond_later(self, head: JsonObject, future: "asyncio.Future[Any]") -> None:
        def respond(done_future: "asyncio.Future[Any]") -> None:
            if not done_future.cancelled():
                error = done_future.exception()
                self._respond(head, None if error else done_future.result(), error=error)

        future.add_done_callback(respond)

    async def _synthesize(self) -> None:
        """Synthesize one sentence at a time, first sentences of responses first."""
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
                _log.exception("speech synthesis failed")
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
        # ^C reaches the whole process group: the server ends its workers by closing their input.
        loop.add_signal_handler(name, lambda: None)
    # Standard output is for responses only, so output of libraries is redirected to standard error.
    responses = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, _ = await loop.connect_write_pipe(asyncio.Protocol, responses)
    # The transport's buffer stays small: a session asks for the next audio only after it has received the last.
    worker = Worker(transport.write)
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            worker.handle_request(*await read_message(reader))


if __name__ == "__main__":
    log_to_stderr()
    asyncio.run(_main())
