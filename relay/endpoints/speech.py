"""`POST /navai/speech/synthesize`: a text spoken by ElevenLabs, as JSON, or as sound while it is being made.

`Accept: audio/*` asks for the second; everything else gets `{provider, mimeType, audioBase64}`. ElevenLabs:
https://elevenlabs.io/docs/api-reference/text-to-speech/convert and …/stream
"""

import asyncio
import contextlib
import logging
import math
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Self
from urllib.parse import quote, urlencode

import pybase64
from aiohttp import web

from relay.core.policy import Policy, Principal
from relay.core.values import EXTERNAL_VOICE
from relay.endpoints.bodies import NO_STORE, address_of, check_sender, number_of, text_of
from relay.endpoints.navai_backend import NavaiBackend, read_body
from relay.endpoints.navai_options import DEFAULT_ELEVENLABS_OUTPUT_FORMAT, ElevenLabsVoiceSettings, NavaiOptions
from relay.endpoints.permissions import permitted, require_value
from relay.errors import BadRequest, NotConfigured, UpstreamError
from relay.peers.provider import Call, ProviderClient, Stream

MAX_AUDIO_BYTES = 32 * 1024 * 1024
"""Half an hour of mp3 at 128 kbit/s; more ends the call."""

NOT_CONFIGURED = 'Speech synthesis is only available when NAVAI_TTS_PROVIDER is set to "elevenlabs".'

MAX_TEXT_CHARS = 40_000
"""What the fastest of ElevenLabs' models take in one request; the others take less, and say so."""
_MIME_TYPES = {"mp3": "audio/mpeg", "pcm": "audio/pcm", "wav": "audio/wav", "ulaw": "audio/basic"}
_log = logging.getLogger("relay.provider")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """A text, and how it is to be spoken where not as the options say."""

    text: str
    voice_id: str | None = None
    model_id: str | None = None
    output_format: str | None = None
    optimize_streaming_latency: float | None = None
    voice_settings: ElevenLabsVoiceSettings | None = None

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Self:
        """Read a JSON body; unknown fields are ignored. Raises BadRequest naming the field."""
        text = text_of(body, "text")
        if text is None:
            raise BadRequest("text is required.", "text")
        if len(text) > MAX_TEXT_CHARS:
            raise BadRequest(f"text may have at most {MAX_TEXT_CHARS} characters, not {len(text)}.", "text")
        return cls(
            text=text,
            voice_id=text_of(body, "voiceId"),
            model_id=text_of(body, "modelId"),
            output_format=text_of(body, "outputFormat"),
            optimize_streaming_latency=number_of(body, "optimizeStreamingLatency"),
            voice_settings=_voice_settings(body.get("voiceSettings")),
        )


@dataclass(frozen=True, slots=True)
class Speech:
    """A whole piece of speech."""

    mime_type: str
    audio: bytes
    provider: str = "elevenlabs"

    def to_json(self) -> dict[str, str]:
        """As the route answers it."""
        audio = pybase64.b64encode_as_string(self.audio)
        return {"provider": self.provider, "mimeType": self.mime_type, "audioBase64": audio}


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


async def synthesize_speech(
    options: NavaiOptions, request: SpeechRequest, *, provider: ProviderClient | None = None
) -> Speech:
    """Speak a text and wait for all of it. Raises NotConfigured, UpstreamError.

    `provider` is for keeping connections between calls.
    """
    call = speech_call(options, request)
    async with AsyncExitStack() as stack:
        if provider is None:
            provider = ProviderClient()
            stack.push_async_callback(provider.close)
        reply = await provider.fetch(call)
    return Speech(reply.content_type or call.headers["Accept"], reply.body)


def speech_call(options: NavaiOptions, request: SpeechRequest, *, stream: bool = False) -> Call:
    """The request to ElevenLabs; `stream` makes it answer while it still speaks. Raises NotConfigured."""
    if options.tts_provider != "elevenlabs":
        raise NotConfigured(NOT_CONFIGURED)
    output_format = request.output_format or options.elevenlabs_output_format or DEFAULT_ELEVENLABS_OUTPUT_FORMAT
    query = {"output_format": output_format}
    latency = request.optimize_streaming_latency
    if latency is None:
        latency = options.elevenlabs_optimize_streaming_latency
    if latency is not None:
        query["optimize_streaming_latency"] = str(math.floor(latency + 0.5))  # halves go up, as in JavaScript
    settings = asdict(request.voice_settings or options.elevenlabs_voice_settings)
    settings = {name: _plain(value) for name, value in settings.items() if value is not None}
    model_id = request.model_id or options.elevenlabs_model_id
    voice = quote(request.voice_id or options.elevenlabs_voice_id or "", safe="")
    base = options.elevenlabs_base_url.rstrip("/")
    return Call(
        name="ElevenLabs synthesize",
        url=f"{base}/v1/text-to-speech/{voice}{'/stream' if stream else ''}?{urlencode(query, quote_via=quote)}",
        headers={"xi-api-key": options.elevenlabs_api_key or "", "Accept": mime_type_of(output_format)},
        body={"text": request.text}
        | ({"model_id": model_id} if model_id else {})
        | ({"voice_settings": settings} if settings else {}),
        timeout_s=options.upstream_timeout_s,
        max_bytes=MAX_AUDIO_BYTES,
    )


def mime_type_of(output_format: str) -> str:
    """The type of the sound that a format such as mp3_44100_128 gives."""
    kinds = (mime_type for prefix, mime_type in _MIME_TYPES.items() if output_format.lower().startswith(prefix))
    return next(kinds, "audio/mpeg")


def _plain(value: float | bool) -> float | bool:
    """A whole number without its `.0`, as JavaScript writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def permitted_request(policy: Policy, options: NavaiOptions, wanted: SpeechRequest) -> SpeechRequest:
    """What the policy leaves of a request, with its default for the voice. Raises AccessDenied."""
    given = permitted(policy, "voiceId", wanted.voice_id, lambda voice: policy.allows_voice(EXTERNAL_VOICE + voice))
    configured = EXTERNAL_VOICE + (options.elevenlabs_voice_id or "")
    default = policy.default_voice(configured, kind="external")
    voice_id = require_value("voiceId", given or (default and default.removeprefix(EXTERNAL_VOICE)))
    model_id = permitted(
        policy,
        "modelId",
        wanted.model_id,
        lambda model: model == options.elevenlabs_model_id or policy.allows_model(model),
    )
    return replace(wanted, voice_id=voice_id, model_id=model_id)


async def speech_synthesize(request: web.Request, backend: NavaiBackend, principal: Principal) -> web.StreamResponse:
    """Speak a text for a page, within the caller's quota."""
    check_sender(request)
    as_audio = wants_audio(request.headers.get("Accept", ""))
    if backend.options.tts_provider != "elevenlabs":
        raise NotConfigured(NOT_CONFIGURED)
    wanted = SpeechRequest.from_body(await read_body(request))
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
