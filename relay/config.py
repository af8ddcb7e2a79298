"""Settings: every key of the environment (or `.env`) that the relay reads, typed, with one report of all mistakes.

An empty value is unset. Names that other systems gave to the same thing are accepted as aliases.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from relay.core.redact import redact
from relay.core.values import SessionConfig, TurnDetection
from relay.errors import ConfigError

ENGINE = "local"
DEFAULT_TOOLS = Path("tools")
RETIRING_MODELS = re.compile(
    r"^(gpt-realtime(-mini)?(-20\d\d-\d\d-\d\d)?|gpt-4o(-mini)?-realtime-preview(-20\d\d-\d\d-\d\d)?)$"
)
"""Models that their vendor shuts down on 2027-01-20 or before."""

_SHOWN = {"missing": "is missing", "extra_forbidden": "is not known"}

CommaList = Annotated[tuple[str, ...], NoDecode]


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the model is. `url` is None for the engine that the relay starts itself."""

    kind: Literal["openai", "url", "local"]
    url: str | None
    key: SecretStr | None

    @property
    def label(self) -> str:
        """For logs: kind and host, never a key or a query."""
        return self.kind if self.url is None else f"{self.kind} ({urlsplit(self.url).netloc.rpartition('@')[2]})"


class Settings(BaseSettings):
    """All settings of the relay; `Settings.load()` reads them from the environment and `.env`."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", populate_by_name=True
    )

    host: str = Field("127.0.0.1", alias="HOST")
    port: int = Field(8080, alias="PORT", ge=0, le=65535)

    upstream: str = Field("auto", alias="RELAY_UPSTREAM")
    upstream_key: SecretStr | None = Field(None, alias="RELAY_UPSTREAM_KEY")
    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY")
    openai_base_url: str = Field("https://api.openai.com/v1", alias="OPENAI_BASE_URL")
    model: str = Field("gpt-realtime", alias="OPENAI_REALTIME_MODEL")
    voice: str = Field("marin", alias="OPENAI_REALTIME_VOICE")
    instructions: str = Field("You are a helpful assistant.", alias="OPENAI_REALTIME_INSTRUCTIONS")
    language: str | None = Field(None, alias="OPENAI_REALTIME_LANGUAGE")
    voice_accent: str | None = Field(None, alias="OPENAI_REALTIME_VOICE_ACCENT")
    voice_tone: str | None = Field(None, alias="OPENAI_REALTIME_VOICE_TONE")

    turn: Literal["server_vad", "semantic_vad", "manual"] = Field("server_vad", alias="RELAY_TURN")
    vad_threshold: float | None = Field(None, alias="RELAY_VAD_THRESHOLD", ge=0, le=1)
    vad_prefix_padding_ms: int | None = Field(None, alias="RELAY_VAD_PREFIX_PADDING_MS", ge=0, le=10_000)
    vad_silence_ms: int | None = Field(None, alias="RELAY_VAD_SILENCE_MS", ge=0, le=10_000)
    vad_eagerness: Literal["low", "medium", "high", "auto"] | None = Field(None, alias="RELAY_VAD_EAGERNESS")
    transcription_model: str = Field("gpt-transcribe", alias="RELAY_TRANSCRIPTION_MODEL")
    noise_reduction: Literal["near_field", "far_field", "off"] = Field("off", alias="RELAY_NOISE_REDUCTION")

    tools: Path = Field(DEFAULT_TOOLS, alias="RELAY_TOOLS")
    record: Literal["off", "on", "consent"] = Field("off", alias="RELAY_RECORD")
    recordings_dir: Path = Field(Path("recordings"), alias="RELAY_RECORDINGS_DIR")
    recordings_max_days: float | None = Field(30, alias="RELAY_RECORDINGS_MAX_DAYS", gt=0)
    recordings_max_mb: float | None = Field(10_000, alias="RELAY_RECORDINGS_MAX_MB", gt=0)

    max_sessions: int = Field(500, alias="RELAY_MAX_SESSIONS", ge=1)

    api_keys: CommaList = Field((), alias="RELAY_API_KEYS", repr=False)
    admin_keys: CommaList = Field((), alias="RELAY_ADMIN_KEYS", repr=False)
    allowed_origins: CommaList = Field((), validation_alias=AliasChoices("RELAY_ALLOWED_ORIGINS", "NAVAI_CORS_ORIGIN"))
    open_access: bool = Field(False, alias="RELAY_OPEN")
    browser_access: Literal["credential", "origin"] = Field("credential", alias="RELAY_BROWSER_ACCESS")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", alias="RELAY_LOG_LEVEL")
    log_format: Literal["text", "json"] = Field("text", alias="RELAY_LOG_FORMAT")

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings; `overrides` (by field name) win. Raises ConfigError with every mistake at once."""
        try:
            return cls(**{key: value for key, value in overrides.items() if value is not None})
        except ValidationError as error:
            raise ConfigError(_report(error)) from None

    @field_validator("api_keys", "admin_keys", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not (re.fullmatch(r"https?://[^/\s]+", origin) and _is_url(origin, ("http", "https"))):
                raise ValueError(f"{origin!r} is no origin; write it like https://app.example.com, without a path")
        return tuple(normal_origin(origin) for origin in value)

    @field_validator("api_keys", "admin_keys")
    @classmethod
    def _check_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(key) < 16 for key in value):
            raise ValueError("a key must have at least 16 characters; make one with: openssl rand -hex 24")
        return value

    @field_validator(
        "upstream", "turn", "log_level", "log_format", "noise_reduction", "browser_access", "record", mode="before"
    )
    @classmethod
    def _tidy(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return value.strip() if "://" in value else value.strip().lower()

    @field_validator("upstream")
    @classmethod
    def _check_upstream(cls, value: str) -> str:
        if value == "azure":
            raise ValueError("azure is not supported by this version; use openai, local or the URL of an endpoint")
        if value not in ("auto", "openai", ENGINE) and not _is_url(value, ("ws", "wss")):
            raise ValueError(f"{redact(value)!r} is none of auto, openai, local, or a ws:// or wss:// URL")
        return value

    @field_validator("openai_base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        if not _is_url(value, ("http", "https", "ws", "wss")):
            raise ValueError(f"{redact(value)!r} is no URL; write it like https://api.openai.com/v1")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.upstream == "openai" and self.openai_api_key is None:
            raise ValueError("RELAY_UPSTREAM=openai needs a key: set OPENAI_API_KEY")
        if not self.is_loopback and not self.api_keys and not self.open_access:
            raise ValueError(
                f"HOST={self.host} can be reached from other machines. Set RELAY_API_KEYS (keys that clients must "
                "send), or RELAY_OPEN=1 to let everybody in who can reach it"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the listener."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def resolve_upstream(self) -> Upstream:
        """The upstream that these settings name: a URL, else OpenAI where there is a key, else the local engine."""
        if "://" in self.upstream:
            return Upstream("url", _realtime_url(self.upstream, self.model), self._key_for(self.upstream))
        if self.upstream == "openai" or (self.upstream == "auto" and self.openai_api_key is not None):
            return Upstream("openai", _realtime_url(self.openai_base_url, self.model), self.openai_api_key)
        return Upstream("local", None, None)

    def session_config(self) -> SessionConfig:
        """What every session asks of the upstream, before its client has said a word; without tools."""
        model = self.transcription_model
        return SessionConfig(
            voice=self.voice,
            instructions=self.instructions,
            language=self.language,
            voice_accent=self.voice_accent,
            voice_tone=self.voice_tone,
            turn=TurnDetection(
                kind=self.turn,
                threshold=self.vad_threshold,
                prefix_padding_ms=self.vad_prefix_padding_ms,
                silence_duration_ms=self.vad_silence_ms,
                eagerness=self.vad_eagerness,
            ),
            transcription_model=None if model.lower() == "off" else model,
            noise_reduction=None if self.noise_reduction == "off" else self.noise_reduction,
        )

    def warnings(self) -> list[str]:
        """What the start should say although nothing is wrong."""
        found = []
        if self.resolve_upstream().kind == "openai" and RETIRING_MODELS.match(self.model):
            found.append(
                f"OPENAI_REALTIME_MODEL={self.model} is shut down on 2027-01-20; set gpt-realtime-2.1 or a later one"
            )
        if not self.is_loopback and self.open_access:
            found.append(f"RELAY_OPEN is set: everybody who can reach {self.host} can use this relay and its key")
        return found

    def _key_for(self, url: str) -> SecretStr | None:
        """The key for a URL of the user's: OpenAI's own goes only to its own host or to this machine."""
        if self.upstream_key is not None:
            return self.upstream_key
        host = urlsplit(url).hostname or ""
        if host == urlsplit(self.openai_base_url).hostname or host in ("localhost", "127.0.0.1", "::1"):
            return self.openai_api_key
        return None


def normal_origin(origin: str) -> str:
    """An origin as browsers send it: lower case, without the scheme's own port. Raises ValueError for a bad port."""
    parts = urlsplit(origin.lower())
    own_port = {"http": 80, "https": 443}.get(parts.scheme)
    return origin.lower().removesuffix(f":{own_port}") if parts.port == own_port else origin.lower()


def _is_url(value: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, a bracket that is not closed
        return False


def _realtime_url(base: str, model: str) -> str:
    """The WebSocket URL of a Realtime endpoint: the path and `?model=` are added where they are missing."""
    parts = urlsplit(base)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/")
    if path == "":
        path = "/v1/realtime"
    elif path.endswith("/v1"):
        path += "/realtime"
    query = parse_qsl(parts.query, keep_blank_values=True)
    if not any(name in ("model", "deployment", "call_id", "intent") for name, _ in query):
        query.append(("model", model))
    return urlunsplit((scheme, parts.netloc, path, urlencode(query), ""))


def _report(error: ValidationError) -> str:
    lines = []
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        where = str(one["loc"][0]) if one["loc"] else ""
        field = Settings.model_fields.get(where)
        name = (field.alias or where) if field else where
        text = _SHOWN.get(one["type"], one["msg"].removeprefix("Value error, "))
        lines.append(f"  {name}: {text}" if name else f"  {text}")
    return "the settings are wrong:\n" + "\n".join(dict.fromkeys(lines))
