"""Who may do what: origins, Host, keys, and the rules for the four kinds of routes.

`decide` is pure and is the whole rule; the rest reads requests. Credentials are compared in constant time and never
logged; a principal's identity is a short hash of its key.
"""

import hashlib
import hmac
import re
import socket
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web

from relay.config import Settings
from relay.core.policy import Principal
from relay.errors import AccessDenied

_LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\]|[a-z0-9-]+\.localhost)(:\d{1,5})?", re.I)

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
        self._proxies = [ip_network(proxy) for proxy in settings.proxies]
        own = socket.gethostname().lower()
        self._own_names = {settings.host.lower(), own, f"{own}.local"}

    def admit(self, request: web.Request, access: Access) -> Principal:
        """Let a request in or raise AccessDenied."""
        self.check_host(request)
        rules = self.rules
        if rules.trusting and not self._settings.open_access and not _is_local(host_of(request)):
            # It came through a proxy, under a name that others know: that it comes from this machine says nothing.
            rules = replace(rules, trusting=not self._settings.api_keys and access is not Access.ADMIN)
        return decide(access, self.caller(request), rules)

    def check_host(self, request: web.Request) -> None:
        """On a loopback bind, a page elsewhere must not reach us under a name of its own (DNS rebinding)."""
        if not self._settings.is_loopback:
            return
        host = host_of(request)
        if _is_local(host) or host in self._hosts:
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

    def address(self, request: web.Request) -> str:
        """Where the request comes from: behind one of RELAY_PROXIES, the last hop that is none of them."""
        hops = [hop.strip() for hop in request.headers.get("X-Forwarded-For", "").split(",") if hop.strip()]
        address = request.remote or ""
        while hops and self._is_proxy(address):
            address = hops.pop()
        return address

    def _is_proxy(self, address: str) -> bool:
        return _is_address(address) and any(ip_address(address) in network for network in self._proxies)

    def origin(self, request: web.Request) -> Origin:
        """How the page that sent the request, if one did, stands to this relay."""
        value = request.headers.get("Origin")
        if value is None:
            return "none"
        allowed = self._settings.allowed_origins
        if "*" in allowed or value.lower() in allowed:
            return "allowed"
        if self._settings.is_loopback and _LOCAL_ORIGIN.fullmatch(value) is not None:
            return "allowed"
        return "allowed" if self._is_own_page(value, request) else "foreign"

    def _is_own_page(self, origin: str, request: web.Request) -> bool:
        """Whether a page that this relay served sent the request.

        Where no key is asked for, the name must be ours as well: else a foreign one could be made to lead here (DNS
        rebinding), and would be in its own Host header.
        """
        if origin.lower().partition("://")[2] != request.headers.get("Host", "").lower():
            return False
        if not (self.rules.trusting or self.rules.browser_by_origin):
            return True
        host = host_of(request)
        return _is_address(host) or _is_local(host) or host in self._own_names or host in self._hosts

    def _credential(self, request: web.Request) -> tuple[Credential, str]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        shown = token.strip() if scheme.lower() == "bearer" else request.headers.get("api-key", "").strip()
        if not shown:
            return "none", "anonymous"
        identity = "key-" + hashlib.sha256(_raw(shown)).hexdigest()[:12]
        if _is_one_of(shown, self._settings.admin_keys):
            return "admin", identity
        if _is_one_of(shown, self._settings.api_keys):
            return "valid", identity
        if not self._settings.api_keys and self.rules.trusting:
            return "none", "anonymous"  # SDKs insist on sending some key; where none is asked for, none is checked
        return "invalid", "anonymous"


def host_of(request: web.Request) -> str:
    """The name in the Host header, without its port; empty if it is none."""
    try:
        return urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost") or (_is_address(host) and ip_address(host).is_loopback)


def _is_one_of(shown: str, keys: tuple[str, ...]) -> bool:
    # All are compared, so that the time tells nothing about which one is near.
    return sum(hmac.compare_digest(_raw(shown), key.encode()) for key in keys) > 0


def _raw(header: str) -> bytes:
    return header.encode("utf-8", "surrogateescape")  # what aiohttp could not decode, as it came
