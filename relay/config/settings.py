"""Settings: every key of the environment (or `.env`) that the relay reads, typed, with one report of all mistakes.

An empty value is unset. Names that other systems gave to the same thing are accepted as aliases.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from relay.config.settings_parts import AccessSettings, ConversationSettings
from relay.errors import ConfigError
from relay.loopback import is_loopback_host
from relay.session.common.redact import redact
from relay.upstreams.azure import AzureResource, normalize_azure_endpoint
from relay.upstreams.endpoint import UpstreamEndpoint, is_url, names_model, realtime_url
from relay.upstreams.registry import AZURE_PREVIEW, UPSTREAM_DIALECTS, find_dialect

ENGINE = "local"
AZURE_PREFIX = "/api/ai-assistant"
DEFAULT_TOOLS = "tools"
RETIRING_MODELS = re.compile(
    r"^(gpt-realtime(-mini)?(-20\d\d-\d\d-\d\d)?|gpt-4o(-mini)?-realtime-preview(-20\d\d-\d\d-\d\d)?)$"
)
"""Models that their vendor shuts down on 2027-01-20 or before."""

_SHOWN = {"missing": "is missing", "extra_forbidden": "is not known"}


class Settings(AccessSettings, ConversationSettings):
    """All settings of the relay; `Settings.load()` reads them from the environment and `.env`."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", populate_by_name=True
    )

    upstream: str = Field("auto", alias="RELAY_UPSTREAM")
    upstream_key: SecretStr | None = Field(None, alias="RELAY_UPSTREAM_KEY")
    upstream_dialect: str = Field("auto", alias="RELAY_UPSTREAM_DIALECT")
    openai_api_key: SecretStr | None = Field(None, alias="OPENAI_API_KEY")
    openai_base_url: str = Field("https://api.openai.com/v1", alias="OPENAI_BASE_URL")
    model: str = Field("gpt-realtime", alias="OPENAI_REALTIME_MODEL")

    azure_api_key: SecretStr | None = Field(None, alias="AZURE_OPENAI_API_KEY")
    azure_token: str | Callable[[], Any] | None = Field(None, alias="RELAY_AZURE_TOKEN")
    """A callable that gives a bearer token for each dial, or where one is: `package.module:function`."""
    azure_endpoint: str | None = Field(None, alias="AZURE_OPENAI_ENDPOINT")
    azure_deployment: str | None = Field(None, alias="AZURE_OPENAI_DEPLOYMENT")
    azure_api_version: str | None = Field(None, alias="AZURE_OPENAI_API_VERSION")
    azure_prefix: str = Field(AZURE_PREFIX, alias="RELAY_AZURE_PREFIX")

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
    max_queued_s: float = Field(300, alias="RELAY_MAX_QUEUED_S", ge=1, le=3600)
    ping_interval_s: float = Field(20, alias="RELAY_PING_INTERVAL_S", gt=0)
    pong_timeout_s: float = Field(10, alias="RELAY_PONG_TIMEOUT_S", gt=0)
    mints_per_minute: int = Field(30, alias="RELAY_MINTS_PER_MINUTE", ge=0)
    speech_per_minute: int = Field(120, alias="RELAY_SPEECH_PER_MINUTE", ge=0)

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
        shared = ("openai_base_url", "model", "voice", "instructions", "language", "voice_accent", "voice_tone")
        own = {str(Settings.model_fields[name].alias): getattr(self, name) or "" for name in shared}
        key = self.openai_api_key.get_secret_value() if self.openai_api_key else ""
        return self._environment | own | {"OPENAI_API_KEY": key}

    @field_validator("state_dir")
    @classmethod
    def _at_home(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("tools", mode="before")
    @classmethod
    def _path_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("navai_folders", "navai_agents", "tools_base_dir", "mcp_servers", mode="before")
    @classmethod
    def _blank_is_unset(cls, value: Any) -> Any:
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator(
        *("upstream", "upstream_dialect", "log_level", "log_format", "record", "local", "browser_access"),
        *("turn", "noise_reduction", "voice_mode", "voice_fallback"),
        mode="before",
    )
    @classmethod
    def _tidy(cls, value: Any) -> Any:
        """A choice in whatever case it was written; a URL keeps its case."""
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

    @field_validator("azure_endpoint")
    @classmethod
    def _check_azure_endpoint(cls, value: str | None) -> str | None:
        if value is not None:
            normalize_azure_endpoint(value)
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
        problems += self.access_problems()
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
        return AzureResource(
            normalize_azure_endpoint(self.azure_endpoint), self.azure_deployment, self.azure_api_version
        )

    def resolve_upstream(self) -> UpstreamEndpoint:
        """The upstream that these settings name: a URL; `auto` is OpenAI, else Azure, else the local engine."""
        endpoint = self._endpoint()
        return replace(endpoint, dialect=find_dialect(endpoint.url, self.upstream_dialect))

    def _endpoint(self) -> UpstreamEndpoint:
        if "://" in self.upstream:
            url_for = find_dialect(self.upstream, self.upstream_dialect).url_for or realtime_url
            url = url_for(self.upstream, self.model)
            return UpstreamEndpoint("url", url, self._key_for(self.upstream), names_model(self.upstream))
        if self.upstream == "openai" or (self.upstream == "auto" and self.openai_api_key is not None):
            return UpstreamEndpoint("openai", realtime_url(self.openai_base_url, self.model), self.openai_api_key)
        azure = self.azure if self.upstream in ("auto", "azure") else None
        if azure is not None:
            return UpstreamEndpoint("azure", azure.websocket_url, self.azure_api_key, has_fixed_model=True)
        return UpstreamEndpoint("local", None, None)

    def warnings(self) -> list[str]:
        """What the start should say although nothing is wrong."""
        found = []
        if self.resolve_upstream().kind == "openai" and RETIRING_MODELS.match(self.model):
            found.append(
                f"OPENAI_REALTIME_MODEL={self.model} is shut down on 2027-01-20; set gpt-realtime-2.1 or a later one"
            )
        missing = self._azure_missing()
        if missing and len(missing) < 3:
            found.append(f"Azure is configured in part and not used: {', '.join(missing)} is missing")
        if self.resolve_upstream().dialect is AZURE_PREVIEW:
            chosen_by = "AZURE_OPENAI_API_VERSION" if self.upstream_dialect == "auto" else "RELAY_UPSTREAM_DIALECT"
            found.append(
                f"Azure's preview protocol is deprecated since 2026-04-30: unset {chosen_by}, or use the address "
                "/openai/v1/realtime?model=<deployment>"
            )
        if self._environment.get("RELAY_TICK_MS"):
            found.append("RELAY_TICK_MS has no effect any more and can be removed")
        if self.navai_folders is not None and "tools" in self.model_fields_set:
            found.append(
                "RELAY_TOOLS is not used: NAVAI_FUNCTIONS_FOLDERS is set and alone says which tools are loaded"
            )
        return found + self.access_warnings()

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


def _report(error: ValidationError) -> str:
    lines = []
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        where = str(one["loc"][0]) if one["loc"] else ""
        field = Settings.model_fields.get(where)
        name = (field.alias or where) if field else where
        text = _SHOWN.get(one["type"], one["msg"].removeprefix("Value error, "))
        lines.append(f"  {name}: {text}" if name else f"  {text}")
    return "the settings are wrong:\n" + "\n".join(dict.fromkeys(lines))
