"""Who may do what: origins, Host, keys, and the rules for the four kinds of routes.

`decide` is pure and is the whole rule; the rest reads requests. Credentials are compared in constant time and never
logged; a principal's identity is a short hash of its key.
"""

import hashlib
import hmac
import re
import socket
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web

from relay.config import Settings
from relay.core.policy import Policy, Principal
from relay.errors import AccessDenied
from relay.policies import Policies
from relay.tickets import TicketDesk, is_ticket

_LOCAL_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\]|[a-z0-9-]+\.localhost)(:\d{1,5})?", re.I)

Origin = Literal["none", "allowed", "foreign"]
Credential = Literal["none", "valid", "admin", "invalid"]

KEY_SCOPES = frozenset({"session", "mint"})
TICKET_SCOPES = frozenset({"session"})
SUBPROTOCOLS = ("realtime", "relay")
"""What is answered when a page offers it; the ones below carry a credential and are never echoed."""
_KEY_PROTOCOLS = ("openai-insecure-api-key.", "relay-ticket.")


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
    policy: Policy = field(default_factory=Policy)
    scopes: frozenset[str] = KEY_SCOPES
    ticket_id: str | None = None

    @property
    def principal(self) -> Principal:
        """The caller, let in."""
        return Principal(self.identity, self.policy, self.scopes, self.ticket_id)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that matter for access. `trusting`: a loopback bind, or RELAY_OPEN."""

    trusting: bool
    browser_by_origin: bool = False


def decide(access: Access, caller: Caller, rules: Rules) -> Principal:
    """Let the caller in, as a principal, or raise AccessDenied with the status and the way to get in."""
    if access is Access.OPEN:
        return caller.principal
    if caller.origin == "foreign":
        raise AccessDenied(
            "Pages of this origin may not use this relay. Add the origin to RELAY_ALLOWED_ORIGINS.", status=403
        )
    if caller.credential == "invalid":
        raise AccessDenied("The key is not known to this relay.", status=401)
    if access is Access.ADMIN:
        return _decide_admin(caller, rules)
    if caller.credential in ("valid", "admin") or rules.trusting:
        return caller.principal
    if access is Access.BROWSER and caller.origin == "allowed" and rules.browser_by_origin:
        return caller.principal
    raise AccessDenied("A key is needed: send Authorization: Bearer <one of RELAY_API_KEYS>.", status=401)


def _decide_admin(caller: Caller, rules: Rules) -> Principal:
    if caller.credential == "admin" or (rules.trusting and caller.from_loopback):
        return replace(caller.principal, scopes=caller.scopes | {"admin"})
    status = 403 if caller.credential == "valid" else 401
    raise AccessDenied("An admin key is needed: send Authorization: Bearer <one of RELAY_ADMIN_KEYS>.", status=status)


class Gate:
    """Reads requests by the settings: who calls, from where, with what."""

    def __init__(self, settings: Settings, policies: Policies | None = None, tickets: TicketDesk | None = None) -> None:
        self._settings = settings
        self._policies = policies or Policies()
        self._tickets = tickets or TicketDesk()
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
        """What the request shows of its caller. Raises AccessDenied for a ticket that is not good."""
        origin = self.origin(request)
        from_loopback = (request.remote or "") in ("127.0.0.1", "::1")
        shown = _shown_credential(request)
        in_url = not shown and is_ticket(request.query.get("ticket", ""))
        if in_url or is_ticket(shown):
            if origin == "foreign":  # refused for that, whatever the ticket: it must not be used up
                return Caller(origin, "invalid")
            return self._ticket_holder(request.query["ticket"] if in_url else shown, origin, from_loopback, in_url)
        credential, identity = self._credential(shown)
        policy = self._policies.of(identity)
        return Caller(origin, credential, identity, from_loopback, policy)

    def _ticket_holder(self, shown: str, origin: Origin, from_loopback: bool, in_url: bool) -> Caller:
        ticket = self._tickets.read(shown, in_url=in_url)
        policy = self._policies.get(ticket.policy)
        if policy is None:
            raise AccessDenied(f"The ticket's policy {ticket.policy!r:.80} is gone; get a new one.", status=401)
        return Caller(origin, "valid", ticket.identity, from_loopback, policy, TICKET_SCOPES, ticket.id)

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

    def _credential(self, shown: str) -> tuple[Credential, str]:
        if not shown:
            return "none", "anonymous"
        identity = identity_of(shown)
        if _is_one_of(shown, self._settings.admin_keys):
            return "admin", identity
        if _is_one_of(shown, self._settings.api_keys):
            return "valid", identity
        if not self._settings.api_keys and self.rules.trusting:
            return "none", "anonymous"  # SDKs insist on sending some key; where none is asked for, none is checked
        return "invalid", "anonymous"


def identity_of(key: str) -> str:
    """What a key is called in logs, records and the policy file."""
    return "key-" + hashlib.sha256(_raw(key)).hexdigest()[:12]


def offered_subprotocols(request: web.Request) -> list[str]:
    """The WebSocket subprotocols that a request offers, in its order."""
    lines = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [offer.strip() for line in lines for offer in line.split(",") if offer.strip()]


def chosen_subprotocol(request: web.Request) -> str | None:
    """The subprotocol to answer with: browsers break off if none of their offers is taken."""
    return next((offer for offer in offered_subprotocols(request) if offer in SUBPROTOCOLS), None)


def _shown_credential(request: web.Request) -> str:
    """A key or ticket: in `Authorization`, `api-key`, or, from pages, in a subprotocol."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    shown = request.headers.get("api-key", "").strip()
    if shown:
        return shown
    offers = offered_subprotocols(request)
    return next(
        (offer[len(head) :] for offer in offers for head in _KEY_PROTOCOLS if offer.startswith(head)),
        "",
    )


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
