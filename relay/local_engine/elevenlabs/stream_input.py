"""ElevenLabs' stream-input WebSockets: they receive text, and send audio with character times."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pybase64
from aiohttp import WSMsgType, web

from audio.formats import AudioFormat
from relay.json_types import JsonObject
from relay.local_engine.elevenlabs.contexts import ElevenLabsError, SpeechContext, SpeechContexts
from relay.local_engine.speech.tts import TimedSpeech

CHUNK_MS = 200

SentenceSynthesizer = Callable[[str, float], Awaitable[TimedSpeech]]
"""Synthesizes a sentence at a speed."""


class StreamInputConnection:
    """One WebSocket connection: synthesizes the sentences of its contexts, each context in its order."""

    def __init__(
        self, socket: web.WebSocketResponse, synthesize: SentenceSynthesizer, audio_format: AudioFormat, *, multi: bool
    ) -> None:
        self._socket = socket
        self._synthesize = synthesize
        self._audio_format = audio_format
        self._multi = multi
        self._contexts = SpeechContexts(multi=multi)
        self._tasks: dict[SpeechContext, asyncio.Task[None]] = {}

    async def run(self, timeout_s: float) -> None:
        """Serve until either side closes. Raises ElevenLabsError for a protocol violation."""
        while True:
            try:
                message = await self._socket.receive(timeout=timeout_s)
            except TimeoutError:
                if all(task.done() for task in self._tasks.values()):
                    text = f"Have not received a new text input within the timeout of {timeout_s:g} seconds."
                    raise ElevenLabsError(text, "input_timeout_exceeded", 400) from None
                continue
            if message.type is not WSMsgType.TEXT:
                return
            if not await self._handle_message(message.data):
                return

    async def stop(self) -> None:
        """Cancel all speech."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _handle_message(self, data: str) -> bool:
        """Handle one message; returns False if it ends the connection."""
        step = self._contexts.receive(data)
        for context in step.cancelled:
            task = self._tasks.pop(context, None)
            if task is not None:
                task.cancel()
            await self._send_final(context)
        if step.context is not None and step.sentences:
            self._queue_speech(step.context, step.sentences)
        if step.finished is not None:
            self._queue_speech(step.finished, [], last=True)
        if step.is_last:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self._socket.close(code=1000)
            return False
        return True

    def _queue_speech(self, context: SpeechContext, sentences: list[str], *, last: bool = False) -> None:
        """Speak sentences after those that the context has queued already."""
        self._tasks[context] = asyncio.get_running_loop().create_task(
            self._speak(context, sentences, self._tasks.get(context), last=last)
        )

    async def _speak(
        self, context: SpeechContext, sentences: list[str], previous: "asyncio.Task[None] | None", *, last: bool
    ) -> None:
        try:
            if previous is not None:
                await previous
            for sentence in sentences:
                await self._send_audio(context, await self._synthesize(sentence, context.speed))
            if last:
                self._tasks.pop(context, None)
                await self._send_final(context)
                if not self._multi:
                    await self._socket.close(code=1000)
        except asyncio.CancelledError:
            if previous is not None:
                previous.cancel()
            raise
        except ConnectionError:
            return  # the client disconnected; `run` ends too

    async def _send_audio(self, context: SpeechContext, speech: TimedSpeech) -> None:
        for message in _audio_messages(speech, self._audio_format.bytes_per_ms):
            await self._socket.send_json(message | ({"contextId": context.id} if self._multi else {"isFinal": None}))

    async def _send_final(self, context: SpeechContext) -> None:
        self._contexts.remove(context)
        if not self._socket.closed:
            await self._socket.send_json({"isFinal": True} | ({"contextId": context.id} if self._multi else {}))


def _audio_messages(speech: TimedSpeech, bytes_per_ms: int) -> Iterator[JsonObject]:
    """Yield a sentence as messages of `CHUNK_MS` of audio; character times are relative to their chunk."""
    step = CHUNK_MS * bytes_per_ms
    start_char = 0
    for start in range(0, len(speech.audio), step):
        from_ms, to_ms = start / bytes_per_ms, (start + step) / bytes_per_ms
        is_last = start + step >= len(speech.audio)
        end_char = start_char
        while end_char < len(speech.chars) and (is_last or speech.starts_ms[end_char] < to_ms):
            end_char += 1
        alignment = {
            "chars": speech.chars[start_char:end_char],
            "charStartTimesMs": [max(round(ms - from_ms), 0) for ms in speech.starts_ms[start_char:end_char]],
            "charDurationsMs": speech.durations_ms[start_char:end_char],
        }
        start_char = end_char
        audio = pybase64.b64encode(speech.audio[start : start + step]).decode()
        yield {"audio": audio, "alignment": alignment, "normalizedAlignment": alignment}
