"""The configured keys, and which one a credential is. Compared in constant time, never logged."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Keyring:
    """RELAY_API_KEYS and RELAY_ADMIN_KEYS as of one moment; a reload replaces the whole."""

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    admin_keys: tuple[str, ...] = field(default=(), repr=False)

    @property
    def identities(self) -> frozenset[str]:
        """What the keys are called."""
        return frozenset(map(key_identity, (*self.api_keys, *self.admin_keys)))

    def classify(self, credential: str) -> Literal["key", "admin", "unknown"]:
        """Which kind of key `credential` is."""
        if _matches_any(credential, self.admin_keys):
            return "admin"
        return "key" if _matches_any(credential, self.api_keys) else "unknown"

    def is_admin(self, identity: str) -> bool:
        """Whether an identity is that of an admin key."""
        return identity in map(key_identity, self.admin_keys)

    def has_revoked(self, identity: str) -> bool:
        """Whether an identity belongs to a removed key, or to a client secret that such a key made."""
        base = base_identity(identity)
        return base.startswith(_IDENTITY_PREFIX) and base not in self.identities


_IDENTITY_PREFIX = "key-"


def key_identity(key: str) -> str:
    """What a key is called in logs, records and the policy file."""
    return _IDENTITY_PREFIX + hashlib.sha256(_header_bytes(key)).hexdigest()[:12]


def base_identity(identity: str) -> str:
    """The identity that gave this one out, for the holder of a client secret (`key-…/name`); else the same."""
    return identity.partition("/")[0]


def _matches_any(credential: str, keys: Iterable[str]) -> bool:
    # All are compared, so that the time does not reveal which key matched.
    return sum(hmac.compare_digest(_header_bytes(credential), key.encode()) for key in keys) > 0


def _header_bytes(header: str) -> bytes:
    return header.encode("utf-8", "surrogateescape")  # what aiohttp could not decode, as it came
