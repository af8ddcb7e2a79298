"""Who may do what: origins, Host, keys, and the rules for the four kinds of routes.

`decide` is pure and is the whole rule; the rest reads requests. Credentials are compared in constant time and never
logged; a principal's identity is a short hash of its key.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import Enum
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web

from relay.config import Settings
from relay.core.policy import Principal
from relay.errors import AccessDenied

_LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\]|[a-z0-9-]+\.localhost)(:\d{1,5})?", re.I)
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

Origin = Literal["none", "allowed", "foreign"]
Credential = Literal["none", "valid", "admin", "invalid"]


class Access(Enum):
    """What a route asks of its caller."""

    OPEN = "open"
    BROWSER = "browser"
    CREDENTIAL = "credential"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request shows of its caller."""

    origin: Origin
    credential: Credential
    identity: str = "anonymous"
    from_loopback: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that matter for access. `trusting`: a loopback bind, or RELAY_OPEN."""

    trusting: bool
    browser_by_origin: bool = False


def decide(access: Access, caller: Caller, rules: Rules) -> Principal:
    """Let the caller in, as a principal, or raise AccessDenied with the status and the way to get in."""
    if access is Access.OPEN:
        return Principal(caller.identity)
    if caller.origin == "foreign":
        raise AccessDenied(
            "Pages of this origin may not use this relay. Add the origin to RELAY_ALLOWED_ORIGINS.", status=403
        )
    if caller.credential == "invalid":
        raise AccessDenied("The key is not known to this relay.", status=401)
    if access is Access.ADMIN:
        return _decide_admin(caller, rules)
    if caller.credential in ("valid", "admin") or rules.trusting:
        return Principal(caller.identity)
    if access is Access.BROWSER and caller.origin == "allowed" and rules.browser_by_origin:
        return Principal(caller.identity)
    raise AccessDenied("A key is needed: send Authorization: Bearer <one of RELAY_API_KEYS>.", status=401)


def _decide_admin(caller: Caller, rules: Rules) -> Principal:
    if caller.credential == "admin" or (rules.trusting and caller.from_loopback):
        return Principal(caller.identity, scopes=frozenset({"session", "admin"}))
    status = 403 if caller.credential == "valid" else 401
    raise AccessDenied("An admin key is needed: send Authorization: Bearer <one of RELAY_ADMIN_KEYS>.", status=status)


class Gate:
    """Reads requests by the settings: who calls, from where, with what."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.rules = Rules(
            trusting=settings.is_loopback or settings.open_access,
            browser_by_origin=settings.browser_access == "origin",
        )
        self._hosts = {urlsplit(origin).hostname for origin in settings.allowed_origins if origin != "*"}

    def admit(self, request: web.Request, access: Access) -> Principal:
        """Let a request in or raise AccessDenied."""
        self.check_host(request)
        return decide(access, self.caller(request), self.rules)

    def check_host(self, request: web.Request) -> None:
        """On a loopback bind, a page elsewhere must not reach us under a name of its own (DNS rebinding)."""
        if not self._settings.is_loopback:
            return
        host = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        if host in _LOCAL_HOSTS or host.endswith(".localhost") or host in self._hosts:
            return
        raise AccessDenied(
            "This relay only answers under the names of this machine, such as localhost. Behind a proxy, add its "
            "origin to RELAY_ALLOWED_ORIGINS.",
            status=403,
        )

    def caller(self, request: web.Request) -> Caller:
        """What the request shows of its caller."""
        credential, identity = self._credential(request)
        return Caller(
            origin=self.origin(request),
            credential=credential,
            identity=identity,
            from_loopback=(request.remote or "") in ("127.0.0.1", "::1"),
        )

    def origin(self, request: web.Request) -> Origin:
        """How the page that sent the request, if one did, stands to this relay."""
        value = request.headers.get("Origin")
        if value is None:
            return "none"
        allowed = self._settings.allowed_origins
        same = urlsplit(value).netloc.lower() == request.headers.get("Host", "").lower()
        local = self._settings.is_loopback and _LOCAL_ORIGIN.fullmatch(value) is not None
        return "allowed" if same or local or "*" in allowed or value in allowed else "foreign"

    def _credential(self, request: web.Request) -> tuple[Credential, str]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        shown = token.strip() if scheme.lower() == "bearer" else request.headers.get("api-key", "").strip()
        if not shown:
            return "none", "anonymous"
        identity = "key-" + hashlib.sha256(shown.encode()).hexdigest()[:12]
        if _is_one_of(shown, self._settings.admin_keys):
            return "admin", identity
        if _is_one_of(shown, self._settings.api_keys):
            return "valid", identity
        if not self._settings.api_keys and self.rules.trusting:
            return "none", "anonymous"  # SDKs insist on sending some key; where none is asked for, none is checked
        return "invalid", "anonymous"


def _is_one_of(shown: str, keys: tuple[str, ...]) -> bool:
    # All are compared, so that the time tells nothing about which one is near.
    return sum(hmac.compare_digest(shown.encode(), key.encode()) for key in keys) > 0
