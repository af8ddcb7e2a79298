"""The engine in ElevenLabs' place: its own voice behind ElevenLabs' HTTP routes and both of its WebSockets.

https://elevenlabs.io/docs/api-reference/text-to-speech/convert, …/stream and the two …/stream-input. Any key is taken;
every voice id has a voice, but those that begin with "missing"; models are those with the prefix `eleven_`.
"""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import pybase64
from aiohttp import WSMsgType, web

from audio.formats import AudioFormat
from relay.json_types import JsonObject, parse_json_object
from relay.local_engine.elevenlabs.contexts import (
    MAX_TEXT_CHARS,
    ElevenLabsError,
    SpeechContext,
    SpeechContexts,
    parse_output_format,
    parse_speed,
)
from relay.local_engine.speech.tts import SpeechSynthesizer, TimedSpeech

CHUNK_MS = 200
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_BODY_BYTES = 1024 * 1024
MAX_TIMEOUT_S = 180
DEFAULT_TIMEOUT_S = 20
MODELS = ("eleven_flash_v2_5", "eleven_flash_v2", "eleven_turbo_v2_5", "eleven_multilingual_v2", "eleven_v3")
_SYNTHESIZER = web.AppKey("elevenlabs_speech", SpeechSynthesizer)
_EXECUTOR = web.AppKey("elevenlabs_voice", ThreadPoolExecutor)
SOCKETS = web.AppKey("elevenlabs_sockets", set[web.WebSocketResponse])


class SpeechParams(NamedTuple):
    """Who speaks, and in which format."""

    voice_id: str
    format: AudioFormat


def add_routes(app: web.Application) -> None:
    """Let `app` answer as ElevenLabs does. Raises ConfigError if there is no voice."""
    app[_SYNTHESIZER] = SpeechSynthesizer()
    app[_EXECUTOR] = ThreadPoolExecutor(1, thread_name_prefix="relay-elevenlabs")
    app[SOCKETS] = set()
    app.router.add_get("/v1/voices", _voices)
    app.router.add_get("/v1/voices/{voice_id}", _voice)
    app.router.add_get("/v1/models", _models)
    app.router.add_post("/v1/text-to-speech/{voice_id}", partial(_text_to_speech, whole=True))
    app.router.add_post("/v1/text-to-speech/{voice_id}/stream", partial(_text_to_speech, whole=False))
    app.router.add_get("/v1/text-to-speech/{voice_id}/stream-input", partial(_stream_input, multi=False))
    app.router.add_get("/v1/text-to-speech/{voice_id}/multi-stream-input", partial(_stream_input, multi=True))
    app.on_cleanup.append(_shut_down_executor)


async def _shut_down_executor(app: web.Application) -> None:
    app[_EXECUTOR].shutdown(wait=False, cancel_futures=True)


# -- HTTP -------------------------------------------------------------------------------------------------------------


async def _voices(request: web.Request) -> web.Response:
    voices = [{"voice_id": name, "name": name} for name in request.app[_SYNTHESIZER].voices]
    return web.json_response({"voices": voices})


async def _voice(request: web.Request) -> web.Response:
    try:
        voice_id = _voice_id(request)
    except ElevenLabsError as problem:
        return _error_response(problem)
    return web.json_response({"voice_id": voice_id, "name": voice_id})


async def _models(request: web.Request) -> web.Response:
    return web.json_response([{"model_id": name, "name": name, "can_do_text_to_speech": True} for name in MODELS])


def _error_response(error: ElevenLabsError) -> web.Response:
    return web.json_response({"detail": {"status": error.code, "message": str(error)}}, status=error.status)


async def _text_to_speech(request: web.Request, *, whole: bool) -> web.StreamResponse:
    try:
        body = parse_json_object(await request.content.read(MAX_BODY_BYTES))
        if body is None:
            raise ElevenLabsError("The body must be a JSON object.", "invalid_body", 422)
        terms = _speech_params(request, body.get("model_id"))
        text = body.get("text")
        if not isinstance(text, str) or not text.strip():
            raise ElevenLabsError("text must not be empty.", "empty_text", 422)
        if len(text) > MAX_TEXT_CHARS:
            raise ElevenLabsError(f"text may have {MAX_TEXT_CHARS} characters.", "max_character_limit_exceeded", 400)
        speed = parse_speed(body.get("voice_settings"))
    except ElevenLabsError as problem:
        return _error_response(problem)
    headers = {"Content-Type": "audio/pcm" if terms.format.encoding == "pcm16" else "audio/basic"}
    sentences = SpeechContext("", speed).add_text(text, flush=True)
    if whole:
        spoken = [await _synthesize(request.app, terms, sentence, speed) for sentence in sentences]
        return web.Response(body=b"".join(speech.audio for speech in spoken), headers=headers)
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the client has heard enough
        for sentence in sentences:
            await response.write((await _synthesize(request.app, terms, sentence, speed)).audio)
        await response.write_eof()
    return response


def _voice_id(request: web.Request) -> str:
    voice_id = request.match_info["voice_id"]
    if voice_id.lower().startswith("missing"):
        message = f"A voice with voice_id {voice_id[:80]} does not exist."
        raise ElevenLabsError(message, "voice_id_does_not_exist", 404)
    return voice_id


def _speech_params(request: web.Request, model_id: Any = None) -> SpeechParams:
    """What the address asks for. Raises Problem."""
    voice_id = _voice_id(request)
    model = model_id if model_id is not None else request.query.get("model_id", "eleven_flash_v2_5")
    if not str(model).startswith("eleven_"):
        raise ElevenLabsError(
            f"A model with model_id {str(model)[:80]} does not exist.", "model_id_does_not_exist", 400
        )
    return SpeechParams(voice_id, parse_output_format(request.query.get("output_format", "mp3_44100_128")))


async def _synthesize(app: web.Application, params: SpeechParams, sentence: str, speed: float) -> TimedSpeech:
    speak = partial(app[_SYNTHESIZER].synthesize_timed, sentence, params.voice_id, params.format, speed)
    return await asyncio.get_running_loop().run_in_executor(app[_EXECUTOR], speak)


# -- the WebSockets ---------------------------------------------------------------------------------------------------


async def _stream_input(request: web.Request, *, multi: bool) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, compress=False)
    await socket.prepare(request)
    request.app[SOCKETS].add(socket)
    speaker: StreamInputConnection | None = None
    try:
        speaker = StreamInputConnection(request.app, socket, _speech_params(request), multi=multi)
        await speaker.run(_inactivity_timeout_s(request))
    except ElevenLabsError as problem:
        await socket.send_json({"message": str(problem), "error": problem.code, "code": 1008})
        await socket.close(code=1008, message=str(problem).encode()[:120])
    finally:
        request.app[SOCKETS].discard(socket)
        if speaker is not None:
            await speaker.stop()
    return socket


def _inactivity_timeout_s(request: web.Request) -> float:
    try:
        timeout_s = float(request.query.get("inactivity_timeout", DEFAULT_TIMEOUT_S))
    except ValueError:
        timeout_s = 0.0
    if not 0 < timeout_s <= MAX_TIMEOUT_S:
        raise ElevenLabsError(
            f"inactivity_timeout must be from 1 to {MAX_TIMEOUT_S}.", "invalid_inactivity_timeout", 400
        )
    return timeout_s


class StreamInputConnection:
    """One connection: its contexts speak one after the other's sentences, in the order of what was sent."""

    def __init__(
        self, app: web.Application, socket: web.WebSocketResponse, params: SpeechParams, *, multi: bool
    ) -> None:
        self._app = app
        self._socket = socket
        self._params = params
        self._multi = multi
        self._contexts = SpeechContexts(multi=multi)
        self._tasks: dict[SpeechContext, asyncio.Task[None]] = {}

    async def run(self, timeout_s: float) -> None:
        """Serve until either side closes. Raises Problem for what the protocol forbids."""
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
        """Speak no more."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _handle_message(self, data: str) -> bool:
        """One message; False if it ends the connection."""
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
        """Speak after what the context has to say already."""
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
                await self._send_audio(context, await _synthesize(self._app, self._params, sentence, context.speed))
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
            return  # the client has gone; `run` sees it too

    async def _send_audio(self, context: SpeechContext, speech: TimedSpeech) -> None:
        """A sentence in pieces; the characters of a piece have their times from its beginning."""
        bytes_per_ms = self._params.format.bytes_per_ms
        step = CHUNK_MS * bytes_per_ms
        start_char = 0
        for start in range(0, len(speech.audio), step):
            chunk = speech.audio[start : start + step]
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
            message: JsonObject = {
                "audio": pybase64.b64encode(chunk).decode(),
                "alignment": alignment,
                "normalizedAlignment": alignment,
            }
            await self._socket.send_json(message | ({"contextId": context.id} if self._multi else {"isFinal": None}))

    async def _send_final(self, context: SpeechContext) -> None:
        self._contexts.remove(context)
        if not self._socket.closed:
            await self._socket.send_json({"isFinal": True} | ({"contextId": context.id} if self._multi else {}))
