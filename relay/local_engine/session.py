"""One client's session at run time: the socket, the ears and the voice around the pure conversation."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import assert_never

import orjson
from aiohttp import WSMsgType, web

from relay.local_engine.asr import RecogniserPool
from relay.local_engine.conversation import Conversation
from relay.local_engine.ears import Ears, Started, Stopped
from relay.local_engine.effects import Configure, Effect, Forget, Hush, Listen, Recognise, Send, Speak
from relay.local_engine.protocol import Obj
from relay.local_engine.speech.tts import Voice

MOST_UNSENT_BYTES = 64 * 1024 * 1024
"""A client that reads nothing while it goes on asking is cut off here; no close frame would reach it."""
_UNPACED_MS = 8_000
_PAUSE_UNSENT_BYTES = 4 * 1024 * 1024

log = logging.getLogger(__name__)


class Shared:
    """What all sessions of a server use: voices, recognisers, and the one thread that synthesises.

    `pace` is how many times faster than real time speech is generated after its first seconds; None is as fast as
    possible. A real model is not infinitely fast either, and only so can a response still be active when the user
    interrupts it.
    """

    def __init__(self, pace: float | None = 4.0) -> None:
        self.voice = Voice()
        self.recognisers = RecogniserPool()
        self.synthesis = ThreadPoolExecutor(1, thread_name_prefix="relay-voice")
        self.pace = pace
        self.sockets: set[web.WebSocketResponse] = set()

    def close(self) -> None:
        """Let the thread end."""
        self.synthesis.shutdown(wait=False, cancel_futures=True)


class Session:
    """Runs one connection from `session.created` to its close."""

    def __init__(self, socket: web.WebSocketResponse, shared: Shared, model: str, abort: Callable[[], None]) -> None:
        """`abort` drops the connection at once."""
        self._socket = socket
        self._abort = abort
        self._shared = shared
        self._conversation = Conversation(model, _new_id)
        self._ears = Ears(shared.recognisers)
        self._speaking: dict[str, asyncio.Task[None]] = {}
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._wake_sender = asyncio.Event()
        self._sent_some = asyncio.Event()

    async def run(self) -> None:
        """Serve until either side closes."""
        sender = asyncio.get_running_loop().create_task(self._send_all())
        try:
            await self._do(self._conversation.start())
            async for message in self._socket:
                if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
                    await self._do(self._conversation.receive(message.data))
        finally:
            for task in (sender, *self._speaking.values()):
                task.cancel()
            await asyncio.gather(sender, *self._speaking.values(), return_exceptions=True)
            self._ears.close()

    async def _do(self, effects: Sequence[Effect]) -> None:
        """Carry out effects in order; those that they lead to come right behind them."""
        for effect in effects:
            match effect:
                case Send(event):
                    self._post(event)
                case Configure(input_format, turn_detection, grammar):
                    self._ears.configure(input_format, turn_detection, grammar)
                case Listen(audio):
                    await self._listen(audio)
                case Forget():
                    self._ears.forget()
                case Recognise(item_id, clip):
                    words = self._ears.finish() if clip is None else self._ears.clip(clip)
                    await self._do(self._conversation.recognised(item_id, await _in_steps(words)))
                case Speak():
                    self._speaking[effect.response_id] = asyncio.create_task(self._speak(effect))
                case Hush(response_id):
                    self._hush(response_id)
                case _:
                    assert_never(effect)

    async def _listen(self, audio: bytes) -> None:
        for event in self._ears.hear(audio):
            match event:
                case Started(start_ms):
                    await self._do(self._conversation.speech_started(start_ms))
                case Stopped(end_ms):
                    await self._do(self._conversation.speech_stopped(end_ms))
                case None:
                    await asyncio.sleep(0)

    async def _speak(self, task: Speak) -> None:
        loop = asyncio.get_running_loop()
        start, made_ms = loop.time(), 0.0
        try:
            for sentence in task.sentences:
                await self._keep_pace(start, made_ms)
                audio = await loop.run_in_executor(
                    self._shared.synthesis, self._shared.voice.speak, sentence, task.output
                )
                made_ms += len(audio) / (48 if task.output["format"]["type"] == "audio/pcm" else 8)
                await self._do(self._conversation.sound(task.response_id, sentence, audio))
            await self._do(self._conversation.spoken(task.response_id))
        except Exception as error:
            # The voice broke, or we did: the client must not wait for the rest.
            log.exception("a response could not be spoken")
            await self._do(self._conversation.failed(task.response_id, f"the voice failed: {type(error).__name__}"))
        finally:
            self._speaking.pop(task.response_id, None)

    async def _keep_pace(self, start: float, made_ms: float) -> None:
        """Wait while too much is made or unsent already."""
        while self._unsent_bytes > _PAUSE_UNSENT_BYTES:
            self._sent_some.clear()
            await self._sent_some.wait()
        if self._shared.pace is not None and made_ms:
            paced_ms = max(made_ms - _UNPACED_MS, 0)
            ahead_s = paced_ms / 1000 / self._shared.pace - (asyncio.get_running_loop().time() - start)
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)

    def _hush(self, response_id: str) -> None:
        task = self._speaking.pop(response_id, None)
        # A response that runs out of tokens hushes itself, from within its own task, which then ends anyway.
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def _post(self, event: Obj) -> None:
        data = orjson.dumps(event)
        self._unsent.append(data)
        self._unsent_bytes += len(data)
        self._wake_sender.set()
        if self._unsent_bytes > MOST_UNSENT_BYTES:
            log.warning("a client does not read what it asks for; its connection is dropped")
            self._unsent.clear()
            self._abort()

    async def _send_all(self) -> None:
        """The only writer of the socket: keeps the order, and lets everything else go on while the client reads."""
        while True:
            await self._wake_sender.wait()
            self._wake_sender.clear()
            while self._unsent:
                data = self._unsent.popleft()
                await self._socket.send_frame(data, WSMsgType.TEXT)
                self._unsent_bytes -= len(data)
                self._sent_some.set()


async def _in_steps(work: Generator[None, None, str | None]) -> str | None:
    """Run a generator to its end, giving way between its steps."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: str | None = end.value
            return result
        await asyncio.sleep(0)


def _new_id(kind: str) -> str:
    """ "item_1f…": at most 32 characters, as some clients insist for call ids."""
    return f"{kind}_{secrets.token_hex(10)}"
