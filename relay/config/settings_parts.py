"""The two halves of the settings: of the listener and who may connect, and of what every session begins with."""

import re
import ssl
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from relay.errors import ConfigError
from relay.loopback import is_loopback_host
from relay.session.common.limits import SessionLimits
from relay.session.common.model import ELEVENLABS_PREFIX, SessionConfig, TurnDetection
from relay.upstreams.endpoint import is_url


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class AccessSettings(BaseSettings):
    """The part of `relay.config.settings.Settings` that decides who gets in."""

    host: str = Field("127.0.0.1", alias="HOST")
    port: int = Field(8080, alias="PORT", ge=0, le=65535)
    tls_cert: Path | None = Field(None, alias="TLS_CERT")
    tls_key: Path | None = Field(None, alias="TLS_KEY")

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
    proxies: CommaList = Field((), alias="RELAY_PROXIES")

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

    @field_validator("api_keys", "admin_keys", "ticket_keys")
    @classmethod
    def _check_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(key) < 16 for key in value):
            raise ValueError("a key must have at least 16 characters; make one with: openssl rand -hex 24")
        return value

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
        except OSError as error:
            what = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise ConfigError(
                f"TLS_CERT={self.tls_cert}, TLS_KEY={self.tls_key}: {what or 'no certificate and key'}"
            ) from error
        context.set_alpn_protocols(["http/1.1"])
        return context

    def access_problems(self) -> list[str]:
        """What does not fit together, each with its fix."""
        problems = []
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
        return problems

    def access_warnings(self) -> list[str]:
        """What the start should say of who gets in, although nothing is wrong."""
        found = []
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


def is_origin(text: str) -> bool:
    """Whether `text` is `scheme://host[:port]`, of any scheme."""
    found = re.fullmatch(r"([a-zA-Z][a-zA-Z0-9+.-]*)://[^/\s?#@]+", text)
    return found is not None and is_url(text, (found[1].lower(),))


def normal_origin(origin: str) -> str:
    """An origin as browsers send it: lower case, without the scheme's own port. Raises ValueError for a bad port."""
    parts = urlsplit(origin.lower())
    own_port = {"http": 80, "https": 443}.get(parts.scheme)
    return origin.lower().removesuffix(f":{own_port}") if parts.port == own_port else origin.lower()


class ConversationSettings(BaseSettings):
    """The part of `relay.config.settings.Settings` that sessions begin with."""

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

    voice_mode: Literal["streaming", "final"] = Field("streaming", alias="RELAY_VOICE_MODE")
    voice_fallback: Literal["model", "off"] = Field("model", alias="RELAY_VOICE_FALLBACK")

    max_duration_s: float = Field(14_400, alias="RELAY_MAX_DURATION_S", ge=0)
    max_idle_s: float = Field(1800, alias="RELAY_MAX_IDLE_S", ge=0)

    @field_validator("voice")
    @classmethod
    def _check_voice(cls, value: str) -> str:
        if value.startswith(ELEVENLABS_PREFIX):
            raise ValueError(
                "names the model's own voice; for another one set NAVAI_TTS_PROVIDER=elevenlabs and ELEVENLABS_VOICE_ID"
            )
        return value

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
