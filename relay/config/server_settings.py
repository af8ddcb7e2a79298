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
    normal_origin,
    quote,
)
from relay.errors import ConfigError
from relay.loopback import is_loopback_host


class ServerSettings(SettingsGroup, frozen=True):
    """Where the relay listens."""

    GROUP: ClassVar[str] = "server"
    TITLE: ClassVar[str] = "The listener"

    host: str = setting("HOST", "127.0.0.1", "The address to listen on.")
    port: int = setting("PORT", 8080, "The port to listen on; 0 takes any free one.", ge=0, le=65535)
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
        """The listener's TLS, if it has any. Raises ConfigError for files that are not a certificate and its key."""
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
        """Report one of the two files without the other."""
        if (self.tls_cert is None) != (self.tls_key is None):
            names = f"{name_of('server.tls_cert')} and {name_of('server.tls_key')}"
            yield f"TLS needs both {names}; scripts/dev-cert makes a pair for this machine"


class AccessSettings(SettingsGroup, frozen=True):
    """Who may use the relay. See docs/access.md."""

    GROUP: ClassVar[str] = "access"
    TITLE: ClassVar[str] = "Access"

    api_keys: CommaList = setting(
        "RELAY_API_KEYS",
        (),
        "Keys of clients, separated by commas, at least 16 characters each (`openssl rand -hex 24`). They are needed "
        "where other machines reach `HOST`, and behind a reverse proxy.",
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
    policies: OptionalPath = setting("RELAY_POLICIES", None, "The policy file: who may do what with a session.")
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
        "Names of this relay, such as voice.example.com, where no key is needed. They are checked in `Host`, without "
        "a port.",
    )
    proxies: CommaList = setting(
        "RELAY_PROXIES", (), "Addresses or networks of reverse proxies, whose `X-Forwarded-For` is believed."
    )
    local: Switch = setting(
        "RELAY_LOCAL", "on", "`off`: programs of the relay's own user on this machine need a key as well."
    )
    open: bool = setting(
        "RELAY_OPEN", False, "`1`: nobody who can reach `HOST` needs a key. The recordings stay for admins."
    )
    state_dir: Path = setting(
        "RELAY_STATE_DIR",
        Path("~/.local/state/relay"),
        "The folder where `relay console` leaves its codes; for the relay's user alone (mode 0700).",
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
        return tuple(normal_origin(origin) for origin in value)

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
    def _at_home(cls, value: Path) -> Path:
        return value.expanduser()

    @property
    def trusts_local(self) -> bool:
        """Whether programs of this machine and of the relay's own user may need no key."""
        return self.local == "on"

    def problems(self, name_of: NameOf) -> Iterator[str]:
        """Report a key that clients hold and that signs."""
        if set(self.ticket_keys) & {*self.api_keys, *self.admin_keys}:
            yield (
                f"{name_of('access.ticket_keys')} has a key that is one of {name_of('access.api_keys')} or "
                f"{name_of('access.admin_keys')}: whoever holds it could sign client secrets of every policy, and an "
                "admin's login. Make another one with: openssl rand -hex 24"
            )

    def origin_warnings(self, name_of: NameOf) -> Iterator[str]:
        """Warn of allowed origins that include more than they seem to."""
        name = name_of("access.allowed_origins")
        for origin in self.allowed_origins:
            if origin == "*":
                yield f"{name}=*: every page that a visitor opens, anywhere, counts as allowed"
            elif origin == "null":
                yield f"{name} has null: any page can send that, from a sandboxed frame"
            elif origin == "file://":
                yield f"{name} has file://: every file that a user opens in a browser or app view is allowed"
            elif not origin.startswith(("http://", "https://")):
                yield f"{name} has {origin}: every app that uses this scheme and name is allowed"


class LimitSettings(SettingsGroup, frozen=True):
    """Bounds of sessions, connections and requests. What reaches a bound is refused or ended with its name."""

    GROUP: ClassVar[str] = "limits"
    TITLE: ClassVar[str] = "Limits"

    max_sessions: int = setting(
        "RELAY_MAX_SESSIONS",
        500,
        "Sessions at a time. There are fewer where the limit of open files is too low; a warning says so.",
        ge=1,
    )
    max_sessions_per_address: int | None = setting(
        Variable("RELAY_MAX_SESSIONS_PER_ADDRESS", default="50; none for this machine"),
        None,
        "Sessions at a time of one address; 0 for no limit.",
        ge=0,
    )
    max_handshakes_per_minute: int | None = setting(
        Variable("RELAY_MAX_HANDSHAKES_PER_MINUTE", default="120; none for this machine"),
        None,
        "Attempts of one address to connect, per minute; 0 for no limit.",
        ge=0,
    )
    max_idle_s: float = setting(
        "RELAY_MAX_IDLE_S",
        1800,
        "A session ends after so many seconds without audio or a message; 0 for no limit.",
        ge=0,
    )
    max_duration_s: float = setting(
        "RELAY_MAX_DURATION_S", 14_400, "A session ends after so many seconds in all; 0 for no limit.", ge=0
    )
    max_queued_s: float = setting(
        "RELAY_MAX_QUEUED_S", 300, "Seconds of audio that may wait for one client, 1 to 3600.", ge=1, le=3600
    )
    ping_interval_s: float = setting("RELAY_PING_INTERVAL_S", 20, "Seconds between two WebSocket pings.", gt=0)
    pong_timeout_s: float = setting(
        "RELAY_PONG_TIMEOUT_S", 10, "Seconds to wait for the answer to a ping; at most the interval.", gt=0
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
        """Report a pong that may come after the next ping."""
        if self.pong_timeout_s > self.ping_interval_s:
            yield f"{name_of('limits.pong_timeout_s')} may not be longer than {name_of('limits.ping_interval_s')}"


class RecordingSettings(SettingsGroup, frozen=True):
    """Recordings of sessions: whether, where, and how long they are kept."""

    GROUP: ClassVar[str] = "recording"
    TITLE: ClassVar[str] = "Recordings"

    mode: RecordingMode = setting(
        "RELAY_RECORD", "off", "`off`, `on`, or `consent`: record once the client has agreed."
    )
    dir: Path = setting("RELAY_RECORDINGS_DIR", Path("recordings"), "The folder of the recordings.")
    max_days: float | None = setting("RELAY_RECORDINGS_MAX_DAYS", 30, "Older recordings are deleted.", gt=0)
    max_total_mb: float | None = setting(
        "RELAY_RECORDINGS_MAX_MB",
        10_000,
        "Above this size of all, the oldest of the identity that has most are deleted.",
        gt=0,
    )
    max_mb: float | None = setting(
        "RELAY_RECORDING_MAX_MB", 1000, "Where one recording ends; its session goes on.", gt=0
    )


class LogSettings(SettingsGroup, frozen=True):
    """The log, on standard error."""

    GROUP: ClassVar[str] = "log"
    TITLE: ClassVar[str] = "Log"

    level: LogLevel = setting("RELAY_LOG_LEVEL", "info", "`debug`, `info`, `warning` or `error`.")
    format: LogFormat = setting(
        "RELAY_LOG_FORMAT",
        "text",
        "`json` writes one object per line. In `text` an entry begins at the margin, and its other lines are indented.",
    )
