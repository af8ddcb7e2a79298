"""Limits on sessions and requests, in total and per address, and on the rate of new connections.

Per-address limits do not apply to loopback addresses, which usually represent a local proxy, unless they are set
explicitly. IPv6 addresses are grouped by /64, which is what one customer gets.
"""

import asyncio
import math
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager

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
"""Concurrent requests: each takes a file descriptor, and perhaps a tool."""
_ALL = ""


class _TurnQueue:
    """Lets one waiter start per event-loop iteration, so that running sessions stay responsive."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait for the next free iteration. The caller must bound the number of waiters."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._release_next)
        await turn

    def _release_next(self) -> None:
        turn = self._waiting.popleft()
        if not turn.done():  # not cancelled
            turn.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._release_next)


class SessionLimiter:
    """Counts the sessions, requests and connection attempts of one relay."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        per_minute = settings.limits.max_handshakes_per_minute
        self._rate = per_minute if per_minute is not None else DEFAULT_HANDSHAKES_PER_MINUTE
        self._rate_per_address = KeyedRateLimiter(RateLimit(self._rate, max(self._rate, 1)))
        total_rate = HANDSHAKES_PER_SECOND * 60
        self._total_rate = KeyedRateLimiter(RateLimit(total_rate, max(settings.limits.max_sessions, total_rate // 60)))
        self._sessions: Counter[str] = Counter()
        self._descriptors = DescriptorBudget(None)
        self._requests: Counter[str] = Counter()
        self._session_turns, self._request_turns = _TurnQueue(), _TurnQueue()

    def use_descriptor_budget(self, descriptors: DescriptorBudget) -> None:
        """Admit no more sessions than fit into the descriptors of this process."""
        self._descriptors = descriptors

    def warnings(self) -> list[str]:
        """Return a warning if RELAY_MAX_SESSIONS does not fit into the descriptors."""
        return self._descriptors.warnings(self._settings.limits.max_sessions)

    def check_rate(self, address: str) -> None:
        """Count a connection attempt, successful or not. Raises RateLimited with the time to wait.

        An attempt over the limit of its address does not count against the total limit.
        """
        now = asyncio.get_running_loop().time()
        takes = [(self._total_rate, _ALL)]
        if self._settings.limits.max_handshakes_per_minute is not None or not is_loopback_host(address):
            takes.append((self._rate_per_address, address_key(address)))
        wait_s = take_all_or_none(takes, now)
        if wait_s:
            raise RateLimited(
                f"Too many new connections (RELAY_MAX_HANDSHAKES_PER_MINUTE); wait {math.ceil(wait_s)} s.",
                wait_s,
            )

    async def wait_session_turn(self) -> None:
        """Wait until a session may start. Call this while holding a session slot, which bounds the waiters."""
        await self._session_turns.wait()

    async def wait_request_turn(self) -> None:
        """Wait until a request may start."""
        await self._request_turns.wait()

    @contextmanager
    def acquire_request(self, owner: str) -> Iterator[None]:
        """Count a running request. Raises RateLimited if its owner or all owners together have too many."""
        if self._requests[owner] >= MAX_REQUESTS_PER_CLIENT or self._requests.total() >= MAX_REQUESTS:
            raise RateLimited(
                f"Too many concurrent requests: at most {MAX_REQUESTS_PER_CLIENT} per client and {MAX_REQUESTS} in "
                "total. Wait for their responses.",
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
        """Hold a session slot while a session runs. Raises CapacityExceeded if none is free."""
        group = address_key(address)
        max_per_address = self._settings.limits.max_sessions_per_address
        if max_per_address is None and not is_loopback_host(address):
            max_per_address = DEFAULT_SESSIONS_PER_ADDRESS
        if max_per_address and self._sessions[group] >= max_per_address:
            raise CapacityExceeded(
                f"This address already has {max_per_address} sessions (RELAY_MAX_SESSIONS_PER_ADDRESS); end one first."
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
                f"All {fitting} sessions are in use that fit into {self._descriptors.limit} files and sockets "
                "(ulimit -n, LimitNOFILE=); try again later."
            )
        if n_sessions >= max_sessions:
            raise CapacityExceeded(f"All {max_sessions} sessions are in use (RELAY_MAX_SESSIONS); try again later.")
