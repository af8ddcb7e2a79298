"""ElevenLabs: text to speech over REST, and the external TTS voices of device sessions."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Self
from urllib.parse import quote, urlencode

import pybase64

from relay.config.navai_options import DEFAULT_ELEVENLABS_OUTPUT_FORMAT, ElevenLabsVoiceSettings, NavaiOptions
from relay.config.policy_checks import permitted_value, require_value
from relay.config.settings import Settings
from relay.errors import ConfigError, NotConfigured
from relay.protocols.elevenlabs import TtsOutput
from relay.session.common.known_secrets import NO_SECRETS, KnownSecrets
from relay.session.common.model import ELEVENLABS_PREFIX, TtsOptions
from relay.session.common.policy import Policy
from relay.transport.elevenlabs import ElevenLabsOptions, ElevenLabsTts
from relay.transport.http_client import HttpRequest, ProviderHttpClient, fetch

MAX_AUDIO_BYTES = 32 * 1024 * 1024
"""Half an hour of mp3 at 128 kbit/s; a longer response is an error."""
SPEECH_NOT_CONFIGURED_TEXT = 'Speech synthesis is only available when NAVAI_TTS_PROVIDER is set to "elevenlabs".'
_MIME_TYPES = {"mp3": "audio/mpeg", "pcm": "audio/pcm", "wav": "audio/wav", "ulaw": "audio/basic"}
DEFAULT_TTS_MODEL = "eleven_flash_v2_5"
"""The model with the lowest latency."""
REALTIME_NOTICE = "ElevenLabs voices are for device sessions only: clients of /v1/realtime get the model's own voice"
_RANGES = {"stability": (0.0, 1.0), "similarity_boost": (0.0, 1.0), "style": (0.0, 1.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechRequest:
    """A text to synthesize; None means the default of the options."""

    text: str
    voice_id: str | None = None
    model_id: str | None = None
    output_format: str | None = None
    optimize_streaming_latency: float | None = None
    voice_settings: ElevenLabsVoiceSettings | None = None


@dataclass(frozen=True, slots=True)
class SynthesizedSpeech:
    """The audio of a whole text."""

    mime_type: str
    audio: bytes
    provider: str = "elevenlabs"

    def to_json(self) -> dict[str, str]:
        """Return the JSON body of the route's response."""
        audio = pybase64.b64encode_as_string(self.audio)
        return {"provider": self.provider, "mimeType": self.mime_type, "audioBase64": audio}


async def synthesize_speech(
    options: NavaiOptions, request: SpeechRequest, *, provider: ProviderHttpClient | None = None
) -> SynthesizedSpeech:
    """Synthesize a text and wait for all of its audio. Raises NotConfigured, UpstreamError.

    Pass a `provider` to reuse connections between calls.
    """
    call = build_speech_request(options, request)
    reply = await fetch(call, provider)
    return SynthesizedSpeech(reply.content_type or call.headers["Accept"], reply.body)


def build_speech_request(options: NavaiOptions, request: SpeechRequest, *, stream: bool = False) -> HttpRequest:
    """Build the request to ElevenLabs; with `stream` the response starts during synthesis. Raises NotConfigured."""
    if options.tts_provider != "elevenlabs":
        raise NotConfigured(SPEECH_NOT_CONFIGURED_TEXT)
    output_format = request.output_format or options.elevenlabs_output_format or DEFAULT_ELEVENLABS_OUTPUT_FORMAT
    query = {"output_format": output_format}
    latency = request.optimize_streaming_latency
    if latency is None:
        latency = options.elevenlabs_optimize_streaming_latency
    if latency is not None:
        query["optimize_streaming_latency"] = str(math.floor(latency + 0.5))  # halves go up, as in JavaScript
    settings = asdict(request.voice_settings or options.elevenlabs_voice_settings)
    settings = {name: _drop_zero_fraction(value) for name, value in settings.items() if value is not None}
    model_id = request.model_id or options.elevenlabs_model_id
    voice = quote(request.voice_id or options.elevenlabs_voice_id or "", safe="")
    base = options.elevenlabs_base_url.rstrip("/")
    return HttpRequest(
        name="ElevenLabs synthesize",
        url=f"{base}/v1/text-to-speech/{voice}{'/stream' if stream else ''}?{urlencode(query, quote_via=quote)}",
        headers={"xi-api-key": options.elevenlabs_api_key or "", "Accept": mime_type_for(output_format)},
        body={"text": request.text}
        | ({"model_id": model_id} if model_id else {})
        | ({"voice_settings": settings} if settings else {}),
        timeout_s=options.upstream_timeout_s,
        max_bytes=MAX_AUDIO_BYTES,
    )


def mime_type_for(output_format: str) -> str:
    """Return the media type of an output format such as mp3_44100_128."""
    kinds = (mime_type for prefix, mime_type in _MIME_TYPES.items() if output_format.lower().startswith(prefix))
    return next(kinds, "audio/mpeg")


def _drop_zero_fraction(value: float | bool) -> float | bool:
    """Return a whole number without its `.0`, as JavaScript writes it."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def permitted_speech_request(policy: Policy, options: NavaiOptions, request: SpeechRequest) -> SpeechRequest:
    """Return the request with the policy's default voice. Raises AccessDenied for a forbidden field."""
    voice = permitted_value(
        policy, "voiceId", request.voice_id, lambda voice: policy.allows_voice(ELEVENLABS_PREFIX + voice)
    )
    configured = ELEVENLABS_PREFIX + (options.elevenlabs_voice_id or "")
    default = policy.default_voice(configured, kind="external")
    voice_id = require_value("voiceId", voice or (default and default.removeprefix(ELEVENLABS_PREFIX)))
    model_id = permitted_value(
        policy,
        "modelId",
        request.model_id,
        lambda model: model == options.elevenlabs_model_id or policy.allows_model(model),
    )
    return replace(request, voice_id=voice_id, model_id=model_id)


@dataclass(frozen=True, slots=True)
class ExternalVoices:
    """The external TTS voices of device sessions; `tts_options` is None if there are none."""

    options: ElevenLabsOptions | None = None
    tts_options: TtsOptions | None = None
    default: str | None = None
    by_policy: Mapping[str, str] = field(default_factory=dict)
    """The external voices that policies name, by policy name."""

    @classmethod
    def from_settings(cls, navai: NavaiOptions, settings: Settings, by_policy: Mapping[str, str]) -> Self:
        """Read the settings and the voices of policies. Raises ConfigError with every invalid value."""
        if navai.elevenlabs_api_key is None:
            file, key = settings.name_of("access.policies"), settings.name_of("tts.api_key")
            _raise_problems(
                f"{file}: policies.{name}.voice is {voice}, which needs {key}" for name, voice in by_policy.items()
            )
            return cls()
        voice_settings = {
            name: value for name, value in asdict(navai.elevenlabs_voice_settings).items() if value is not None
        }
        _raise_problems(
            f"{settings.name_of(f'tts.{name}')} must be from {low:g} to {high:g}, not {voice_settings[name]:g}"
            for name, (low, high) in _RANGES.items()
            if name in voice_settings and not low <= voice_settings[name] <= high
        )
        options = ElevenLabsOptions(
            base_url=navai.elevenlabs_base_url,
            api_key=navai.elevenlabs_api_key,
            model_id=navai.elevenlabs_model_id or DEFAULT_TTS_MODEL,
            voice_settings=voice_settings,
        )
        default = navai.elevenlabs_voice_id if navai.tts_provider == "elevenlabs" else None
        return cls(options, TtsOptions(settings.tts.mode, settings.fallback_voice), default, by_policy)

    @property
    def default_voice(self) -> str | None:
        """The external voice of the settings, as a session's configuration names it."""
        return None if self.default is None else ELEVENLABS_PREFIX + self.default

    def tts_options_for(self, policy: Policy) -> TtsOptions | None:
        """Return `tts_options` with a fallback voice that the policy allows: the policy's own, else the settings'."""
        tts_options = self.tts_options
        if tts_options is None or tts_options.fallback_voice is None:
            return tts_options
        return replace(tts_options, fallback_voice=policy.default_voice(tts_options.fallback_voice, kind="model"))

    def connection_factory(
        self, provider: ProviderHttpClient, secrets: KnownSecrets = NO_SECRETS
    ) -> Callable[[Callable[[TtsOutput], None]], ElevenLabsTts] | None:
        """Return a factory for the TTS connection of a session; None if there are no external voices."""
        options = self.options
        return None if options is None else lambda feed: ElevenLabsTts(options, provider, feed, secrets)

    @property
    def configured_ids(self) -> dict[str, str]:
        """The ids of all configured voices, each with the setting that names it."""
        named_voices = {
            voice.removeprefix(ELEVENLABS_PREFIX): f"policies.{name}.voice" for name, voice in self.by_policy.items()
        }
        return named_voices if self.default is None else named_voices | {self.default: "ELEVENLABS_VOICE_ID"}

    def describe(self) -> list[str]:
        """Return the lines of the start-up log about external voices."""
        voices = {} if self.default is None else {"": ELEVENLABS_PREFIX + self.default}
        voices |= {f" of policy {name}": voice for name, voice in self.by_policy.items()}
        if self.options is None or self.tts_options is None or not voices:
            return []
        details = (
            f"{self.options.model_id} · {self.tts_options.mode} · fallback {self.tts_options.fallback_voice or 'text'}"
        )
        return [*(f"voice{owner} {voice} · {details}" for owner, voice in voices.items()), REALTIME_NOTICE]


def _raise_problems(problems: Iterable[str]) -> None:
    lines = list(problems)
    if lines:
        raise ConfigError("\n".join(lines))
