"""Client secrets: short-lived credentials that the relay signs, for browsers and others that must not have a key.

    ek_relay_<JSON Web Token, HS256>

The claims are policy, identity, scopes and times; the holder of a secret can read them. Keys come from
RELAY_TICKET_KEYS: the first one signs and all of them verify, so that keys can be rotated. Without any, each start
generates a key. The session configuration of a secret and the state of a single-use one stay in the process that issued
it: such a secret names that process, and no other one accepts it.
"""

import hashlib
import heapq
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
from jwt.utils import base64url_decode, base64url_encode

from relay.auth.keyring import base_identity
from relay.errors import AccessDenied, RateLimited
from relay.session.common.policy import CLIENT_SECRET_SCOPES, Policy

SECRET_PREFIX = "ek_relay_"
AUDIENCE = "relay-client"
ALGORITHM = "HS256"
MIN_TTL_S, DEFAULT_TTL_S, MAX_TTL_S = 10, 600, 7200
MAX_URL_TTL_S = 60
"""The longest lifetime of a secret in a URL, where logs and histories record it."""
MAX_SECRET_CHARS = 4096
MAX_SESSION_BYTES = 64 * 1024
DEFAULT_MINTED_BYTES = 16 * 1024 * 1024
_ENTRY_BYTES = 1024
"""The assumed size of a stored secret besides its session."""
_REQUIRED_CLAIMS = ["aud", "exp", "iat", "jti", "sub", "pol", "scp"]


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """The claims of a valid secret; times are in seconds since 1970."""

    id: str
    identity: str
    policy: str
    scopes: frozenset[str]
    issued_at: int
    expires_at: int
    single_use: bool


@dataclass(slots=True)
class _StoredSecret:
    """The state of a secret that the process keeps until the secret expires."""

    minter: str
    n_bytes: int
    session: bytes | None
    is_single_use: bool
    is_used: bool = False
    """A session uses or used it."""


class ClientSecretIssuer:
    """Mints and verifies client secrets.

    Secrets that configure a session or are single-use take memory until they expire: at most `minted_bytes` for each
    minting key, with 1 KiB per secret besides its session. Beyond that, this key is refused (429).
    """

    def __init__(
        self,
        keys: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
        *,
        minted_bytes: int = DEFAULT_MINTED_BYTES,
    ) -> None:
        self.process_id = secrets.token_hex(8)
        self._clock = clock
        self._minted_bytes = minted_bytes
        self._process_key = secrets.token_hex(32)
        self._stored: dict[str, _StoredSecret] = {}
        self._expiries: list[tuple[int, str]] = []
        self._bytes_by_minter: Counter[str] = Counter()
        self.set_keys(keys)

    def set_keys(self, keys: Sequence[str]) -> None:
        """Replace the keys that sign and verify."""
        self._keys = {key_id(key): signing_key("client secret", key) for key in keys or (self._process_key,)}

    def mint(
        self,
        identity: str,
        policy: Policy,
        ttl_s: int = DEFAULT_TTL_S,
        *,
        session: Mapping[str, Any] | None = None,
        single_use: bool = False,
    ) -> tuple[str, ClientSecret]:
        """Create a secret; returns its text and its claims. Raises RateLimited if its minter has too many secrets."""
        now = int(self._clock())
        scopes = (frozenset({"session"}) if single_use else CLIENT_SECRET_SCOPES) & policy.scopes
        secret = ClientSecret(secrets.token_hex(8), identity, policy.name, scopes, now, now + ttl_s, single_use)
        claims: dict[str, Any] = {
            "aud": AUDIENCE,
            "jti": secret.id,
            "sub": identity,
            "pol": policy.name,
            "scp": sorted(scopes),
            "iat": now,
            "exp": secret.expires_at,
        }
        if session or single_use:
            claims |= {"pid": self.process_id, "once": single_use}
            self._store(secret, orjson.dumps(session) if session else None)
        kid, key = next(iter(self._keys.items()))
        return SECRET_PREFIX + jwt.encode(claims, key, ALGORITHM, headers={"kid": kid}), secret

    def verify(self, text: str, *, in_url: bool = False) -> ClientSecret:
        """Verify a secret and return its claims. Raises AccessDenied (401) if it is invalid, expired or used."""
        claims = self._verify_token(text)
        secret = ClientSecret(
            claims["jti"],
            claims["sub"],
            claims["pol"],
            frozenset(claims["scp"]),
            claims["iat"],
            claims["exp"],
            claims.get("once", False),
        )
        if self._clock() >= secret.expires_at:
            raise _denied("The client secret has expired; get a new one.")
        entry = self._stored.get(secret.id)
        if "pid" in claims and (claims["pid"] != self.process_id or entry is None):
            raise _denied(
                "The client secret is single-use or configures a session, and was issued by another relay process or "
                "before a restart; get a new one."
            )
        if in_url and not (secret.single_use and secret.expires_at - secret.issued_at <= MAX_URL_TTL_S):
            raise _denied(f"In a URL a client secret must be single-use and live at most {MAX_URL_TTL_S} seconds.")
        if secret.single_use and entry is not None and entry.is_used:
            raise _already_used()
        return secret

    def session_config_for(self, secret_id: str | None) -> Mapping[str, Any] | None:
        """Return the session that a secret configures, if any."""
        entry = self._stored.get(secret_id or "")
        return orjson.loads(entry.session) if entry is not None and entry.session is not None else None

    @contextmanager
    def reserve(self, secret_id: str | None) -> Iterator[Callable[[], None]]:
        """Reserve a single-use secret while a session starts; yields a callback that consumes the secret.

        Without a call of it, the secret is valid again afterwards. Raises AccessDenied if the secret is reserved or
        consumed already.
        """
        entry = self._stored.get(secret_id or "")
        if entry is None or not entry.is_single_use:
            yield lambda: None
            return
        if entry.is_used:
            raise _already_used()
        entry.is_used, consumed = True, []
        try:
            yield lambda: consumed.append(True)
        finally:
            entry.is_used = bool(consumed)

    def _verify_token(self, text: str) -> dict[str, Any]:
        if len(text) > MAX_SECRET_CHARS or not text.isascii():
            raise _denied("This is not a client secret of this relay.")
        token = text.removeprefix(SECRET_PREFIX)
        try:
            key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                raise _denied(
                    "The client secret was not issued by this relay, or its signing key is gone; get a new one. Set "
                    "RELAY_TICKET_KEYS to keep client secrets valid across restarts."
                )
            # Times are checked against our own clock, which tests can set.
            options: Any = {"require": _REQUIRED_CLAIMS, "verify_exp": False, "verify_iat": False}
            claims: dict[str, Any] = jwt.decode(token, key, [ALGORITHM], audience=AUDIENCE, options=options)
        except jwt.InvalidTokenError:
            raise _denied("The client secret is invalid; get a new one.") from None
        if not _is_canonical(token.rpartition(".")[2]):
            raise _denied("The client secret is invalid; get a new one.")
        return claims

    def _store(self, secret: ClientSecret, session: bytes | None) -> None:
        self._forget_expired(secret.issued_at)
        minter, n_bytes = base_identity(secret.identity), _ENTRY_BYTES + len(session or b"")
        if self._bytes_by_minter[minter] + n_bytes > self._minted_bytes:
            left_s = max(1, self._expiries[0][0] - secret.issued_at) if self._expiries else 1
            raise RateLimited(
                f"The client secrets of this key use {self._minted_bytes // 1024} KiB already (RELAY_MINTED_MAX_MB); "
                "wait until some expire, or create them without a session and not single-use.",
                retry_after_s=left_s,
            )
        self._bytes_by_minter[minter] += n_bytes
        self._stored[secret.id] = _StoredSecret(minter, n_bytes, session, secret.single_use)
        heapq.heappush(self._expiries, (secret.expires_at, secret.id))

    def _forget_expired(self, now: int) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            entry = self._stored.pop(heapq.heappop(self._expiries)[1])
            self._bytes_by_minter[entry.minter] -= entry.n_bytes
            if not self._bytes_by_minter[entry.minter]:
                del self._bytes_by_minter[entry.minter]


def is_client_secret(text: str) -> bool:
    """Whether a credential has the form of our client secrets."""
    return text.startswith(SECRET_PREFIX)


def key_id(key: str) -> str:
    """Return the key id (`kid`) of a signing key."""
    return hashlib.sha256(b"relay key id " + key.encode()).hexdigest()[:8]


def signing_key(purpose: str, key: str) -> bytes:
    """Derive the 32-byte signing key for one purpose, so that tokens for another purpose never verify."""
    return hashlib.sha256(f"relay {purpose} ".encode() + key.encode()).digest()


def _is_canonical(signature: str) -> bool:
    """Whether a signature has the canonical base64 form: two bits of it are unused."""
    return base64url_encode(base64url_decode(signature)).decode() == signature


def _denied(message: str) -> AccessDenied:
    return AccessDenied(message, status=401)


def _already_used() -> AccessDenied:
    return _denied("The client secret is already used; get a new one.")
