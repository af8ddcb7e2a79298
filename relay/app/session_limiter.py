"""Who gets a session, and how often one caller may buy what costs money at a provider.

Sessions are bounded in all and from one address, and so is how fast new ones may be asked for. An address of this
machine stands for many clients (a proxy, a test), so that the limits for one address leave it alone unless they were
set on purpose. IPv6 addresses count by their /64, which is what one customer gets.

Secrets and speech are counted for the identity of the caller's key, else for its address; RELAY_PROXIES says which
addresses are those of proxies. So one key cannot use up what another one may buy, though both come from one address.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from relay.app.file_descriptors import Descriptors
from relay.config.settings import Settings
from relay.errors import Full, TooOften
from relay.loopback import is_loopback_host
from relay.session.common.rate_limit import KeyedRateLimiter, RateLimit, address_key, take_all_or_none

DEFAULT_SESSIONS_PER_ADDRESS = 50
DEFAULT_HANDSHAKES_PER_MINUTE = 120
HANDSHAKES_PER_SECOND = 200
REQUESTS_OF_ONE = 128
REQUESTS_IN_ALL = 256
"""Requests that are being answered at the same time: each takes a descriptor, and perhaps a tool."""
_ALL = ""
DEFAULT_MINTS_PER_MINUTE = 30
DEFAULT_SPEECH_PER_MINUTE = 120
Purchase = Literal["mint", "speech"]
_NAMES: dict[Purchase, tuple[str, str]] = {
    "mint": ("secrets", "RELAY_MINTS_PER_MINUTE"),
    "speech": ("speech requests", "RELAY_SPEECH_PER_MINUTE"),
}


class _Turns:
    """One each time around the loop, so that the sessions that talk come in between."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait for one's turn. There must be a bound of those who may."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._next)
        await turn

    def _next(self) -> None:
        turn = self._waiting.popleft()
        if not turn.done():  # who was cancelled does not wait any more
            turn.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)


class Admission:
    """Counts the sessions of one relay, and the attempts to get one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        per_minute = settings.limits.max_handshakes_per_minute
        self._rate = per_minute if per_minute is not None else DEFAULT_HANDSHAKES_PER_MINUTE
        self._from_one = KeyedRateLimiter(RateLimit(self._rate, max(self._rate, 1)))
        in_all = HANDSHAKES_PER_SECOND * 60
        self._in_all = KeyedRateLimiter(RateLimit(in_all, max(settings.limits.max_sessions, in_all // 60)))
        self._sessions: Counter[str] = Counter()
        self._descriptors = Descriptors(None)
        self._requests: Counter[str] = Counter()
        self._session_turns, self._request_turns = _Turns(), _Turns()

    def fit(self, descriptors: Descriptors) -> None:
        """From here on there are no more sessions than fit into the descriptors of this process."""
        self._descriptors = descriptors

    def warnings(self) -> list[str]:
        """What the start should say: that RELAY_MAX_SESSIONS does not fit."""
        return self._descriptors.warnings(self._settings.limits.max_sessions)

    def knock(self, address: str) -> None:
        """Count an attempt to connect, whatever becomes of it. Raises TooOften with the time to wait.

        An address over its own limit takes nothing from the limit that all addresses share.
        """
        now = asyncio.get_running_loop().time()
        wanted = [(self._in_all, _ALL)]
        if self._settings.limits.max_handshakes_per_minute is not None or not is_loopback_host(address):
            wanted.append((self._from_one, address_key(address)))
        wait_s = take_all_or_none(wanted, now)
        if wait_s:
            raise TooOften(
                f"Too many connections are being opened (RELAY_MAX_HANDSHAKES_PER_MINUTE); wait {math.ceil(wait_s)} s.",
                wait_s,
            )

    async def turn(self) -> None:
        """Wait for one's turn to begin a session; to be awaited by who holds a place."""
        await self._session_turns.wait()

    async def request_turn(self) -> None:
        """Wait for one's turn to begin to answer a request."""
        await self._request_turns.wait()

    @contextmanager
    def request(self, owner: str) -> Iterator[None]:
        """Count a request that is being answered. Raises TooOften where its owner, or all, have too many."""
        if self._requests[owner] >= REQUESTS_OF_ONE or self._requests.total() >= REQUESTS_IN_ALL:
            raise TooOften(
                f"Too many requests are being answered: at most {REQUESTS_OF_ONE} of one caller, and {REQUESTS_IN_ALL} "
                "in all. Wait for their answers.",
                1.0,
            )
        self._requests[owner] += 1
        try:
            yield
        finally:
            self._requests[owner] -= 1
            if not self._requests[owner]:
                del self._requests[owner]

    @contextmanager
    def session(self, address: str) -> Iterator[None]:
        """Hold a place for as long as a session lasts. Raises Full when there is none."""
        group = address_key(address)
        most_from_one = self._settings.limits.max_sessions_per_address
        if most_from_one is None and not is_loopback_host(address):
            most_from_one = DEFAULT_SESSIONS_PER_ADDRESS
        if most_from_one and self._sessions[group] >= most_from_one:
            raise Full(
                f"This address has {most_from_one} sessions already (RELAY_MAX_SESSIONS_PER_ADDRESS); end one of them."
            )
        self._check_places()
        self._sessions[group] += 1
        try:
            yield
        finally:
            self._sessions[group] -= 1
            if not self._sessions[group]:
                del self._sessions[group]

    def _check_places(self) -> None:
        n_sessions, most, fitting = (
            self._sessions.total(),
            self._settings.limits.max_sessions,
            self._descriptors.sessions,
        )
        if fitting is not None and fitting < most and n_sessions >= fitting:
            raise Full(
                f"All {fitting} sessions are taken that fit into the {self._descriptors.limit} files and sockets that "
                "the relay may open (ulimit -n, LimitNOFILE=); try again later."
            )
        if n_sessions >= most:
            raise Full(f"All {most} sessions are taken (RELAY_MAX_SESSIONS); try again later.")


class Spending:
    """Counts what callers buy; 0 per minute means without limit."""

    def __init__(
        self, mints_per_minute: int = DEFAULT_MINTS_PER_MINUTE, speech_per_minute: int = DEFAULT_SPEECH_PER_MINUTE
    ) -> None:
        self._limits: dict[Purchase, int] = {"mint": mints_per_minute, "speech": speech_per_minute}
        self._identities = {what: _buckets(limit) for what, limit in self._limits.items()}
        self._addresses = {what: _buckets(limit) for what, limit in self._limits.items()}

    def buy(self, what: Purchase, identity: str, address: str | None, now: float) -> None:
        """Count one purchase. Raises TooOften, and counts nothing, when the caller is over."""
        if identity == "anonymous":  # whom all callers without a key would share, and could take from each other
            wait_s = self._addresses[what].take(address_key(address), now)
        else:
            wait_s = self._identities[what].take(identity, now)
        if wait_s > 0:
            noun, setting = _NAMES[what]
            raise TooOften(
                f"Too many {noun}: at most {self._limits[what]} a minute for one caller ({setting}). "
                f"Try again in {math.ceil(wait_s)} s.",
                retry_after_s=wait_s,
            )


def _buckets(per_minute: int) -> KeyedRateLimiter:
    return KeyedRateLimiter(RateLimit(per_minute, burst=max(per_minute, 1)))
