"""A text spoken by ElevenLabs over HTTP. ElevenLabs:
https://elevenlabs.io/docs/api-reference/text-to-speech/convert and …/stream
"""

import math
from dataclasses import asdict, dataclass, replace
from urllib.parse import quote, urlencode

import pybase64

from relay.core.policy import Policy
from relay.core.values import EXTERNAL_VOICE
from relay.errors import NotConfigured
from relay.navai_options import DEFAULT_ELEVENLABS_OUTPUT_FORMAT, ElevenLabsVoiceSettings, NavaiOptions
from relay.peers.provider import Call, ProviderClient, fetch
from relay.permissions import permitted, require_value

MAX_AUDIO_BYTES = 32 * 1024 * 1024
"""Half an hour of mp3 at 128 kbit/s; more ends the call."""
NOT_CONFIGURED = 'Speech synthesis is only available when NAVAI_TTS_PROVIDER is set to "elevenlabs".'
_MIME_TYPES = {"mp3": "audio/mpeg", "pcm": "audio/pcm", "wav": "audio/wav", "ulaw": "audio/basic"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """A text, and how it is to be spoken where not as the options say."""

    text: str
    voice_id: str | None = None
    model_id: str | None = None
    output_format: str | None = None
    optimize_streaming_latency: float | None = None
    voice_settings: ElevenLabsVoiceSettings | None = None


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


async def synthesize_speech(
    options: NavaiOptions, request: SpeechRequest, *, provider: ProviderClient | None = None
) -> Speech:
    """Speak a text and wait for all of it. Raises NotConfigured, UpstreamError.

    `provider` is for keeping connections between calls.
    """
    call = speech_call(options, request)
    reply = await fetch(call, provider)
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


def permitted_speech(policy: Policy, options: NavaiOptions, wanted: SpeechRequest) -> SpeechRequest:
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
