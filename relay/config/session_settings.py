"""Settings that every session starts with: model, voice, turns, external TTS voice, tools."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from relay.config.group import IgnoredValue, NameOf, SettingsGroup, Variable, setting
from relay.config.values import (
    HTTP_SCHEMES,
    NoiseReduction,
    OptionalPath,
    OptionalText,
    PathText,
    TtsFallback,
    TtsMode,
    TtsProvider,
    TurnDetectionKind,
    printable,
    quote,
)
from relay.loopback import is_loopback_host
from relay.upstreams.endpoint import is_url

DEFAULT_TOOLS = "tools"
DEFAULT_MODEL = "gpt-realtime"
DEFAULT_VOICE = "marin"
DEFAULT_INSTRUCTIONS = "You are a helpful assistant."
DEFAULT_TTL_S = 600
MIN_TTL_S, MAX_TTL_S = 10, 7200
DEFAULT_ELEVENLABS_BASE_URL = "https://api.elevenlabs.io"


class SessionSettings(SettingsGroup, frozen=True):
    """The initial configuration of a session. Clients may change it as far as their policies allow."""

    GROUP: ClassVar[str] = "session"
    TITLE: ClassVar[str] = "Model and voice"

    model: str = setting(
        Variable("OPENAI_REALTIME_MODEL", example="gpt-realtime-2.1"),
        DEFAULT_MODEL,
        "The realtime model. `gpt-realtime` and `gpt-realtime-mini` are shut down on 2027-01-20; `gpt-realtime-2.1` "
        "is not.",
    )
    voice: str = setting("OPENAI_REALTIME_VOICE", DEFAULT_VOICE, "The model's own voice.")
    instructions: str = setting("OPENAI_REALTIME_INSTRUCTIONS", DEFAULT_INSTRUCTIONS, "The system prompt.")
    language: str | None = setting(
        "OPENAI_REALTIME_LANGUAGE", None, "The language of the answers; adds a line to the instructions."
    )
    voice_accent: str | None = setting(
        "OPENAI_REALTIME_VOICE_ACCENT", None, "The accent of the voice; adds a line to the instructions."
    )
    voice_tone: str | None = setting(
        "OPENAI_REALTIME_VOICE_TONE", None, "The tone of the voice; adds a line to the instructions."
    )
    transcription_model: str = setting(
        "RELAY_TRANSCRIPTION_MODEL",
        "gpt-transcribe",
        "The model that transcribes the user's speech, or `off`. On Azure it must be one that the resource offers.",
    )
    noise_reduction: NoiseReduction = setting(
        "RELAY_NOISE_REDUCTION",
        "off",
        "Noise reduction by the upstream: `near_field` for a headset, `far_field` for a room, or `off`.",
    )


class TurnSettings(SettingsGroup, frozen=True):
    """Turn detection by the upstream. Values that are not set are left to the model."""

    GROUP: ClassVar[str] = "turns"
    TITLE: ClassVar[str] = "Turn detection"

    detection: TurnDetectionKind = setting(
        "RELAY_TURN",
        "server_vad",
        "`server_vad` ends turns by silence, `semantic_vad` by meaning; with `manual` clients commit their turns.",
    )
    threshold: float | None = setting(
        Variable("RELAY_VAD_THRESHOLD", default="the model's"),
        None,
        "Sensitivity of `server_vad`, 0 to 1; a higher value needs louder speech.",
        ge=0,
        le=1,
    )
    prefix_padding_ms: int | None = setting(
        Variable("RELAY_VAD_PREFIX_PADDING_MS", default="the model's"),
        None,
        "Audio before the detected start of speech that `server_vad` includes, in ms.",
        ge=0,
        le=10_000,
    )
    silence_ms: int | None = setting(
        Variable("RELAY_VAD_SILENCE_MS", default="the model's"),
        None,
        "Silence after which `server_vad` ends the turn, in ms.",
        ge=0,
        le=10_000,
    )
    eagerness: Literal["low", "medium", "high", "auto"] | None = setting(
        Variable("RELAY_VAD_EAGERNESS", default="the model's"),
        None,
        "How early `semantic_vad` ends the turn: `low`, `medium`, `high` or `auto`.",
    )


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    raise IgnoredValue(f"[navai] {name} is no number and is ignored: {quote(text, 40)}.")


def _boolean(name: str, text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise IgnoredValue(f'[navai] {name} must be "true" or "false" and is ignored: {quote(text, 40)}.')


def _provider(name: str, text: str) -> str:
    if text.lower() in ("openai", "elevenlabs"):
        return text.lower()
    raise IgnoredValue(f'[navai] {name} knows "openai" and "elevenlabs", not {quote(text, 40)}; "openai" is used.')


def _voice_number(name: str) -> Variable:
    return Variable(name, default="the voice's own setting", parse=_number)


class TtsSettings(SettingsGroup, frozen=True):
    """The model answers in text, and an ElevenLabs voice speaks it."""

    GROUP: ClassVar[str] = "tts"
    TITLE: ClassVar[str] = "External TTS voice"

    provider: TtsProvider = setting(
        Variable("NAVAI_TTS_PROVIDER", parse=_provider),
        "openai",
        "`elevenlabs`: an ElevenLabs voice speaks in place of the model. Provider secrets are then for text "
        "sessions, and the speech route speaks their text.",
    )
    api_key: OptionalText = setting(
        "ELEVENLABS_API_KEY",
        None,
        "The key of the ElevenLabs account. It also allows clients and policies to choose ElevenLabs voices.",
        repr=False,
    )
    voice_id: OptionalText = setting(
        "ELEVENLABS_VOICE_ID", None, "The id of the voice; required with `NAVAI_TTS_PROVIDER=elevenlabs`."
    )
    model_id: OptionalText = setting(
        Variable("ELEVENLABS_MODEL_ID", default="eleven_flash_v2_5"),
        None,
        "The TTS model of sessions. If it is not set, the speech route leaves it to ElevenLabs.",
    )
    base_url: str = setting(
        "ELEVENLABS_BASE_URL",
        DEFAULT_ELEVENLABS_BASE_URL,
        "The address of the API. Set http://127.0.0.1:8090 to try a local engine (`relay local`) without a key.",
    )
    stability: float | None = setting(_voice_number("ELEVENLABS_STABILITY"), None, "Stability of the voice, 0 to 1.")
    similarity_boost: float | None = setting(
        _voice_number("ELEVENLABS_SIMILARITY_BOOST"), None, "Similarity to the original voice, 0 to 1."
    )
    style: float | None = setting(_voice_number("ELEVENLABS_STYLE"), None, "Exaggeration of the style, 0 to 1.")
    use_speaker_boost: bool | None = setting(
        Variable("ELEVENLABS_USE_SPEAKER_BOOST", default="the voice's own setting", parse=_boolean),
        None,
        "`true` or `false`: boost the similarity to the original speaker.",
    )
    output_format: OptionalText = setting(
        Variable("ELEVENLABS_OUTPUT_FORMAT", default="mp3_44100_128"),
        None,
        "The audio format of `POST /navai/speech/synthesize`.",
    )
    optimize_streaming_latency: float | None = setting(
        _voice_number("ELEVENLABS_OPTIMIZE_STREAMING_LATENCY"),
        None,
        "How far `POST /navai/speech/synthesize` trades quality for latency, 0 to 4.",
    )
    mode: TtsMode = setting(
        "RELAY_VOICE_MODE",
        "streaming",
        "`streaming` speaks sentences as the model writes them; `final` waits for the whole text.",
    )
    fallback: TtsFallback = setting(
        "RELAY_VOICE_FALLBACK",
        "model",
        "After a failure: `model` continues with the model's own voice, `off` tries the same voice at the next turn.",
    )

    @property
    def is_local(self) -> bool:
        """Whether a local engine replaces ElevenLabs; it requires no key, and accepts every voice name."""
        return is_url(self.base_url, HTTP_SCHEMES) and is_loopback_host(urlsplit(self.base_url).hostname or "")

    def problems(self, name_of: NameOf) -> Iterator[str]:
        """Report missing credentials of ElevenLabs, with NAVAI's texts, and an invalid URL."""
        if self.provider == "elevenlabs" and not self.is_local:
            if self.api_key is None:
                yield f"{name_of('tts.api_key')}: Missing elevenLabsApiKey in NavaiVoiceBackendOptions."
            if self.voice_id is None:
                yield f"{name_of('tts.voice_id')}: Missing elevenLabsVoiceId in NavaiVoiceBackendOptions."
        if not is_url(self.base_url, HTTP_SCHEMES):
            text = f"{quote(self.base_url)} is not a URL; write it like {DEFAULT_ELEVENLABS_BASE_URL}"
            yield f"{name_of('tts.base_url')}: {text}"


class ToolSettings(SettingsGroup, frozen=True):
    """The server tools: functions that the relay runs for the model."""

    GROUP: ClassVar[str] = "tools"
    TITLE: ClassVar[str] = "Tools"

    folders: PathText = setting(
        "RELAY_TOOLS", DEFAULT_TOOLS, "Folders, patterns and files to load tools from, separated by commas."
    )
    mcp_servers: OptionalPath = setting(
        "RELAY_MCP_SERVERS", None, "A JSON file with MCP servers, in the format that MCP clients share."
    )
    navai_folders: OptionalText = setting(
        "NAVAI_FUNCTIONS_FOLDERS",
        None,
        "Replaces `RELAY_TOOLS`. Paths are relative to `src`, as in NAVAI's backend.",
    )
    navai_agents: OptionalText = setting(
        "NAVAI_AGENTS_FOLDERS", None, "Load only these folders directly below `NAVAI_FUNCTIONS_FOLDERS`."
    )
    base_dir: OptionalPath = setting(
        Variable("NAVAI_FUNCTIONS_BASE_DIR", default="the working folder"),
        None,
        "The folder that relative paths of tools start from.",
    )


def _ttl(value: Any) -> Any:
    text = str(value)
    is_whole = type(value) is int or (isinstance(value, str) and text.isascii() and text.isdigit() and len(text) <= 9)
    if not is_whole or not MIN_TTL_S <= int(text) <= MAX_TTL_S:
        raise ValueError(
            f"clientSecretTtlSeconds must be between {MIN_TTL_S} and {MAX_TTL_S}. Received: {printable(text)}"
        )
    return int(text)


def _is_true(_: str, text: str) -> bool:
    return text.lower() == "true"


class NavaiSettings(SettingsGroup, frozen=True):
    """Provider secrets that NAVAI's routes create for browsers, which connect to OpenAI directly."""

    GROUP: ClassVar[str] = "navai"
    TITLE: ClassVar[str] = "Provider secrets for browsers"

    client_secret_ttl_s: Annotated[int, BeforeValidator(_ttl)] = setting(
        "OPENAI_REALTIME_CLIENT_SECRET_TTL", DEFAULT_TTL_S, "The lifetime of a provider secret, 10 to 7200 seconds."
    )
    allow_frontend_api_key: bool = setting(
        Variable("NAVAI_ALLOW_FRONTEND_API_KEY", parse=_is_true),
        False,
        "`true`: a request may contain an API key, which is used if the relay has none.",
    )
