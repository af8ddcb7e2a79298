"""The NAVAI route of speech synthesis."""

import asyncio
import contextlib
from typing import Any

from aiohttp import web

from relay.config.navai_options import ElevenLabsVoiceSettings
from relay.endpoints.navai.backend import NavaiBackend
from relay.endpoints.request_body import (
    NO_STORE,
    check_csrf,
    client_address,
    number_field,
    read_json_object,
    string_field,
)
from relay.errors import BadRequest, NotConfigured, UpstreamError
from relay.session.common.policy import Principal
from relay.transport.http_client import HttpRequest
from relay.upstreams.clients.elevenlabs import (
    SPEECH_NOT_CONFIGURED_TEXT,
    SpeechRequest,
    build_speech_request,
    permitted_speech_request,
    synthesize_speech,
)

MAX_TEXT_CHARS = 40_000
"""The limit of ElevenLabs' fastest models; the others refuse shorter texts themselves."""


def parse_speech_request(body: dict[str, Any]) -> SpeechRequest:
    """Parse a JSON body; unknown fields are ignored. Raises BadRequest with the field."""
    text = string_field(body, "text")
    if text is None:
        raise BadRequest("text is required.", "text")
    if len(text) > MAX_TEXT_CHARS:
        raise BadRequest(f"text may have at most {MAX_TEXT_CHARS} characters, not {len(text)}.", "text")
    return SpeechRequest(
        text=text,
        voice_id=string_field(body, "voiceId"),
        model_id=string_field(body, "modelId"),
        output_format=string_field(body, "outputFormat"),
        optimize_streaming_latency=number_field(body, "optimizeStreamingLatency"),
        voice_settings=_voice_settings(body.get("voiceSettings")),
    )


def _voice_settings(body: Any) -> ElevenLabsVoiceSettings | None:
    """Parse voice settings, which replace those of the options as a whole; None if empty."""
    if body is None:
        return None
    if not isinstance(body, dict):
        raise BadRequest("voiceSettings must be an object.", "voiceSettings")
    boost = body.get("useSpeakerBoost")
    if boost is not None and not isinstance(boost, bool):
        raise BadRequest("voiceSettings.useSpeakerBoost must be true or false.", "voiceSettings.useSpeakerBoost")
    settings = ElevenLabsVoiceSettings(
        stability=_fraction_field(body, "stability"),
        similarity_boost=_fraction_field(body, "similarityBoost"),
        style=_fraction_field(body, "style"),
        use_speaker_boost=boost,
    )
    return settings if settings != ElevenLabsVoiceSettings() else None


def _fraction_field(body: dict[str, Any], name: str) -> float | None:
    value, field_name = number_field(body, name, "voiceSettings."), f"voiceSettings.{name}"
    if value is not None and not 0 <= value <= 1:
        raise BadRequest(f"{field_name} must be from 0 to 1.", field_name)
    return value


async def speech_synthesize(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Synthesize a text for a browser, within the caller's quota."""
    check_csrf(request)
    as_audio = accepts_audio(request.headers.get("Accept", ""))
    if backend.options.tts_provider != "elevenlabs":
        raise NotConfigured(SPEECH_NOT_CONFIGURED_TEXT)
    speech_request = parse_speech_request(await read_json_object(request))
    speech_request = permitted_speech_request(principal.policy, backend.options, speech_request)
    backend.quota.charge("speech", principal.identity, client_address(request), asyncio.get_running_loop().time())
    if as_audio:
        return await _stream(request, backend, build_speech_request(backend.options, speech_request, stream=True))
    speech = await synthesize_speech(backend.options, speech_request, provider=backend.provider)
    return web.json_response(speech.to_json(), headers=NO_STORE)


def accepts_audio(accept: str) -> bool:
    """Whether an Accept header names audio, and not JSON as well."""
    ranges = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    names_json = bool({"application/json", "application/*"} & {*ranges})
    return any(media_type.startswith("audio/") for media_type in ranges) and not names_json


async def _stream(request: web.Request, backend: NavaiBackend, speech_request: HttpRequest) -> web.StreamResponse:
    """Forward the audio as it arrives; a failure aborts the client's transfer as well."""
    async with backend.provider.stream(speech_request) as audio:
        response = web.StreamResponse(
            headers=NO_STORE | {"Content-Type": audio.content_type or speech_request.headers["Accept"]}
        )
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            with contextlib.suppress(ConnectionResetError):  # the client disconnected
                async for chunk in audio.chunks():
                    await response.write(chunk)
                await response.write_eof()
        except UpstreamError:
            # The head is sent, so that only an aborted transfer can still show that the audio is incomplete.
            if request.transport is not None:
                request.transport.abort()
    return response
