"""The options of the NAVAI backend: what its routes take from whoever mounts them, or from the environment.

An empty or blank value is unset. What makes no sense stops the start (ConfigError) in the words that NAVAI documents;
what can be ignored is a sentence in `warnings`.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, cast

from relay.auth.origins import url_host
from relay.errors import ConfigError
from relay.loopback import is_loopback_host
from relay.upstreams.endpoint import is_url

DEFAULT_MODEL = "gpt-realtime"
DEFAULT_VOICE = "marin"
DEFAULT_INSTRUCTIONS = "You are a helpful assistant."
DEFAULT_TTL_S = 600
MIN_TTL_S, MAX_TTL_S = 10, 7200
DEFAULT_OPENAI_BASE_URL = "https://api.openai.com/v1"
DEFAULT_ELEVENLABS_BASE_URL = "https://api.elevenlabs.io"
DEFAULT_ELEVENLABS_OUTPUT_FORMAT = "mp3_44100_128"
LOCAL_KEY, LOCAL_VOICE = "local", "marin"
"""What a local engine in ElevenLabs' place takes; it asks for no key, and has a voice for every name."""
DEFAULT_UPSTREAM_TIMEOUT_S = 15.0

TtsProvider = Literal["openai", "elevenlabs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElevenLabsVoiceSettings:
    """How ElevenLabs is to speak; None leaves a value to the voice's own setting."""

    stability: float | None = None
    similarity_boost: float | None = None
    style: float | None = None
    use_speaker_boost: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NavaiPaths:
    """Where the routes are; matched without regard to case, with or without a slash at the end."""

    client_secret: str = "/navai/realtime/client-secret"
    speech_synthesize: str = "/navai/speech/synthesize"
    functions_list: str = "/navai/functions"
    functions_execute: str = "/navai/functions/execute"

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for name in self.__slots__:
            path = getattr(self, name)
            if not path.startswith("/") or path.strip("/") == "" or set(path) & set("{}?# "):
                raise ConfigError(f'The path {name}={path!r} must begin with "/" and hold none of {{ }} ? # or blanks.')
            other = seen.setdefault(path.rstrip("/").lower(), name)
            if other != name:
                raise ConfigError(f"The paths {other} and {name} are the same: {path!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NavaiOptions:
    """Everything that the NAVAI routes can be told; times in seconds. Raises ConfigError for what makes no sense.

    `allow_api_key_from_request`: a request may bring a key of its own. The backend's key wins all the same; it is
    the fallback where there is none, and without either this must be set. `warnings` belong into the start's log.
    """

    paths: NavaiPaths = field(default_factory=NavaiPaths)
    include_functions: bool = True
    functions_folders: str | None = None
    functions_base_dir: Path | None = None
    agents_folders: str | None = None

    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str = DEFAULT_OPENAI_BASE_URL
    allow_api_key_from_request: bool = False
    default_model: str = DEFAULT_MODEL
    default_voice: str = DEFAULT_VOICE
    default_instructions: str = DEFAULT_INSTRUCTIONS
    default_language: str | None = None
    default_voice_accent: str | None = None
    default_voice_tone: str | None = None
    client_secret_ttl_s: int = DEFAULT_TTL_S

    tts_provider: TtsProvider = "openai"
    elevenlabs_api_key: str | None = field(default=None, repr=False)
    elevenlabs_voice_id: str | None = None
    elevenlabs_model_id: str | None = None
    elevenlabs_output_format: str | None = None
    elevenlabs_optimize_streaming_latency: float | None = None
    elevenlabs_base_url: str = DEFAULT_ELEVENLABS_BASE_URL
    elevenlabs_voice_settings: ElevenLabsVoiceSettings = field(default_factory=ElevenLabsVoiceSettings)

    upstream_timeout_s: float = DEFAULT_UPSTREAM_TIMEOUT_S
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for one in fields(self):  # a blank text is unset, for explicit options as for the environment
            value = getattr(self, one.name)
            if isinstance(value, str | None) and isinstance(one.default, str | None):
                object.__setattr__(self, one.name, _text(value) or one.default)
        problems = self._problems()
        if problems:
            raise ConfigError("\n".join(problems))

    def _problems(self) -> list[str]:
        problems = []
        if self.openai_api_key is None and not self.allow_api_key_from_request:
            problems.append("Missing openaiApiKey in NavaiVoiceBackendOptions.")
        ttl = self.client_secret_ttl_s
        if type(ttl) is not int or not MIN_TTL_S <= ttl <= MAX_TTL_S:
            problems.append(f"clientSecretTtlSeconds must be between {MIN_TTL_S} and {MAX_TTL_S}. Received: {ttl}")
        if self.tts_provider == "elevenlabs":
            if self.elevenlabs_api_key is None:
                problems.append("Missing elevenLabsApiKey in NavaiVoiceBackendOptions.")
            if self.elevenlabs_voice_id is None:
                problems.append("Missing elevenLabsVoiceId in NavaiVoiceBackendOptions.")
        problems += [
            f"{name} is no URL; write it like https://api.example.com."
            for name in ("openai_base_url", "elevenlabs_base_url")
            if not is_url(getattr(self, name), ("http", "https", "ws", "wss"))
        ]
        if not self.upstream_timeout_s > 0:
            problems.append(f"upstream_timeout_s must be above 0, not {self.upstream_timeout_s}.")
        return problems

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str] | None = None,
        *,
        paths: NavaiPaths | None = None,
        include_functions: bool = True,
        upstream_timeout_s: float = DEFAULT_UPSTREAM_TIMEOUT_S,
    ) -> "NavaiOptions":
        """The options that the environment (or `env`) gives; without a backend key, requests may bring theirs."""
        read = _Reader(os.environ if env is None else env)
        key = read.text("OPENAI_API_KEY")
        base_dir = read.text("NAVAI_FUNCTIONS_BASE_DIR")
        own_engine = is_loopback_host(url_host(read.text("ELEVENLABS_BASE_URL") or ""))
        voice_settings = ElevenLabsVoiceSettings(
            stability=read.number("ELEVENLABS_STABILITY"),
            similarity_boost=read.number("ELEVENLABS_SIMILARITY_BOOST"),
            style=read.number("ELEVENLABS_STYLE"),
            use_speaker_boost=read.switch("ELEVENLABS_USE_SPEAKER_BOOST"),
        )
        return cls(
            paths=paths or NavaiPaths(),
            include_functions=include_functions,
            functions_folders=read.text("NAVAI_FUNCTIONS_FOLDERS"),
            functions_base_dir=Path(base_dir) if base_dir else None,
            agents_folders=read.text("NAVAI_AGENTS_FOLDERS"),
            openai_api_key=key,
            openai_base_url=read.text("OPENAI_BASE_URL") or DEFAULT_OPENAI_BASE_URL,
            allow_api_key_from_request=key is None or read.is_true("NAVAI_ALLOW_FRONTEND_API_KEY"),
            default_model=read.text("OPENAI_REALTIME_MODEL") or DEFAULT_MODEL,
            default_voice=read.text("OPENAI_REALTIME_VOICE") or DEFAULT_VOICE,
            default_instructions=read.text("OPENAI_REALTIME_INSTRUCTIONS") or DEFAULT_INSTRUCTIONS,
            default_language=read.text("OPENAI_REALTIME_LANGUAGE"),
            default_voice_accent=read.text("OPENAI_REALTIME_VOICE_ACCENT"),
            default_voice_tone=read.text("OPENAI_REALTIME_VOICE_TONE"),
            client_secret_ttl_s=read.ttl("OPENAI_REALTIME_CLIENT_SECRET_TTL"),
            tts_provider=read.provider("NAVAI_TTS_PROVIDER"),
            elevenlabs_api_key=read.text("ELEVENLABS_API_KEY") or (LOCAL_KEY if own_engine else None),
            elevenlabs_voice_id=read.text("ELEVENLABS_VOICE_ID") or (LOCAL_VOICE if own_engine else None),
            elevenlabs_model_id=read.text("ELEVENLABS_MODEL_ID"),
            elevenlabs_output_format=read.text("ELEVENLABS_OUTPUT_FORMAT"),
            elevenlabs_optimize_streaming_latency=read.number("ELEVENLABS_OPTIMIZE_STREAMING_LATENCY"),
            elevenlabs_base_url=read.text("ELEVENLABS_BASE_URL") or DEFAULT_ELEVENLABS_BASE_URL,
            elevenlabs_voice_settings=voice_settings,
            upstream_timeout_s=upstream_timeout_s,
            warnings=tuple(read.warnings),
        )


class _Reader:
    """Reads single keys of an environment, and keeps what deserves a warning."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.warnings: list[str] = []

    def text(self, key: str) -> str | None:
        return _text(self._env.get(key))

    def is_true(self, key: str) -> bool:
        return (self.text(key) or "").lower() == "true"

    def number(self, key: str) -> float | None:
        text = self.text(key)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        self.warnings.append(f"[navai] {key} is no number and is ignored: {text!r:.40}.")
        return None

    def switch(self, key: str) -> bool | None:
        text = (self.text(key) or "").lower()
        if text in ("true", "1", "yes"):
            return True
        if text in ("false", "0", "no"):
            return False
        if text:
            self.warnings.append(f'[navai] {key} must be "true" or "false" and is ignored: {text!r:.40}.')
        return None

    def provider(self, key: str) -> TtsProvider:
        text = (self.text(key) or "openai").lower()
        if text == "elevenlabs":
            return "elevenlabs"
        if text != "openai":
            self.warnings.append(f'[navai] {key} knows "openai" and "elevenlabs", not {text!r:.40}; "openai" is used.')
        return "openai"

    def ttl(self, key: str) -> int:
        text = self.text(key)
        if text is None:
            return DEFAULT_TTL_S
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            return cast(int, text)  # refused with all other mistakes, as it was received
        return int(text)


def _text(value: str | None) -> str | None:
    return (value or "").strip() or None
