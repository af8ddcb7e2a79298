"""Authenticates requests: reads credential, origin and address, then asks `relay.auth.access`.

    request ──► `Caller` ──► `authorize`: the access table ──► scope of the policy ──► `Principal`

A `Caller` holds the verified credential, the origin and the host. The user who owns the peer's socket is looked up only
if it matters. Every refusal is an `AccessDenied` with its status. `use_keys_and_policies` replaces keys and policies
together: running sessions keep their policy, and sessions of revoked keys end.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from aiohttp import web

from relay.auth.access import Access, AccessRules, Caller, CredentialKind, OriginKind, authorize, require_scope
from relay.auth.client_secrets import ClientSecretIssuer, is_client_secret
from relay.auth.keyring import ANONYMOUS, Keyring, base_identity, key_identity
from relay.auth.local_peer import LocalPeerChecker
from relay.auth.origins import ClientAddressResolver, HostOriginClassifier
from relay.config.policy_file import Policies
from relay.errors import AccessDenied
from relay.loopback import is_loopback_host
from relay.session.common.policy import Principal
from relay.session.common.rate_limit import address_key

if TYPE_CHECKING:
    from relay.auth.admin_login import AdminLogins
    from relay.config.settings import Settings

SUBPROTOCOLS = ("realtime", "relay")
"""Subprotocols that the relay selects; those below carry a credential and are never echoed."""
_KEY_SUBPROTOCOL_PREFIXES = ("openai-insecure-api-key.", "relay-ticket.")
FORWARDING_HEADERS = ("Forwarded", "X-Real-IP", "Via")
_FORWARDED_PREFIX = "x-forwarded-"


class Authenticator:
    """Authenticates the requests of one relay. `use_keys_and_policies` replaces all keys and policies at once."""

    def __init__(
        self,
        settings: "Settings",
        policies: Policies | None = None,
        client_secrets: ClientSecretIssuer | None = None,
        logins: "AdminLogins | None" = None,
    ) -> None:
        self.client_secrets = client_secrets or ClientSecretIssuer()
        server, access = settings.server, settings.access
        self._hosts_and_origins = HostOriginClassifier(
            server.host, access.hosts, access.allowed_origins, is_loopback=server.is_loopback
        )
        self._addresses = ClientAddressResolver(access.proxies)
        self._logins = logins
        self.local_peers = LocalPeerChecker.detect()
        self.rules = AccessRules(
            is_loopback=server.is_loopback,
            is_open=access.open,
            trusts_allowed_origins=access.browser_access == "origin",
            trusts_local=access.trusts_local,
        )
        self.use_keys_and_policies(settings, policies or Policies())

    def use_keys_and_policies(self, settings: "Settings", policies: Policies) -> None:
        """Replace keys and policies; the other access settings keep their values from the start.

        A half-written `.env` may lack RELAY_LOCAL=off, and the listener cannot change its address.
        """
        self.keys = Keyring(settings.access.api_keys, settings.access.admin_keys)
        self.policies = policies
        self._name_of = settings.name_of
        self.client_secrets.set_keys(settings.access.ticket_keys)
        self.rules = replace(self.rules, has_keys=bool(settings.access.api_keys))

    async def authenticate(self, request: web.Request, access: Access, scope: str | None = None) -> Principal:
        """Authorize a request, or raise AccessDenied. `scope` is the scope that the route requires of the policy."""
        caller = self._admin_caller(request) if access is Access.ADMIN else None
        caller = caller or self.read_caller(request, access)
        if self._may_be_local(request, access, caller):
            caller = replace(caller, is_local=await self.local_peers.is_local(request.transport))
        principal = authorize(access, caller, self.rules)
        if access is not Access.OPEN:
            require_scope(principal, scope)
        return principal

    def read_caller(self, request: web.Request, access: Access = Access.CLIENT) -> Caller:
        """Read the caller of a request. Raises AccessDenied for an invalid client secret."""
        origin, host = self._hosts_and_origins.classify_origin(request), self._hosts_and_origins.classify_host(request)
        if access is Access.OPEN:
            return Caller(origin, host=host, policy=self.policies.for_identity(""))
        presented, place = _presented_credential(request)
        if is_client_secret(presented) and place != "elsewhere":
            return self._client_secret_caller(presented, origin, place == "url")
        credential: CredentialKind = "none"
        if presented:  # logs and histories contain URLs, so a key in a URL is not accepted
            credential = self.keys.classify(presented) if place == "header" else "unknown"
        identity = key_identity(presented) if credential in ("key", "admin") else ANONYMOUS
        return Caller(origin, credential, identity, self.policies.for_identity(identity), host)

    def client_address(self, request: web.Request) -> str:
        """Return the client's address, behind the proxies of RELAY_PROXIES."""
        return self._addresses.resolve(request)

    def is_shared_address(self, address: str) -> bool:
        """Whether many clients may share an address: it is a loopback address, or in RELAY_PROXIES.

        A Unix socket has the address "".
        """
        return not address or is_loopback_host(address) or self._addresses.is_proxy(address)

    def quota_key(self, request: web.Request, principal: Principal) -> str:
        """Return the key of a caller's quotas: the identity of its API key, else its address.

        Client secrets share the quota of the API key that created them.
        """
        identity = base_identity(principal.identity)
        return address_key(self.client_address(request)) if identity == ANONYMOUS else identity

    def classify_origin(self, request: web.Request) -> OriginKind:
        """Classify the Origin header of a request."""
        return self._hosts_and_origins.classify_origin(request)

    def has_revoked(self, principal: Principal) -> bool:
        """Whether the key of a principal was revoked."""
        return self.keys.has_revoked(principal.identity)

    def describe(self) -> str:
        """Return the access rules for the start-up log."""
        parts = [pluralize(len(self.keys.api_keys), "key"), pluralize(len(self.keys.admin_keys), "admin key")]
        if self.rules.trusts_allowed_origins:
            parts.insert(0, "allowed origins need no key")
        if self.rules.is_open:
            parts.insert(0, "RELAY_OPEN: no client needs a key")
        elif self.rules.is_loopback and self.rules.trusts_local:
            parts.insert(0, self._describe_local())
        return " · ".join(parts)

    def warnings(self) -> list[str]:
        """Return warnings about policies for unknown keys."""
        unknown = self.policies.by_identity.keys() - self.keys.identities
        paths = ("access.policies", "access.api_keys", "access.admin_keys")
        file, api_keys, admin_keys = map(self._name_of, paths)
        return [
            f"{file}: policy {self.policies.by_identity[identity]} lists {identity}, but no key of {api_keys} or "
            f"{admin_keys} has this identity"
            for identity in sorted(unknown)
        ]

    def _describe_local(self) -> str:
        if self.local_peers.lookup is None:
            programs = "programs of every user (this system cannot look up the owner of a connection)"
        else:
            programs = "programs of this user"
        proxies = ", but for connections from RELAY_PROXIES" if self._addresses.has_proxies else ""
        return f"{programs} on this machine need no key{proxies}"

    def _client_secret_caller(self, text: str, origin: OriginKind, in_url: bool) -> Caller:
        secret = self.client_secrets.verify(text, in_url=in_url)
        policy = self.policies.get(secret.policy)
        if policy is None:
            raise AccessDenied(
                f"The client secret's policy {secret.policy!r:.80} no longer exists; get a new one.", 401
            )
        if self.keys.has_revoked(secret.identity):
            raise AccessDenied("The client secret's key was revoked; get a new one.", status=401)
        if not self.policies.for_identity(base_identity(secret.identity)).allows_minting(policy.name):
            raise AccessDenied(f"The client secret's key may no longer mint policy {policy.name!r:.80}.", status=401)
        return Caller(
            origin, "client_secret", secret.identity, policy, secret_id=secret.id, secret_scopes=secret.scopes
        )

    def _admin_caller(self, request: web.Request) -> Caller | None:
        identity = self._logins.signed_in_identity(request, self.keys) if self._logins is not None else None
        if identity is None:
            return None
        return Caller(
            self._hosts_and_origins.classify_origin(request), "admin", identity, self.policies.for_identity(identity)
        )

    def _may_be_local(self, request: web.Request, access: Access, caller: Caller) -> bool:
        rules = self.rules
        if access is not Access.CLIENT or not (rules.is_loopback and rules.trusts_local) or rules.is_open:
            return False
        if caller.credential not in ("none", "unknown"):
            return False
        return not (is_forwarded(request) or self._addresses.is_proxy(request.remote or ""))


def pluralize(n: int, noun: str) -> str:
    """Return a number and its noun, for a log line."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def is_forwarded(request: web.Request) -> bool:
    """Whether a header says that a proxy forwarded the request."""
    headers = request.headers
    return any(name in headers for name in FORWARDING_HEADERS) or any(
        name.lower().startswith(_FORWARDED_PREFIX) for name in headers
    )


def offered_subprotocols(request: web.Request) -> list[str]:
    """Return the WebSocket subprotocols that a request offers, in order."""
    lines = request.headers.getall("Sec-WebSocket-Protocol", [])
    return [offer.strip() for line in lines for offer in line.split(",") if offer.strip()]


def select_subprotocol(request: web.Request) -> str | None:
    """Return the subprotocol to select; browsers fail the connection if none of their offers is selected."""
    return next((offer for offer in offered_subprotocols(request) if offer in SUBPROTOCOLS), None)


CredentialLocation = Literal["header", "url", "elsewhere"]


def _presented_credential(request: web.Request) -> tuple[str, CredentialLocation]:
    """Return the credential and its location: in a URL only a client secret is valid, elsewhere none.

    Sources are `Authorization: Bearer`, `api-key`, a subprotocol (browsers) and `?ticket=`. An `Authorization` of
    another scheme comes last: a proxy with its own login may send one besides the client's key.
    """
    authorization = request.headers.get("Authorization", "").strip()
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip(), "header"
    api_key = request.headers.get("api-key", "").strip()
    if api_key:
        return api_key, "header"
    for offer in offered_subprotocols(request):
        for prefix in _KEY_SUBPROTOCOL_PREFIXES:
            if offer.startswith(prefix):
                return offer.removeprefix(prefix), "header"
    in_url = request.query.get("ticket", "").strip()
    return (in_url, "url") if in_url else (authorization, "elsewhere")
