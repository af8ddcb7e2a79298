"""Who gets a session: how many there may be, in all and from one address, how fast new ones may be asked for, and when.

An address of this machine stands for many clients (a proxy, a test), so that the limits for one address leave it
alone unless they were set on purpose. IPv6 addresses count by their /64, which is what one customer gets.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

from relay.config import Settings
from relay.descriptors import Descriptors
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
        per_minute = settings.max_handshakes_per_minute
        self._rate = per_minute if per_minute is not None else DEFAULT_HANDSHAKES_PER_MINUTE
        self._from_one = KeyedRateLimiter(RateLimit(self._rate, max(self._rate, 1)))
        in_all = HANDSHAKES_PER_SECOND * 60
        self._in_all = KeyedRateLimiter(RateLimit(in_all, max(settings.max_sessions, in_all // 60)))
        self._sessions: Counter[str] = Counter()
        self._descriptors = Descriptors(None)
        self._requests: Counter[str] = Counter()
        self._session_turns, self._request_turns = _Turns(), _Turns()

    def fit(self, descriptors: Descriptors) -> None:
        """From here on there are no more sessions than fit into the descriptors of this process."""
        self._descriptors = descriptors

    def warnings(self) -> list[str]:
        """What the start should say: that RELAY_MAX_SESSIONS does not fit."""
        return self._descriptors.warnings(self._settings.max_sessions)

    def knock(self, address: str) -> None:
        """Count an attempt to connect, whatever becomes of it. Raises TooOften with the time to wait.

        An address over its own limit takes nothing from the limit that all addresses share.
        """
        now = asyncio.get_running_loop().time()
        wanted = [(self._in_all, _ALL)]
        if self._settings.max_handshakes_per_minute is not None or not is_loopback_host(address):
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
        most_from_one = self._settings.max_sessions_per_address
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
        n_sessions, most, fitting = self._sessions.total(), self._settings.max_sessions, self._descriptors.sessions
        if fitting is not None and fitting < most and n_sessions >= fitting:
            raise Full(
                f"All {fitting} sessions are taken that fit into the {self._descriptors.limit} files and sockets that "
                "the relay may open (ulimit -n, LimitNOFILE=); try again later."
            )
        if n_sessions >= most:
            raise Full(f"All {most} sessions are taken (RELAY_MAX_SESSIONS); try again later.")
