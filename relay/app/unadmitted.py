"""Idle and unauthenticated connections: how many there may be.

Such a connection has sent nothing yet, or part of a request, or an open route answers it, or it waits for its next
request. Each takes a descriptor, so they are bounded, for one address and in all. An admitted request or a session is
not among them.
"""

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from relay.session.common.rate_limit import address_key

MAX_PER_ADDRESS = 128


class EvictableConnection(Protocol):
    """A connection that can be closed from outside."""

    def evict(self) -> None:
        """Close the connection at once, for another one."""


class _EvictionQueue:
    """Connections in the order in which they became what they are: idle, or busy with a request."""

    def __init__(self) -> None:
        self.idle: dict[EvictableConnection, None] = {}
        self.busy: dict[EvictableConnection, None] = {}

    def __len__(self) -> int:
        return len(self.idle) + len(self.busy)

    def next_to_evict(self) -> EvictableConnection:
        """The oldest idle one; the oldest busy one where most are busy, so that those always leave room for others."""
        return next(iter(self.busy if len(self.busy) > len(self.idle) else self.idle))


class ConnectionLimiter:
    """At most `most` connections in all, and half of them but at most `MAX_PER_ADDRESS` of one address.

    A new connection of an address that has its share closes an older one of the same address. At the bound in all it
    closes one of any address. Addresses of proxies stand for many clients, so only the bound in all holds for them.
    """

    def __init__(
        self, max_connections: int, is_shared_address: Callable[[str], bool], on_evicted: Callable[[str, str], None]
    ) -> None:
        """`on_evicted` gets the address and the reason of each connection that is closed."""
        self._max_connections = max_connections
        self._max_per_address = min(MAX_PER_ADDRESS, max_connections // 2)
        self._is_shared_address = is_shared_address
        self._on_evicted = on_evicted
        self._addresses: dict[EvictableConnection, str] = {}
        self._queue = _EvictionQueue()
        self._queues_by_address: dict[str, _EvictionQueue] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def add_idle(self, connection: EvictableConnection, address: str) -> None:
        """Count a connection that is new, or whose request was answered, as the one that has waited least."""
        self.remove(connection)
        key = address_key(address)
        address_queue = self._queues_by_address.get(key)
        if (
            address_queue is not None
            and len(address_queue) >= self._max_per_address
            and not self._is_shared_address(address)
        ):
            self._evict_from(
                address_queue,
                f"This address already has {self._max_per_address} idle or unauthenticated connections; close some of "
                "them. This one was closed for a newer one.",
            )
        if len(self._queue) >= self._max_connections:
            self._evict_from(
                self._queue,
                f"There are already {self._max_connections} idle or unauthenticated connections. This one was closed "
                "for a newer one.",
            )
        self._addresses[connection] = address
        for queue in (self._queue, self._queues_by_address.setdefault(key, _EvictionQueue())):
            queue.idle[connection] = None

    def mark_busy(self, connection: EvictableConnection) -> None:
        """The head of a request is there: until its answer, idle connections are closed first."""
        address = self._addresses.get(connection)
        if address is not None:
            for queue in (self._queue, self._queues_by_address[address_key(address)]):
                queue.idle.pop(connection, None)
                queue.busy[connection] = None

    def remove(self, connection: EvictableConnection) -> None:
        """Count a connection no more: its request was admitted, or it is closed."""
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        key = address_key(address)
        for queue in (self._queue, self._queues_by_address[key]):
            queue.idle.pop(connection, None)
            queue.busy.pop(connection, None)
        if not self._queues_by_address[key]:
            del self._queues_by_address[key]

    def _evict_from(self, queue: _EvictionQueue, reason: str) -> None:
        connection = queue.next_to_evict()
        self._on_evicted(self._addresses[connection], reason)
        self.remove(connection)
        connection.evict()


CONNECTION_LIMITER = web.AppKey("connection_limiter", ConnectionLimiter)
