"""ElevenLabs' text-to-speech routes, HTTP and WebSocket, served with the engine's own voices.

https://elevenlabs.io/docs/api-reference/text-to-speech/convert, …/stream and the two …/stream-input. Any API key is
accepted. Every voice id is valid unless it begins with "missing"; a model id must have the prefix `eleven_`.
"""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from aiohttp import web

from audio.formats import AudioFormat
from relay.json_types import parse_json_object
from relay.local_engine.elevenlabs.contexts import (
    MAX_TEXT_CHARS,
    ElevenLabsError,
    SpeechContext,
    parse_output_format,
    parse_speed,
)
from relay.local_engine.elevenlabs.stream_input import StreamInputConnection
from relay.local_engine.speech.tts import SpeechSynthesizer, TimedSpeech

MAX_MESSAGE_BYTES = 1024 * 1024
MAX_BODY_BYTES = 1024 * 1024
MAX_TIMEOUT_S = 180
DEFAULT_TIMEOUT_S = 20
MODELS = ("eleven_flash_v2_5", "eleven_flash_v2", "eleven_turbo_v2_5", "eleven_multilingual_v2", "eleven_v3")
_SYNTHESIZER = web.AppKey("elevenlabs_speech", SpeechSynthesizer)
_EXECUTOR = web.AppKey("elevenlabs_voice", ThreadPoolExecutor)
SOCKETS = web.AppKey("elevenlabs_sockets", set[web.WebSocketResponse])


class SpeechParams(NamedTuple):
    """The voice and the output format of a request."""

    voice_id: str
    format: AudioFormat


def add_routes(app: web.Application) -> None:
    """Serve ElevenLabs' routes. Raises ConfigError if no voice is installed."""
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
    except ElevenLabsError as error:
        return _error_response(error)
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
        params = _speech_params(request, body.get("model_id"))
        text = body.get("text")
        if not isinstance(text, str) or not text.strip():
            raise ElevenLabsError("text must not be empty.", "empty_text", 422)
        if len(text) > MAX_TEXT_CHARS:
            message = f"text may have at most {MAX_TEXT_CHARS} characters."
            raise ElevenLabsError(message, "max_character_limit_exceeded", 400)
        speed = parse_speed(body.get("voice_settings"))
    except ElevenLabsError as error:
        return _error_response(error)
    headers = {"Content-Type": "audio/pcm" if params.format.encoding == "pcm16" else "audio/basic"}
    sentences = SpeechContext("", speed).add_text(text, flush=True)
    if whole:
        speeches = [await _synthesize(request.app, params, sentence, speed) for sentence in sentences]
        return web.Response(body=b"".join(speech.audio for speech in speeches), headers=headers)
    response = web.StreamResponse(headers=headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):  # the client disconnected
        for sentence in sentences:
            await response.write((await _synthesize(request.app, params, sentence, speed)).audio)
        await response.write_eof()
    return response


def _voice_id(request: web.Request) -> str:
    voice_id = request.match_info["voice_id"]
    if voice_id.lower().startswith("missing"):
        message = f"A voice with voice_id {voice_id[:80]} does not exist."
        raise ElevenLabsError(message, "voice_id_does_not_exist", 404)
    return voice_id


def _speech_params(request: web.Request, model_id: Any = None) -> SpeechParams:
    """Read the voice, model and format of a request. Raises ElevenLabsError."""
    voice_id = _voice_id(request)
    model = model_id if model_id is not None else request.query.get("model_id", "eleven_flash_v2_5")
    if not str(model).startswith("eleven_"):
        raise ElevenLabsError(
            f"A model with model_id {str(model)[:80]} does not exist.", "model_id_does_not_exist", 400
        )
    return SpeechParams(voice_id, parse_output_format(request.query.get("output_format", "mp3_44100_128")))


async def _synthesize(app: web.Application, params: SpeechParams, sentence: str, speed: float) -> TimedSpeech:
    synthesize = partial(app[_SYNTHESIZER].synthesize_timed, sentence, params.voice_id, params.format, speed)
    return await asyncio.get_running_loop().run_in_executor(app[_EXECUTOR], synthesize)


# -- WebSockets -------------------------------------------------------------------------------------------------------


async def _stream_input(request: web.Request, *, multi: bool) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, compress=False)
    await socket.prepare(request)
    request.app[SOCKETS].add(socket)
    connection: StreamInputConnection | None = None
    try:
        params = _speech_params(request)
        synthesize = partial(_synthesize, request.app, params)
        connection = StreamInputConnection(socket, synthesize, params.format, multi=multi)
        await connection.run(_inactivity_timeout_s(request))
    except ElevenLabsError as error:
        await socket.send_json({"message": str(error), "error": error.code, "code": 1008})
        await socket.close(code=1008, message=str(error).encode()[:120])
    finally:
        request.app[SOCKETS].discard(socket)
        if connection is not None:
            await connection.stop()
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
