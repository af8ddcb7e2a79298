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

from relay.app.file_descriptors import DescriptorBudget
from relay.config.settings import Settings
from relay.errors import CapacityExceeded, RateLimited
from relay.loopback import is_loopback_host
from relay.session.common.rate_limit import KeyedRateLimiter, RateLimit, address_key, take_all_or_none

DEFAULT_SESSIONS_PER_ADDRESS = 50
DEFAULT_HANDSHAKES_PER_MINUTE = 120
HANDSHAKES_PER_SECOND = 200
MAX_REQUESTS_PER_CLIENT = 128
MAX_REQUESTS = 256
"""Requests that are being answered at the same time: each takes a descriptor, and perhaps a tool."""
_ALL = ""
DEFAULT_MINTS_PER_MINUTE = 30
DEFAULT_SPEECH_PER_MINUTE = 120
PaidRoute = Literal["mint", "speech"]
_PAID_ROUTE_TEXTS: dict[PaidRoute, tuple[str, str]] = {
    "mint": ("secrets", "RELAY_MINTS_PER_MINUTE"),
    "speech": ("speech requests", "RELAY_SPEECH_PER_MINUTE"),
}


class _TurnQueue:
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


class SessionLimiter:
    """Counts the sessions of one relay, and the attempts to get one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        per_minute = settings.limits.max_handshakes_per_minute
        self._rate = per_minute if per_minute is not None else DEFAULT_HANDSHAKES_PER_MINUTE
        self._rate_per_address = KeyedRateLimiter(RateLimit(self._rate, max(self._rate, 1)))
        in_all = HANDSHAKES_PER_SECOND * 60
        self._total_rate = KeyedRateLimiter(RateLimit(in_all, max(settings.limits.max_sessions, in_all // 60)))
        self._sessions: Counter[str] = Counter()
        self._descriptors = DescriptorBudget(None)
        self._requests: Counter[str] = Counter()
        self._session_turns, self._request_turns = _TurnQueue(), _TurnQueue()

    def use_descriptor_budget(self, descriptors: DescriptorBudget) -> None:
        """From here on there are no more sessions than fit into the descriptors of this process."""
        self._descriptors = descriptors

    def warnings(self) -> list[str]:
        """What the start should say: that RELAY_MAX_SESSIONS does not fit."""
        return self._descriptors.warnings(self._settings.limits.max_sessions)

    def check_rate(self, address: str) -> None:
        """Count an attempt to connect, whatever becomes of it. Raises TooOften with the time to wait.

        An address over its own limit takes nothing from the limit that all addresses share.
        """
        now = asyncio.get_running_loop().time()
        takes = [(self._total_rate, _ALL)]
        if self._settings.limits.max_handshakes_per_minute is not None or not is_loopback_host(address):
            takes.append((self._rate_per_address, address_key(address)))
        wait_s = take_all_or_none(takes, now)
        if wait_s:
            raise RateLimited(
                f"Too many connections are being opened (RELAY_MAX_HANDSHAKES_PER_MINUTE); wait {math.ceil(wait_s)} s.",
                wait_s,
            )

    async def wait_session_turn(self) -> None:
        """Wait for one's turn to begin a session; to be awaited by who holds a place."""
        await self._session_turns.wait()

    async def wait_request_turn(self) -> None:
        """Wait for one's turn to begin to answer a request."""
        await self._request_turns.wait()

    @contextmanager
    def acquire_request(self, owner: str) -> Iterator[None]:
        """Count a request that is being answered. Raises TooOften where its owner, or all, have too many."""
        if self._requests[owner] >= MAX_REQUESTS_PER_CLIENT or self._requests.total() >= MAX_REQUESTS:
            raise RateLimited(
                f"Too many requests are being answered: at most {MAX_REQUESTS_PER_CLIENT} of one caller, and "
                f"{MAX_REQUESTS} in all. Wait for their answers.",
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
    def acquire_session(self, address: str) -> Iterator[None]:
        """Hold a place for as long as a session lasts. Raises Full when there is none."""
        group = address_key(address)
        max_per_address = self._settings.limits.max_sessions_per_address
        if max_per_address is None and not is_loopback_host(address):
            max_per_address = DEFAULT_SESSIONS_PER_ADDRESS
        if max_per_address and self._sessions[group] >= max_per_address:
            raise CapacityExceeded(
                f"This address has {max_per_address} sessions already (RELAY_MAX_SESSIONS_PER_ADDRESS); end one of "
                "them."
            )
        self._check_slots()
        self._sessions[group] += 1
        try:
            yield
        finally:
            self._sessions[group] -= 1
            if not self._sessions[group]:
                del self._sessions[group]

    def _check_slots(self) -> None:
        n_sessions, max_sessions, fitting = (
            self._sessions.total(),
            self._settings.limits.max_sessions,
            self._descriptors.max_sessions,
        )
        if fitting is not None and fitting < max_sessions and n_sessions >= fitting:
            raise CapacityExceeded(
                f"All {fitting} sessions are taken that fit into the {self._descriptors.limit} files and sockets that "
                "the relay may open (ulimit -n, LimitNOFILE=); try again later."
            )
        if n_sessions >= max_sessions:
            raise CapacityExceeded(f"All {max_sessions} sessions are taken (RELAY_MAX_SESSIONS); try again later.")


class PaidRouteQuota:
    """Counts what callers buy; 0 per minute means without limit."""

    def __init__(
        self, mints_per_minute: int = DEFAULT_MINTS_PER_MINUTE, speech_per_minute: int = DEFAULT_SPEECH_PER_MINUTE
    ) -> None:
        self._limits: dict[PaidRoute, int] = {"mint": mints_per_minute, "speech": speech_per_minute}
        self._identities = {what: _per_minute_limiter(limit) for what, limit in self._limits.items()}
        self._addresses = {what: _per_minute_limiter(limit) for what, limit in self._limits.items()}

    def charge(self, route: PaidRoute, identity: str, address: str | None, now: float) -> None:
        """Count one purchase. Raises TooOften, and counts nothing, when the caller is over."""
        if identity == "anonymous":  # whom all callers without a key would share, and could take from each other
            wait_s = self._addresses[route].take(address_key(address), now)
        else:
            wait_s = self._identities[route].take(identity, now)
        if wait_s > 0:
            noun, setting = _PAID_ROUTE_TEXTS[route]
            raise RateLimited(
                f"Too many {noun}: at most {self._limits[route]} a minute for one caller ({setting}). "
                f"Try again in {math.ceil(wait_s)} s.",
                retry_after_s=wait_s,
            )


def _per_minute_limiter(per_minute: int) -> KeyedRateLimiter:
    return KeyedRateLimiter(RateLimit(per_minute, burst=max(per_minute, 1)))
