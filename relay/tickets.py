"""Tickets: short-lived credentials that the relay signs itself, for browsers and whoever must not hold a key.

    ek_relay_<key id, 8><signature, 43><claims, base64url JSON>

The claims are version, number, identity, policy, times and whether it works once only; whoever holds a ticket can read
them and change none. Keys come from `RELAY_TICKET_KEYS`, the first one signs and all verify, so that they can be
exchanged without a gap; without any, each start makes its own. What a ticket is to configure stays in this process.
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from relay.errors import AccessDenied, Full

PREFIX = "ek_relay_"
VERSION = 1
MIN_SECONDS, DEFAULT_SECONDS, MAX_SECONDS = 10, 600, 7200
MAX_URL_SECONDS = 60
"""How long a ticket may live that is shown in a URL, where logs and histories see it."""
MAX_TICKET_CHARS = 2048
MAX_STORED = 10_000
_KEY_ID_CHARS, _SIGNATURE_CHARS = 8, 43


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a valid ticket says; times are seconds since 1970."""

    id: str
    identity: str
    policy: str
    issued_at: int
    expires_at: int
    single_use: bool


class TicketDesk:
    """Mints and reads tickets; remembers the sessions they configure and the single-use ones that were used.

    Both memories are bounded by `MAX_STORED` and end with the tickets; one more is refused, for now.
    """

    def __init__(self, keys: Sequence[str] = (), clock: Callable[[], float] = time.time) -> None:
        self._keys = {_key_id(key): key.encode() for key in keys} or _made_up_key()
        self._clock = clock
        self._sessions: dict[str, tuple[int, Mapping[str, Any]]] = {}
        self._used: dict[str, int] = {}

    def mint(
        self,
        identity: str,
        policy: str,
        seconds: int = DEFAULT_SECONDS,
        *,
        session: Mapping[str, Any] | None = None,
        single_use: bool = False,
    ) -> tuple[str, Ticket]:
        """A new ticket, as text and as what it says. Raises Full when too many are out that configure a session."""
        now = int(self._clock())
        ticket = Ticket(secrets.token_hex(8), identity, policy, now, now + seconds, single_use)
        if session:
            _make_room(self._sessions, now, lambda entry: entry[0])
            self._sessions[ticket.id] = (ticket.expires_at, session)
        claims = {
            "v": VERSION,
            "id": ticket.id,
            "sub": identity,
            "pol": policy,
            "iat": now,
            "exp": ticket.expires_at,
            "once": single_use,
            "cfg": bool(session),
        }
        payload = _b64(orjson.dumps(claims))
        key_id, key = next(iter(self._keys.items()))
        return f"{PREFIX}{key_id}{_signature(key, key_id, payload)}{payload}", ticket

    def read(self, text: str, *, in_url: bool = False) -> Ticket:
        """What a ticket says. Raises AccessDenied (401) if it is not ours, too old, or was used up."""
        key_id, signature, payload = _split(text)
        key = self._keys.get(key_id)
        if key is None or not hmac.compare_digest(signature.encode(), _signature(key, key_id, payload).encode()):
            raise _refused("The ticket is not one of this relay's.")
        claims = orjson.loads(_unb64(payload))
        if claims["v"] != VERSION:
            raise _refused("The ticket is of another version; get a new one.")
        ticket = Ticket(claims["id"], claims["sub"], claims["pol"], claims["iat"], claims["exp"], claims["once"])
        now = int(self._clock())
        if now >= ticket.expires_at:
            raise _refused("The ticket has expired; get a new one.")
        if claims["cfg"] and ticket.id not in self._sessions:
            raise _refused("The relay was restarted since this ticket was made; get a new one.")
        if in_url and not (ticket.single_use and ticket.expires_at - ticket.issued_at <= MAX_URL_SECONDS):
            raise _refused(f"In a URL a ticket must be single-use and live at most {MAX_URL_SECONDS} seconds.")
        if ticket.single_use:
            self._use(ticket, now)
        return ticket

    def session_of(self, ticket_id: str | None) -> Mapping[str, Any] | None:
        """The session that a ticket configures, if it does."""
        found = self._sessions.get(ticket_id or "")
        return found[1] if found else None

    def _use(self, ticket: Ticket, now: int) -> None:
        if ticket.id in self._used:
            raise _refused("The ticket was used already; get a new one.")
        _make_room(self._used, now, lambda expires_at: expires_at)
        self._used[ticket.id] = ticket.expires_at


def is_ticket(text: str) -> bool:
    """Whether a credential wants to be a ticket of ours."""
    return text.startswith(PREFIX)


def _make_room(entries: dict[str, Any], now: int, expires_at: Callable[[Any], int]) -> None:
    if len(entries) >= MAX_STORED:
        for ticket_id in [one for one, entry in entries.items() if expires_at(entry) <= now]:
            del entries[ticket_id]
    if len(entries) >= MAX_STORED:
        raise Full("Too many tickets are out; try again when some have expired.")


def _split(text: str) -> tuple[str, str, str]:
    body = text.removeprefix(PREFIX)
    if not is_ticket(text) or len(text) > MAX_TICKET_CHARS or not body.isascii():
        raise _refused("That is no ticket of this relay's.")
    signature_at, payload_at = _KEY_ID_CHARS, _KEY_ID_CHARS + _SIGNATURE_CHARS
    return body[:signature_at], body[signature_at:payload_at], body[payload_at:]


def _signature(key: bytes, key_id: str, payload: str) -> str:
    return _b64(hmac.digest(key, f"relay ticket {key_id} {payload}".encode(), "sha256"))


def _key_id(key: str) -> str:
    return hashlib.sha256(b"relay ticket key " + key.encode()).hexdigest()[:_KEY_ID_CHARS]


def _made_up_key() -> dict[str, bytes]:
    key = secrets.token_hex(32)
    return {_key_id(key): key.encode()}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _refused(message: str) -> AccessDenied:
    return AccessDenied(message, status=401)
