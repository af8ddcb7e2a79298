"""The options of the NAVAI backend, from the application that mounts its routes, or from the settings.

An empty or blank value is unset. An invalid value is a ConfigError, with the text that NAVAI documents. A value that is
ignored is a sentence in `warnings`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

from relay.config.environment import Environment
from relay.config.group import InvalidSettings
from relay.config.loading import SettingsReader
from relay.config.session_settings import (
    DEFAULT_ELEVENLABS_BASE_URL,
    DEFAULT_INSTRUCTIONS,
    DEFAULT_MODEL,
    DEFAULT_TTL_S,
    DEFAULT_VOICE,
    MAX_TTL_S,
    MIN_TTL_S,
    NavaiSettings,
    SessionSettings,
    ToolSettings,
    TtsSettings,
)
from relay.config.upstream_settings import DEFAULT_OPENAI_BASE_URL, OpenAISettings
from relay.config.values import HTTP_SCHEMES, TtsProvider
from relay.errors import ConfigError
from relay.upstreams.endpoint import is_url

DEFAULT_ELEVENLABS_OUTPUT_FORMAT = "mp3_44100_128"
LOCAL_KEY, LOCAL_VOICE = "local", "marin"
"""Placeholders for a local engine in place of ElevenLabs: it requires no key, and accepts every voice name."""
DEFAULT_UPSTREAM_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ElevenLabsVoiceSettings:
    """Voice settings of ElevenLabs; None means the voice's own setting."""

    stability: float | None = None
    similarity_boost: float | None = None
    style: float | None = None
    use_speaker_boost: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NavaiPaths:
    """Paths of the routes, matched case-insensitively, with or without a trailing slash."""

    client_secret: str = "/navai/realtime/client-secret"
    speech_synthesize: str = "/navai/speech/synthesize"
    functions_list: str = "/navai/functions"
    functions_execute: str = "/navai/functions/execute"

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for name in self.__slots__:
            path = getattr(self, name)
            if not path.startswith("/") or path.strip("/") == "" or set(path) & set("{}?# "):
                raise ConfigError(f'The path {name}={path!r} must begin with "/" and not contain {{ }} ? # or blanks.')
            other = names.setdefault(path.rstrip("/").lower(), name)
            if other != name:
                raise ConfigError(f"The paths {other} and {name} are the same: {path!r}.")


class NavaiGroups(NamedTuple):
    """The groups of settings that the options come from."""

    openai: OpenAISettings
    session: SessionSettings
    tts: TtsSettings
    tools: ToolSettings
    navai: NavaiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class NavaiOptions:
    """All options of the NAVAI routes. Raises ConfigError for invalid values.

    `allow_api_key_from_request`: a request may contain an API key, which is used if the backend has none. It must be
    set if the backend has no key. `warnings` are for the start-up log.
    """

    paths: NavaiPaths = field(default_factory=NavaiPaths)
    include_functions: bool = True
    functions_folders: str | None = None
    functions_base_dir: Path | None = None
    agents_folders: str | None = None

    openai_api_key: str | None = field(default=None, repr=False)
    openai_base_url: str = field(default=DEFAULT_OPENAI_BASE_URL, repr=False)
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
    elevenlabs_base_url: str = field(default=DEFAULT_ELEVENLABS_BASE_URL, repr=False)
    elevenlabs_voice_settings: ElevenLabsVoiceSettings = field(default_factory=ElevenLabsVoiceSettings)

    upstream_timeout_s: float = DEFAULT_UPSTREAM_TIMEOUT_S
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for option in fields(self):  # a blank text is unset, for explicit options as for the environment
            value = getattr(self, option.name)
            if isinstance(value, str | None) and isinstance(option.default, str | None):
                object.__setattr__(self, option.name, (value or "").strip() or option.default)
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
            f"{name} is not a URL; write it like https://api.example.com."
            for name in ("openai_base_url", "elevenlabs_base_url")
            if not is_url(getattr(self, name), HTTP_SCHEMES)
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
    ) -> Self:
        """Read the options from the environment and `.env`, or from `env` alone.

        Without a key in the environment, requests may contain one. Raises ConfigError.
        """
        reader = SettingsReader(Environment.read() if env is None else Environment(env))
        try:
            groups = reader.read_all(NavaiGroups.__annotations__, {})
        except InvalidSettings as error:
            raise ConfigError("\n".join(map(_navai_text, error.problems))) from None
        return replace(
            cls.from_groups(NavaiGroups(**cast(Any, groups)), reader.warnings),
            paths=paths or NavaiPaths(),
            include_functions=include_functions,
            upstream_timeout_s=upstream_timeout_s,
        )

    @classmethod
    def from_groups(cls, groups: NavaiGroups, warnings: list[str]) -> Self:
        """Create the options from settings groups; `warnings` are about their values."""
        openai, session, tts, tools, navai = groups
        return cls(
            functions_folders=tools.navai_folders,
            functions_base_dir=tools.base_dir,
            agents_folders=tools.navai_agents,
            openai_api_key=openai.api_key,
            openai_base_url=openai.base_url,
            allow_api_key_from_request=openai.api_key is None or navai.allow_frontend_api_key,
            default_model=session.model,
            default_voice=session.voice,
            default_instructions=session.instructions,
            default_language=session.language,
            default_voice_accent=session.voice_accent,
            default_voice_tone=session.voice_tone,
            client_secret_ttl_s=navai.client_secret_ttl_s,
            tts_provider=tts.provider,
            elevenlabs_api_key=tts.api_key or (LOCAL_KEY if tts.is_local else None),
            elevenlabs_voice_id=tts.voice_id or (LOCAL_VOICE if tts.is_local else None),
            elevenlabs_model_id=tts.model_id,
            elevenlabs_output_format=tts.output_format,
            elevenlabs_optimize_streaming_latency=tts.optimize_streaming_latency,
            elevenlabs_base_url=tts.base_url,
            elevenlabs_voice_settings=ElevenLabsVoiceSettings(
                stability=tts.stability,
                similarity_boost=tts.similarity_boost,
                style=tts.style,
                use_speaker_boost=tts.use_speaker_boost,
            ),
            warnings=tuple(warnings),
        )


def _navai_text(problem: str) -> str:
    """Return a problem as NAVAI documents it: without the name of the variable."""
    text = problem.partition(": ")[2]
    return text if text.startswith(("Missing ", "clientSecretTtlSeconds ")) else problem
