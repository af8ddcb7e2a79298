"""The access table: which caller may use which route.

`authorize` is pure and is the whole table. Credentials are verified before, by `relay.auth.authenticator`.

| caller               | loopback bind                     | public bind                    | RELAY_OPEN         |
|----------------------|-----------------------------------|--------------------------------|--------------------|
| verified credential  | yes                               | yes                            | yes                |
| unknown credential   | as none if there are no keys      | 401                            | as none            |
| none, no Origin      | if local, Host names this machine | 401                            | if Host is allowed |
| none, allowed Origin | the same                          | 401; RELAY_BROWSER_ACCESS=     | yes; origins of    |
|                      |                                   | origin: if Host is allowed     | apps as well       |
| none, other Origin   | 403                               | 403                            | 403                |

An admin route takes an admin key or an admin's login, whatever the settings.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from relay.errors import AccessDenied
from relay.session.common.policy import CLIENT_SECRET_SCOPES, DEFAULT_SCOPES, MINT, MINT_ANY, SCOPES, Policy, Principal

OriginKind = Literal["none", "allowed", "app", "foreign"]
"""`app`: not listed, with a scheme that web pages do not have, such as capacitor://; `foreign`: any other one."""
CredentialKind = Literal["none", "key", "client_secret", "admin", "unknown"]
HostKind = Literal["machine", "allowed", "foreign"]
"""What the Host header names: this machine, a name that the settings list, or neither."""

ADMIN_SCOPE = "admin"


class Access(Enum):
    """What a route asks of its caller."""

    OPEN = "open"
    CLIENT = "client"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """What a request shows of its caller. `is_local` is only looked up where nothing else lets the caller in."""

    origin: OriginKind = "none"
    credential: CredentialKind = "none"
    identity: str = "anonymous"
    policy: Policy = field(default_factory=Policy)
    host: HostKind = "machine"
    is_local: bool = False
    secret_id: str | None = None
    secret_scopes: frozenset[str] = frozenset()

    @property
    def principal(self) -> Principal:
        """The caller, let in."""
        scopes = self.policy.scopes
        if self.credential == "client_secret":
            scopes &= CLIENT_SECRET_SCOPES & self.secret_scopes
        return Principal(self.identity, self.policy, scopes, self.secret_id)


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The settings that matter for access."""

    is_loopback: bool = True
    is_open: bool = False
    trusts_allowed_origins: bool = False
    has_keys: bool = False
    trusts_local: bool = True

    @property
    def ignores_unknown_credentials(self) -> bool:
        """Whether a credential that is not known counts as none. SDKs insist on sending some key."""
        return self.is_open or (self.is_loopback and not self.has_keys)


def authorize(access: Access, caller: Caller, rules: AccessRules) -> Principal:
    """Let the caller in, as a principal, or raise AccessDenied with the status and the way to get in."""
    if access is Access.OPEN:
        return caller.principal
    if access is Access.ADMIN:
        return _authorize_admin(caller)
    if caller.credential in ("key", "client_secret", "admin"):
        return caller.principal
    if caller.credential == "unknown" and not rules.ignores_unknown_credentials:
        raise AccessDenied("The key is not known to this relay (RELAY_API_KEYS).", status=401)
    if caller.origin == "foreign" or (caller.origin == "app" and not rules.is_open):
        raise AccessDenied(
            "Pages of this origin may not use this relay without a key. Add the origin to RELAY_ALLOWED_ORIGINS.",
            status=403,
        )
    is_trusted_origin = rules.trusts_allowed_origins and caller.origin == "allowed"
    is_local = rules.is_loopback and caller.is_local and caller.host != "allowed"
    if not (rules.is_open or is_trusted_origin or is_local):
        raise AccessDenied(_key_needed_text(rules), status=401)
    if caller.host == "foreign" and not (rules.is_open and caller.origin != "none"):
        text = "The Host header has none of this relay's names. Add the name to RELAY_HOSTS, or send a key."
        raise AccessDenied(text, status=403)
    return caller.principal


def _key_needed_text(rules: AccessRules) -> str:
    how = "A key is needed: send Authorization: Bearer <one of RELAY_API_KEYS>."
    if not rules.is_loopback or not rules.trusts_local:
        return how
    return f"{how} Only programs that the relay's own user runs on this machine, without a proxy, need none."


def _authorize_admin(caller: Caller) -> Principal:
    if caller.credential == "admin":
        principal = caller.principal
        return Principal(principal.identity, principal.policy, principal.scopes | {ADMIN_SCOPE})
    status = 403 if caller.credential in ("key", "client_secret") else 401
    raise AccessDenied(
        "This is for admins: sign in at /login, or send Authorization: Bearer <one of RELAY_ADMIN_KEYS>. "
        "`relay console` prints a link that signs you in.",
        status=status,
    )


def require_scope(principal: Principal, scope: str | None) -> None:
    """Raise AccessDenied (403) unless the principal's policy has the scope that a route needs."""
    if scope is None or scope in principal.scopes or (scope == MINT and MINT_ANY in principal.scopes):
        return
    if principal.secret_id is not None and scope not in CLIENT_SECRET_SCOPES:
        raise AccessDenied(f"A client secret may not be used to {SCOPES[scope]}; use a key.", status=403)
    if principal.secret_id is not None and scope in principal.policy.scopes:
        raise AccessDenied("A single-use client secret opens one session, and nothing else.", status=403)
    setting = f"Add '{scope}' to scopes of policy '{principal.policy.name}' in RELAY_POLICIES."
    default = "" if scope in DEFAULT_SCOPES else " A policy without 'scopes' does not have it."
    raise AccessDenied(f"This caller may not {SCOPES[scope]}. {setting}{default}", status=403)
