"""The configured keys. Compared in constant time, never logged."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Keyring:
    """The values of RELAY_API_KEYS and RELAY_ADMIN_KEYS; a reload replaces the whole keyring."""

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    admin_keys: tuple[str, ...] = field(default=(), repr=False)

    @property
    def identities(self) -> frozenset[str]:
        """The identities of all keys."""
        return frozenset(map(key_identity, (*self.api_keys, *self.admin_keys)))

    def classify(self, credential: str) -> Literal["key", "admin", "unknown"]:
        """Return the kind of key that `credential` is."""
        if _matches_any(credential, self.admin_keys):
            return "admin"
        return "key" if _matches_any(credential, self.api_keys) else "unknown"

    def is_admin(self, identity: str) -> bool:
        """Whether an identity belongs to an admin key."""
        return identity in map(key_identity, self.admin_keys)

    def has_revoked(self, identity: str) -> bool:
        """Whether an identity belongs to a removed key, or to a client secret of such a key."""
        base = base_identity(identity)
        return base.startswith(_IDENTITY_PREFIX) and base not in self.identities


_IDENTITY_PREFIX = "key-"


def key_identity(key: str) -> str:
    """Return the name of a key in logs, recordings and the policy file."""
    return _IDENTITY_PREFIX + hashlib.sha256(_header_bytes(key)).hexdigest()[:12]


def base_identity(identity: str) -> str:
    """Return the issuing key's identity for a client secret (`key-…/name`); else the identity itself."""
    return identity.partition("/")[0]


def _matches_any(credential: str, keys: Iterable[str]) -> bool:
    # Compares with all keys, so that the time does not reveal which one matched.
    return sum(hmac.compare_digest(_header_bytes(credential), key.encode()) for key in keys) > 0


def _header_bytes(header: str) -> bytes:
    return header.encode("utf-8", "surrogateescape")  # restores the bytes that aiohttp could not decode
