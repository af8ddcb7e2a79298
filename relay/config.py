"""Settings: every key of the environment (or `.env`) that the relay reads, typed, with one report of all mistakes.

An empty value is unset. Names that other systems gave to the same thing are accepted as aliases.
"""

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from relay.core.redact import redact
from relay.core.values import EXTERNAL_VOICE, SessionConfig, TurnDetection
from relay.errors import ConfigError
from relay.loopback import is_loopback_host
from relay.session.common.limits import SessionLimits
from relay.upstreams.azure import AzureResource, azure_endpoint
from relay.upstreams.endpoint import UpstreamEndpoint, is_url, names_model, realtime_url
from relay.upstreams.registry import AZURE_PREVIEW, UPSTREAM_DIALECTS, dialect_of

ENGINE = "local"
AZURE_PREFIX = "/api/ai-assistant"
DEFAULT_TOOLS = "tools"
RETIRING_MODELS = re.compile(
    r"^(gpt-realtime(-mini)?(-20\d\d-\d\d-\d\d)?|gpt-4o(-mini)?-realtime-preview(-20\d\d-\d\d-\d\d)?)$"
)
"""Models that their vendor shuts down on 2027-01-20 or before."""

_SHOWN = {"missing": "is missing", "extra_forbidden": "is not known"}

CommaList = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """All settings of the relay; `Settings.load()` reads them from the environment and `.env`."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", populate_by_name=True
    )

    host: str = Field("127.0.0.1", alias="HOST")
    port: int = Field(8080, alias="PORT", ge=0, le=65535)
    tls_cert: Path | None = Field(None, alias="TLS_CERT")
    tls_key: Path | None = Field(None, alias="TLS_KEY")

    upstream: str = Field("auto", alias="RELAY_UPSTREAM")
    upstream_key: SecretStr | None = Field(None, alias="RELAY_UPSTREAM_KEY")
    upstream_dialect: str = Field("auto", alias="RELAY_UPSTREAM_DIALECT")
    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY")
    openai_base_url: str = Field("https://api.openai.com/v1", alias="OPENAI_BASE_URL")
    model: str = Field("gpt-realtime", alias="OPENAI_REALTIME_MODEL")
    voice: str = Field("marin", alias="OPENAI_REALTIME_VOICE")
    instructions: str = Field("You are a helpful assistant.", alias="OPENAI_REALTIME_INSTRUCTIONS")
    language: str | None = Field(None, alias="OPENAI_REALTIME_LANGUAGE")
    voice_accent: str | None = Field(None, alias="OPENAI_REALTIME_VOICE_ACCENT")
    voice_tone: str | None = Field(None, alias="OPENAI_REALTIME_VOICE_TONE")

    azure_api_key: SecretStr | None = Field(None, alias="AZURE_OPENAI_API_KEY")
    azure_token: str | Callable[[], Any] | None = Field(None, alias="RELAY_AZURE_TOKEN")
    """A callable that gives a bearer token for each dial, or where one is: `package.module:function`."""
    azure_endpoint: str | None = Field(None, alias="AZURE_OPENAI_ENDPOINT")
    azure_deployment: str | None = Field(None, alias="AZURE_OPENAI_DEPLOYMENT")
    azure_api_version: str | None = Field(None, alias="AZURE_OPENAI_API_VERSION")
    azure_prefix: str = Field(AZURE_PREFIX, alias="RELAY_AZURE_PREFIX")

    turn: Literal["server_vad", "semantic_vad", "manual"] = Field("server_vad", alias="RELAY_TURN")
    vad_threshold: float | None = Field(None, alias="RELAY_VAD_THRESHOLD", ge=0, le=1)
    vad_prefix_padding_ms: int | None = Field(None, alias="RELAY_VAD_PREFIX_PADDING_MS", ge=0, le=10_000)
    vad_silence_ms: int | None = Field(None, alias="RELAY_VAD_SILENCE_MS", ge=0, le=10_000)
    vad_eagerness: Literal["low", "medium", "high", "auto"] | None = Field(None, alias="RELAY_VAD_EAGERNESS")
    transcription_model: str = Field("gpt-transcribe", alias="RELAY_TRANSCRIPTION_MODEL")
    noise_reduction: Literal["near_field", "far_field", "off"] = Field("off", alias="RELAY_NOISE_REDUCTION")

    tools: str = Field(DEFAULT_TOOLS, alias="RELAY_TOOLS")
    navai_folders: str | None = Field(None, alias="NAVAI_FUNCTIONS_FOLDERS")
    navai_agents: str | None = Field(None, alias="NAVAI_AGENTS_FOLDERS")
    tools_base_dir: Path | None = Field(None, alias="NAVAI_FUNCTIONS_BASE_DIR")
    mcp_servers: Path | None = Field(None, alias="RELAY_MCP_SERVERS")
    record: Literal["off", "on", "consent"] = Field("off", alias="RELAY_RECORD")
    recordings_dir: Path = Field(Path("recordings"), alias="RELAY_RECORDINGS_DIR")
    recordings_max_days: float | None = Field(30, alias="RELAY_RECORDINGS_MAX_DAYS", gt=0)
    recordings_max_mb: float | None = Field(10_000, alias="RELAY_RECORDINGS_MAX_MB", gt=0)
    recording_max_mb: float | None = Field(1000, alias="RELAY_RECORDING_MAX_MB", gt=0)
    max_sessions: int = Field(500, alias="RELAY_MAX_SESSIONS", ge=1)
    max_sessions_per_address: int | None = Field(None, alias="RELAY_MAX_SESSIONS_PER_ADDRESS", ge=0)
    max_handshakes_per_minute: int | None = Field(None, alias="RELAY_MAX_HANDSHAKES_PER_MINUTE", ge=0)
    max_duration_s: float = Field(14_400, alias="RELAY_MAX_DURATION_S", ge=0)
    max_idle_s: float = Field(1800, alias="RELAY_MAX_IDLE_S", ge=0)
    max_queued_s: float = Field(300, alias="RELAY_MAX_QUEUED_S", ge=1, le=3600)
    ping_interval_s: float = Field(20, alias="RELAY_PING_INTERVAL_S", gt=0)
    pong_timeout_s: float = Field(10, alias="RELAY_PONG_TIMEOUT_S", gt=0)
    proxies: CommaList = Field((), alias="RELAY_PROXIES")
    mints_per_minute: int = Field(30, alias="RELAY_MINTS_PER_MINUTE", ge=0)
    speech_per_minute: int = Field(120, alias="RELAY_SPEECH_PER_MINUTE", ge=0)

    voice_mode: Literal["streaming", "final"] = Field("streaming", alias="RELAY_VOICE_MODE")
    voice_fallback: Literal["model", "off"] = Field("model", alias="RELAY_VOICE_FALLBACK")

    api_keys: CommaList = Field((), alias="RELAY_API_KEYS", repr=False)
    admin_keys: CommaList = Field((), alias="RELAY_ADMIN_KEYS", repr=False)
    ticket_keys: CommaList = Field((), alias="RELAY_TICKET_KEYS", repr=False)
    policies: Path | None = Field(None, alias="RELAY_POLICIES")
    minted_max_mb: float = Field(16, alias="RELAY_MINTED_MAX_MB", gt=0)
    allowed_origins: CommaList = Field((), validation_alias=AliasChoices("RELAY_ALLOWED_ORIGINS", "NAVAI_CORS_ORIGIN"))
    hosts: CommaList = Field((), alias="RELAY_HOSTS")
    local: Literal["on", "off"] = Field("on", alias="RELAY_LOCAL")
    open_access: bool = Field(False, alias="RELAY_OPEN")
    browser_access: Literal["credential", "origin"] = Field("credential", alias="RELAY_BROWSER_ACCESS")

    state_dir: Path = Field(Path("~/.local/state/relay"), alias="RELAY_STATE_DIR")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", alias="RELAY_LOG_LEVEL")
    log_format: Literal["text", "json"] = Field("text", alias="RELAY_LOG_FORMAT")

    _environment: dict[str, str] = PrivateAttr(default_factory=dict)
    _overrides: dict[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Read the settings; `overrides` (by field name) win. Raises ConfigError with every mistake at once."""
        try:
            settings = cls(**{key: value for key, value in overrides.items() if value is not None})
        except ValidationError as error:
            raise ConfigError(_report(error)) from None
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(error) from None
        settings._environment = process_environment()
        settings._overrides = overrides
        return settings

    def reread(self) -> Self:
        """The settings as the environment and `.env` are now, with the same overrides. Raises ConfigError."""
        return type(self).load(**self._overrides)

    @property
    def env_path(self) -> Path | None:
        """The `.env` that `load` has read; None if there was none."""
        path = Path(".env")
        return path if self._environment and path.is_file() else None

    def environment(self) -> dict[str, str]:
        """The environment and `.env` as they were loaded, for parts with keys of their own; shared keys as here."""
        own = {
            "OPENAI_API_KEY": self.openai_api_key.get_secret_value() if self.openai_api_key else None,
            "OPENAI_BASE_URL": self.openai_base_url,
            "OPENAI_REALTIME_MODEL": self.model,
            "OPENAI_REALTIME_VOICE": self.voice,
            "OPENAI_REALTIME_INSTRUCTIONS": self.instructions,
            "OPENAI_REALTIME_LANGUAGE": self.language,
            "OPENAI_REALTIME_VOICE_ACCENT": self.voice_accent,
            "OPENAI_REALTIME_VOICE_TONE": self.voice_tone,
        }
        return self._environment | {key: value or "" for key, value in own.items()}

    @field_validator("api_keys", "admin_keys", "ticket_keys", "allowed_origins", "proxies", "hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin not in ("*", "null", "file://") and not is_origin(origin):
                raise ValueError(
                    f"{origin!r} is no origin; write it like https://app.example.com or capacitor://localhost, without "
                    "a path; file:// and null are origins as well"
                )
        return tuple(normal_origin(origin) for origin in value)

    @field_validator("proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                ip_network(proxy)
            except ValueError:
                raise ValueError(f"{proxy!r} is no address and no network; write it like 10.0.0.0/8") from None
        return value

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", host):
                raise ValueError(f"{host!r} is no name of a host; write it like voice.example.com, without a port")
        return tuple(host.lower() for host in value)

    @field_validator("state_dir")
    @classmethod
    def _at_home(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("api_keys", "admin_keys", "ticket_keys")
    @classmethod
    def _check_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(key) < 16 for key in value):
            raise ValueError("a key must have at least 16 characters; make one with: openssl rand -hex 24")
        return value

    @field_validator("tools", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("navai_folders", "navai_agents", "tools_base_dir", "mcp_servers", mode="before")
    @classmethod
    def _blank_is_unset(cls, value: Any) -> Any:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator(
        "upstream",
        "upstream_dialect",
        "turn",
        "log_level",
        "log_format",
        "noise_reduction",
        "browser_access",
        "local",
        "record",
        "voice_mode",
        "voice_fallback",
        mode="before",
    )
    @classmethod
    def _tidy(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return value.strip() if "://" in value else value.strip().lower()

    @field_validator("upstream")
    @classmethod
    def _check_upstream(cls, value: str) -> str:
        if value not in ("auto", "openai", "azure", ENGINE) and not is_url(value, ("ws", "wss")):
            raise ValueError(f"{redact(value)!r} is none of auto, openai, azure, local, or a ws:// or wss:// URL")
        return value

    @field_validator("upstream_dialect")
    @classmethod
    def _check_upstream_dialect(cls, value: str) -> str:
        if value not in (known := ("auto", *UPSTREAM_DIALECTS)):
            raise ValueError(f"{value!r:.80} is none of {', '.join(known)}")
        return value

    @field_validator("voice")
    @classmethod
    def _check_voice(cls, value: str) -> str:
        if value.startswith(EXTERNAL_VOICE):
            raise ValueError(
                "names the model's own voice; for another one set NAVAI_TTS_PROVIDER=elevenlabs and ELEVENLABS_VOICE_ID"
            )
        return value

    @field_validator("azure_endpoint")
    @classmethod
    def _check_azure_endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            azure_endpoint(value)
        return value

    @field_validator("azure_token")
    @classmethod
    def _check_azure_token(cls, value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(r"[\w.]+:[\w.]+", value):
            raise ValueError("must name a callable like my_package.my_module:function, which returns a bearer token")
        return value

    @field_validator("azure_prefix")
    @classmethod
    def _check_azure_prefix(cls, value: str) -> str:
        if not re.fullmatch(r"(/[\w.~-]+)+/?", value):
            raise ValueError(f"{value!r} is no path; write it like /api/ai-assistant")
        return value.rstrip("/")

    @field_validator("openai_base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        if not is_url(value, ("http", "https", "ws", "wss")):
            raise ValueError(f"{redact(value)!r} is no URL; write it like https://api.openai.com/v1")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = self._azure_problems()
        if self.upstream == "openai" and self.openai_api_key is None:
            problems.append("RELAY_UPSTREAM=openai needs a key: set OPENAI_API_KEY")
        if self.pong_timeout_s > self.ping_interval_s:
            problems.append("RELAY_PONG_TIMEOUT_S may not be longer than RELAY_PING_INTERVAL_S")
        if (self.tls_cert is None) != (self.tls_key is None):
            problems.append("TLS needs both TLS_CERT and TLS_KEY; scripts/dev-cert makes a pair for this machine")
        if set(self.ticket_keys) & {*self.api_keys, *self.admin_keys}:
            problems.append(
                "RELAY_TICKET_KEYS has a key that is one of RELAY_API_KEYS or RELAY_ADMIN_KEYS: whoever holds it could "
                "sign client secrets of every policy, and an admin's login. Make another one with: openssl rand -hex 24"
            )
        if not self.is_loopback and not self.api_keys and not self.open_access:
            problems.append(
                f"HOST={self.host} can be reached from other machines. Set RELAY_API_KEYS (keys that clients must "
                "send), or RELAY_OPEN=1 to let everybody in who can reach it"
            )
        if problems:
            raise ValueError("\n  ".join(problems))
        return self

    def _azure_problems(self) -> list[str]:
        problems = []
        if self.azure_api_key is not None and self.azure_token is not None:
            problems.append("AZURE_OPENAI_API_KEY and RELAY_AZURE_TOKEN are both set: Azure takes one; unset the other")
        if self.azure_api_version is not None and (self.azure_endpoint or "").rstrip("/").endswith("/openai/v1"):
            problems.append(
                "AZURE_OPENAI_ENDPOINT ends with /openai/v1, the GA protocol, and AZURE_OPENAI_API_VERSION is set, "
                "which means the preview one: unset AZURE_OPENAI_API_VERSION, or cut /openai/v1 off"
            )
        if self.upstream == "azure" and (missing := self._azure_missing()):
            problems.append(f"RELAY_UPSTREAM=azure needs {', '.join(missing)}")
        return problems

    def _azure_missing(self) -> list[str]:
        missing = []
        if self.azure_endpoint is None:
            missing.append("AZURE_OPENAI_ENDPOINT")
        if self.azure_deployment is None:
            missing.append("AZURE_OPENAI_DEPLOYMENT")
        if self.azure_api_key is None and self.azure_token is None:
            missing.append("AZURE_OPENAI_API_KEY (or RELAY_AZURE_TOKEN, a callable that gives a bearer token)")
        return missing

    @property
    def azure(self) -> AzureResource | None:
        """The Azure resource, if one is configured in full."""
        if self._azure_missing() or self.azure_endpoint is None or self.azure_deployment is None:
            return None
        return AzureResource(azure_endpoint(self.azure_endpoint), self.azure_deployment, self.azure_api_version)

    @property
    def trusts_local(self) -> bool:
        """Whether programs of this machine and of the relay's own user may need no key."""
        return self.local == "on"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the listener."""
        return is_loopback_host(self.host)

    def tls_context(self) -> ssl.SSLContext | None:
        """The listener's TLS, if it has any. Raises ConfigError for files that are no certificate and key."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            what = (
                error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else error.reason
            )
            raise ConfigError(
                f"TLS_CERT={self.tls_cert}, TLS_KEY={self.tls_key}: {what or 'no certificate and key'}"
            ) from error
        context.set_alpn_protocols(["http/1.1"])
        return context

    def resolve_upstream(self) -> UpstreamEndpoint:
        """The upstream that these settings name: a URL; `auto` is OpenAI, else Azure, else the local engine."""
        endpoint = self._endpoint()
        return replace(endpoint, dialect=dialect_of(endpoint.url, self.upstream_dialect))

    def _endpoint(self) -> UpstreamEndpoint:
        if "://" in self.upstream:
            url_for = dialect_of(self.upstream, self.upstream_dialect).url_for or realtime_url
            url = url_for(self.upstream, self.model)
            return UpstreamEndpoint("url", url, self._key_for(self.upstream), names_model(self.upstream))
        if self.upstream == "openai" or (self.upstream == "auto" and self.openai_api_key is not None):
            return UpstreamEndpoint("openai", realtime_url(self.openai_base_url, self.model), self.openai_api_key)
        azure = self.azure if self.upstream in ("auto", "azure") else None
        if azure is not None:
            return UpstreamEndpoint("azure", azure.websocket_url, self.azure_api_key, fixes_model=True)
        return UpstreamEndpoint("local", None, None)

    @property
    def fallback_voice(self) -> str | None:
        """The model's voice that speaks after an external one has failed; None if that is not wanted."""
        return self.voice if self.voice_fallback == "model" else None

    def session_limits(self) -> SessionLimits:
        """How long sessions may last and be quiet; 0 is for ever."""
        return SessionLimits(self.max_duration_s or None, self.max_idle_s or None)

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
        found += self._azure_warnings()
        if self._environment.get("RELAY_TICK_MS"):
            found.append("RELAY_TICK_MS has no effect any more and can be removed")
        if self.navai_folders is not None and "tools" in self.model_fields_set:
            found.append(
                "RELAY_TOOLS is not used: NAVAI_FUNCTIONS_FOLDERS is set and alone says which tools are loaded"
            )
        if self.open_access:
            found.append(
                f"RELAY_OPEN is set: everybody who can reach {self.host}, also through a reverse proxy, can use this "
                "relay and its key"
            )
        if self.is_loopback and not self.trusts_local and not self.api_keys and not self.open_access:
            found.append("RELAY_LOCAL=off without RELAY_API_KEYS: there is no key to this relay for anybody but admins")
        if not self.is_loopback and self.tls_cert is None:
            found.append(
                f"HOST={self.host} without TLS_CERT and TLS_KEY: keys and audio cross the network in clear text "
                "unless a reverse proxy adds TLS, and admins cannot sign in from other machines"
            )
        return found + self._origin_warnings()

    def _origin_warnings(self) -> list[str]:
        name = "RELAY_ALLOWED_ORIGINS"
        found = []
        for origin in self.allowed_origins:
            if origin == "*":
                found.append(f"{name}=*: every page that a visitor opens, anywhere, counts as allowed")
            elif origin == "null":
                found.append(f"{name} has null: any page can send that, from a sandboxed frame")
            elif origin == "file://":
                found.append(f"{name} has file://: every file that a user opens in a browser or app view is allowed")
            elif not origin.startswith(("http://", "https://")):
                found.append(f"{name} has {origin}: every app that uses this scheme and name is allowed")
        return found

    def _azure_warnings(self) -> list[str]:
        found = []
        missing = self._azure_missing()
        if missing and len(missing) < 3:
            found.append(f"Azure is configured in part and not used: {', '.join(missing)} is missing")
        if self.resolve_upstream().dialect is AZURE_PREVIEW:
            found.append(
                "Azure's preview protocol is deprecated since 2026-04-30: unset AZURE_OPENAI_API_VERSION, or use the "
                "address /openai/v1/realtime?model=<deployment>"
            )
        return found

    def _key_for(self, url: str) -> SecretStr | None:
        """The key for a URL of the user's: OpenAI's own goes only to its own host or to this machine."""
        if self.upstream_key is not None:
            return self.upstream_key
        host = urlsplit(url).hostname or ""
        if host == urlsplit(self.openai_base_url).hostname or is_loopback_host(host):
            return self.openai_api_key
        return None


def process_environment() -> dict[str, str]:
    """The environment over what `.env` says. Raises ConfigError where that is no text, or may not be read."""
    try:
        said = dotenv_values(".env")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(error) from None
    return {key: value for key, value in said.items() if value} | dict(os.environ)


def _unreadable(error: OSError | UnicodeDecodeError) -> ConfigError:
    return ConfigError(f".env cannot be read: {error}")


def is_origin(text: str) -> bool:
    """Whether `text` is `scheme://host[:port]`, of any scheme."""
    found = re.fullmatch(r"([a-zA-Z][a-zA-Z0-9+.-]*)://[^/\s?#@]+", text)
    return found is not None and is_url(text, (found[1].lower(),))


def normal_origin(origin: str) -> str:
    """An origin as browsers send it: lower case, without the scheme's own port. Raises ValueError for a bad port."""
    parts = urlsplit(origin.lower())
    own_port = {"http": 80, "https": 443}.get(parts.scheme)
    return origin.lower().removesuffix(f":{own_port}") if parts.port == own_port else origin.lower()


def _report(error: ValidationError) -> str:
    lines = []
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        where = str(one["loc"][0]) if one["loc"] else ""
        field = Settings.model_fields.get(where)
        name = (field.alias or where) if field else where
        text = _SHOWN.get(one["type"], one["msg"].removeprefix("Value error, "))
        lines.append(f"  {name}: {text}" if name else f"  {text}")
    return "the settings are wrong:\n" + "\n".join(dict.fromkeys(lines))
