"""Settings of the process: listener, access, limits, recordings, log."""

import re
import ssl
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import ClassVar

from pydantic import field_validator

from relay.config.group import NameOf, SettingsGroup, Variable, setting
from relay.config.values import (
    BrowserAccess,
    CommaList,
    LogFormat,
    LogLevel,
    OptionalPath,
    RecordingMode,
    Switch,
    is_origin,
    normalize_origin,
    quote,
)
from relay.errors import ConfigError
from relay.loopback import is_loopback_host


class ServerSettings(SettingsGroup, frozen=True):
    """The listener: its address, port and TLS certificate."""

    GROUP: ClassVar[str] = "server"
    TITLE: ClassVar[str] = "The listener"

    host: str = setting("HOST", "127.0.0.1", "The address to listen on.")
    port: int = setting("PORT", 8080, "The port to listen on; 0 picks a free one.", ge=0, le=65535)
    tls_cert: OptionalPath = setting(
        "TLS_CERT",
        None,
        "The certificate in PEM. With `TLS_KEY` the listener speaks https and wss; `scripts/dev-cert` makes a pair for "
        "this machine.",
    )
    tls_key: OptionalPath = setting("TLS_KEY", None, "The private key in PEM.")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the listener."""
        return is_loopback_host(self.host)

    def tls_context(self, name_of: NameOf) -> ssl.SSLContext | None:
        """Return the TLS context, or None without TLS. Raises ConfigError for an invalid certificate or key."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            files = f"{name_of('server.tls_cert')}={self.tls_cert}, {name_of('server.tls_key')}={self.tls_key}"
            raise ConfigError(f"{files}: {reason or 'not a certificate and its key'}") from error
        context.set_alpn_protocols(["http/1.1"])
        return context

    def problems(self, name_of: NameOf) -> Iterator[str]:
        """Report a certificate without a key, or a key without a certificate."""
        if (self.tls_cert is None) != (self.tls_key is None):
            names = f"{name_of('server.tls_cert')} and {name_of('server.tls_key')}"
            yield f"TLS needs both {names}; scripts/dev-cert makes a pair for this machine"


class AccessSettings(SettingsGroup, frozen=True):
    """Access to the relay: keys, policies, origins, hosts and proxies. See docs/access.md."""

    GROUP: ClassVar[str] = "access"
    TITLE: ClassVar[str] = "Access"

    api_keys: CommaList = setting(
        "RELAY_API_KEYS",
        (),
        "Keys of clients, separated by commas, at least 16 characters each (`openssl rand -hex 24`). They are required "
        "if other machines can reach `HOST`, and behind a reverse proxy.",
        repr=False,
    )
    admin_keys: CommaList = setting(
        "RELAY_ADMIN_KEYS",
        (),
        "Keys of admins, who may also see the recordings. `relay console` signs in without one.",
        repr=False,
    )
    ticket_keys: CommaList = setting(
        Variable("RELAY_TICKET_KEYS", default="made at each start"),
        (),
        "Keys that sign client secrets and admins' logins: the first one signs, all verify. None of them may be a "
        "client's or an admin's key.",
        repr=False,
    )
    policies: OptionalPath = setting("RELAY_POLICIES", None, "The policy file: what each key may do in a session.")
    allowed_origins: CommaList = setting(
        Variable("RELAY_ALLOWED_ORIGINS", aliases=("NAVAI_CORS_ORIGIN",)),
        (),
        "Origins of pages that may connect besides the relay's own, such as https://app.example.com or "
        "capacitor://localhost.",
    )
    browser_access: BrowserAccess = setting(
        "RELAY_BROWSER_ACCESS",
        "credential",
        "`origin`: pages of allowed origins need no key. That is weak: any program can claim an origin.",
    )
    hosts: CommaList = setting(
        "RELAY_HOSTS",
        (),
        "Host names of this relay, such as voice.example.com, without a port. In a request without a key, `Host` must "
        "be one of them, an IP address or this machine's name.",
    )
    proxies: CommaList = setting(
        "RELAY_PROXIES", (), "Addresses or networks of reverse proxies, whose `X-Forwarded-For` is trusted."
    )
    local: Switch = setting(
        "RELAY_LOCAL", "on", "`off`: programs of the relay's own user on this machine need a key as well."
    )
    open: bool = setting("RELAY_OPEN", False, "`1`: no client needs a key. Recordings still require an admin.")
    state_dir: Path = setting(
        "RELAY_STATE_DIR",
        Path("~/.local/state/relay"),
        "The folder for the login codes of `relay console`, accessible only to the relay's user (mode 0700).",
    )

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin not in ("*", "null", "file://") and not is_origin(origin):
                raise ValueError(
                    f"{quote(origin)} is not an origin; write it like https://app.example.com or "
                    "capacitor://localhost, without a path; file:// and null are origins as well"
                )
        return tuple(normalize_origin(origin) for origin in value)

    @field_validator("proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                ip_network(proxy)
            except ValueError:
                raise ValueError(f"{quote(proxy)} is not an address or network; write it like 10.0.0.0/8") from None
        return value

    @field_validator("hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", host):
                raise ValueError(f"{quote(host)} is not a host name; write it like voice.example.com, without a port")
        return tuple(host.lower() for host in value)

    @field_validator("api_keys", "admin_keys", "ticket_keys")
    @classmethod
    def _check_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(len(key) < 16 for key in value):
            raise ValueError("a key must have at least 16 characters; make one with: openssl rand -hex 24")
        return value

    @field_validator("state_dir")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        return value.expanduser()

    @property
    def trusts_local(self) -> bool:
        """Whether programs of the relay's own user on this machine need no key."""
        return self.local == "on"

    def problems(self, name_of: NameOf) -> Iterator[str]:
        """Report a signing key that is also a key of clients or admins."""
        if set(self.ticket_keys) & {*self.api_keys, *self.admin_keys}:
            yield (
                f"{name_of('access.ticket_keys')} contains a key of {name_of('access.api_keys')} or "
                f"{name_of('access.admin_keys')}: its holder could sign client secrets of every policy, and admin "
                "logins. Create another one with: openssl rand -hex 24"
            )

    def origin_warnings(self, name_of: NameOf) -> Iterator[str]:
        """Yield warnings about allowed origins that match more than one site or app."""
        name = name_of("access.allowed_origins")
        for origin in self.allowed_origins:
            if origin == "*":
                yield f"{name}=*: pages of every site are allowed"
            elif origin == "null":
                yield f"{name} contains null: any page can send this origin, from a sandboxed frame"
            elif origin == "file://":
                yield f"{name} contains file://: every file that a user opens in a browser or app view is allowed"
            elif not origin.startswith(("http://", "https://")):
                yield f"{name} contains {origin}: every app that uses this scheme and name is allowed"


class LimitSettings(SettingsGroup, frozen=True):
    """Limits of sessions, connections and requests. Error messages name the limit that was reached."""

    GROUP: ClassVar[str] = "limits"
    TITLE: ClassVar[str] = "Limits"

    max_sessions: int = setting(
        "RELAY_MAX_SESSIONS",
        500,
        "Maximum number of concurrent sessions. A low limit of open files reduces it, with a warning.",
        ge=1,
    )
    max_sessions_per_address: int | None = setting(
        Variable("RELAY_MAX_SESSIONS_PER_ADDRESS", default="50; none for this machine"),
        None,
        "Maximum number of concurrent sessions per client address; 0 for no limit.",
        ge=0,
    )
    max_handshakes_per_minute: int | None = setting(
        Variable("RELAY_MAX_HANDSHAKES_PER_MINUTE", default="120; none for this machine"),
        None,
        "Maximum number of connection attempts per client address and minute; 0 for no limit.",
        ge=0,
    )
    max_idle_s: float = setting(
        "RELAY_MAX_IDLE_S",
        1800,
        "Seconds without audio or a message after which a session ends; 0 for no limit.",
        ge=0,
    )
    max_duration_s: float = setting(
        "RELAY_MAX_DURATION_S", 14_400, "Maximum duration of a session, in seconds; 0 for no limit.", ge=0
    )
    max_queued_s: float = setting(
        "RELAY_MAX_QUEUED_S",
        300,
        "Maximum length of audio queued for one client, in seconds, 1 to 3600.",
        ge=1,
        le=3600,
    )
    ping_interval_s: float = setting("RELAY_PING_INTERVAL_S", 20, "Seconds between two WebSocket pings.", gt=0)
    pong_timeout_s: float = setting(
        "RELAY_PONG_TIMEOUT_S", 10, "Seconds to wait for a pong; at most the ping interval.", gt=0
    )
    provider_secrets_per_minute: int = setting(
        "RELAY_MINTS_PER_MINUTE",
        30,
        "Provider secrets per minute for each key, and for each address of callers without a key; 0 for no limit.",
        ge=0,
    )
    speech_per_minute: int = setting(
        "RELAY_SPEECH_PER_MINUTE",
        120,
        "Speech requests per minute for each key, and for each address of callers without a key; 0 for no limit.",
        ge=0,
    )
    client_secrets_max_mb: float = setting(
        "RELAY_MINTED_MAX_MB",
        16,
        "MiB of memory for the client secrets of one key that have a session or are single-use.",
        gt=0,
    )

    def problems(self, name_of: NameOf) -> Iterator[str]:
        """Report a pong timeout that is longer than the ping interval."""
        if self.pong_timeout_s > self.ping_interval_s:
            yield f"{name_of('limits.pong_timeout_s')} may not be longer than {name_of('limits.ping_interval_s')}"


class RecordingSettings(SettingsGroup, frozen=True):
    """Recordings of sessions: mode, folder and retention."""

    GROUP: ClassVar[str] = "recording"
    TITLE: ClassVar[str] = "Recordings"

    mode: RecordingMode = setting(
        "RELAY_RECORD", "off", "`off`, `on`, or `consent`: record once the client has agreed."
    )
    dir: Path = setting("RELAY_RECORDINGS_DIR", Path("recordings"), "The folder of the recordings.")
    max_days: float | None = setting("RELAY_RECORDINGS_MAX_DAYS", 30, "Days after which a recording is deleted.", gt=0)
    max_total_mb: float | None = setting(
        "RELAY_RECORDINGS_MAX_MB",
        10_000,
        "Maximum size of all recordings, in MB. Above it, the oldest ones of the identity with the most data are "
        "deleted.",
        gt=0,
    )
    max_mb: float | None = setting(
        "RELAY_RECORDING_MAX_MB",
        1000,
        "Maximum size of a recording, in MB. It stops there; the session continues.",
        gt=0,
    )


class LogSettings(SettingsGroup, frozen=True):
    """The log, on standard error."""

    GROUP: ClassVar[str] = "log"
    TITLE: ClassVar[str] = "Log"

    level: LogLevel = setting("RELAY_LOG_LEVEL", "info", "`debug`, `info`, `warning` or `error`.")
    format: LogFormat = setting(
        "RELAY_LOG_FORMAT",
        "text",
        "`json` writes one object per line. In `text`, the further lines of an entry are indented.",
    )
