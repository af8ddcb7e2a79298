"""`POST /navai/speech/synthesize`: a text spoken by ElevenLabs, as JSON, or as audio while it is being made.

`Accept: audio/*` asks for the second; everything else gets `{provider, mimeType, audioBase64}`.
"""

import asyncio
import contextlib
from typing import Any

from aiohttp import web

from relay.core.policy import Principal
from relay.endpoints.bodies import NO_STORE, address_of, check_sender, number_of, read_object, text_of
from relay.endpoints.navai_backend import NavaiBackend
from relay.errors import BadRequest, NotConfigured, UpstreamError
from relay.navai_options import ElevenLabsVoiceSettings
from relay.peers.provider import Call, Stream
from relay.upstreams.clients.elevenlabs_speech import (
    NOT_CONFIGURED,
    SpeechRequest,
    permitted_request,
    speech_call,
    synthesize_speech,
)

MAX_TEXT_CHARS = 40_000
"""What the fastest of ElevenLabs' models take in one request; the others take less, and say so."""


def request_of(body: dict[str, Any]) -> SpeechRequest:
    """Read a JSON body; unknown fields are ignored. Raises BadRequest naming the field."""
    text = text_of(body, "text")
    if text is None:
        raise BadRequest("text is required.", "text")
    if len(text) > MAX_TEXT_CHARS:
        raise BadRequest(f"text may have at most {MAX_TEXT_CHARS} characters, not {len(text)}.", "text")
    return SpeechRequest(
        text=text,
        voice_id=text_of(body, "voiceId"),
        model_id=text_of(body, "modelId"),
        output_format=text_of(body, "outputFormat"),
        optimize_streaming_latency=number_of(body, "optimizeStreamingLatency"),
        voice_settings=_voice_settings(body.get("voiceSettings")),
    )


def _voice_settings(given: Any) -> ElevenLabsVoiceSettings | None:
    """The settings of a body; they replace the options' as a whole, unless they hold none."""
    if given is None:
        return None
    if not isinstance(given, dict):
        raise BadRequest("voiceSettings must be an object.", "voiceSettings")
    boost = given.get("useSpeakerBoost")
    if boost is not None and not isinstance(boost, bool):
        raise BadRequest("voiceSettings.useSpeakerBoost must be true or false.", "voiceSettings.useSpeakerBoost")
    found = ElevenLabsVoiceSettings(
        stability=_share_of(given, "stability"),
        similarity_boost=_share_of(given, "similarityBoost"),
        style=_share_of(given, "style"),
        use_speaker_boost=boost,
    )
    return found if found != ElevenLabsVoiceSettings() else None


def _share_of(given: dict[str, Any], name: str) -> float | None:
    value, field_name = number_of(given, name, "voiceSettings."), f"voiceSettings.{name}"
    if value is not None and not 0 <= value <= 1:
        raise BadRequest(f"{field_name} must be from 0 to 1.", field_name)
    return value


async def speech_synthesize(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Speak a text for a page, within the caller's quota."""
    check_sender(request)
    as_audio = wants_audio(request.headers.get("Accept", ""))
    if backend.options.tts_provider != "elevenlabs":
        raise NotConfigured(NOT_CONFIGURED)
    wanted = request_of(await read_object(request))
    wanted = permitted_request(principal.policy, backend.options, wanted)
    backend.spending.buy("speech", principal.identity, address_of(request), asyncio.get_running_loop().time())
    if as_audio:
        return await _stream(request, backend, speech_call(backend.options, wanted, stream=True))
    speech = await synthesize_speech(backend.options, wanted, provider=backend.provider)
    return web.json_response(speech.to_json(), headers=NO_STORE)


def wants_audio(accept: str) -> bool:
    """Whether an Accept header names sound, and not JSON as well."""
    ranges = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return any(one.startswith("audio/") for one in ranges) and not {"application/json", "application/*"} & {*ranges}


async def _stream(request: web.Request, backend: NavaiBackend, call: Call) -> web.StreamResponse:
    """Pass the sound on as it comes; a break in the middle breaks the client's transfer as well."""
    async with backend.provider.stream(call) as sound:
        response = web.StreamResponse(headers=NO_STORE | {"Content-Type": sound.content_type or call.headers["Accept"]})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            await _pump(sound, response)
        except UpstreamError:
            # The head is sent: only a transfer that visibly breaks off can still say that this is not all of it.
            if request.transport is not None:
                request.transport.abort()
    return response


async def _pump(sound: Stream, response: web.StreamResponse) -> None:
    with contextlib.suppress(ConnectionResetError):  # the client has gone: leaving ends ElevenLabs' transfer too
        async for chunk in sound.chunks():
            await response.write(chunk)
        await response.write_eof()
