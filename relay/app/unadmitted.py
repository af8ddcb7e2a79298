"""Idle and unauthenticated connections: how many there may be.

Such a connection has sent nothing yet, or part of a request, or an open route answers it, or it waits for its next
request. Each takes a descriptor, so they are bounded, for one address and in all. An admitted request or a session is
not among them.
"""

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from relay.session.common.rate_limit import address_key

MOST_OF_ONE_ADDRESS = 128


class Waiting(Protocol):
    """A connection that can be closed from outside."""

    def make_room(self) -> None:
        """Close the connection at once, for another one."""


class _Queue:
    """Connections in the order in which they became what they are: idle, or busy with a request."""

    def __init__(self) -> None:
        self.idle: dict[Waiting, None] = {}
        self.busy: dict[Waiting, None] = {}

    def __len__(self) -> int:
        return len(self.idle) + len(self.busy)

    def first_to_close(self) -> Waiting:
        """The oldest idle one; the oldest busy one where most are busy, so that those always leave room for others."""
        return next(iter(self.busy if len(self.busy) > len(self.idle) else self.idle))


class UnadmittedConnections:
    """At most `most` connections in all, and half of them but at most `MOST_OF_ONE_ADDRESS` of one address.

    A new connection of an address that has its share closes an older one of the same address. At the bound in all it
    closes one of any address. Addresses of proxies stand for many clients, so only the bound in all holds for them.
    """

    def __init__(
        self, most: int, stands_for_many: Callable[[str], bool], on_closed: Callable[[str, str], None]
    ) -> None:
        """`on_closed` gets the address and the reason of each connection that is closed."""
        self._most = most
        self._most_of_one = min(MOST_OF_ONE_ADDRESS, most // 2)
        self._stands_for_many = stands_for_many
        self._on_closed = on_closed
        self._addresses: dict[Waiting, str] = {}
        self._all = _Queue()
        self._of_one: dict[str, _Queue] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def wait(self, connection: Waiting, address: str) -> None:
        """Count a connection that is new, or whose request was answered, as the one that has waited least."""
        self.leave(connection)
        key = address_key(address)
        of_one = self._of_one.get(key)
        if of_one is not None and len(of_one) >= self._most_of_one and not self._stands_for_many(address):
            self._close(
                of_one,
                f"This address already has {self._most_of_one} idle or unauthenticated connections; close some of "
                "them. This one was closed for a newer one.",
            )
        if len(self._all) >= self._most:
            self._close(
                self._all,
                f"There are already {self._most} idle or unauthenticated connections. This one was closed for a "
                "newer one.",
            )
        self._addresses[connection] = address
        for queue in (self._all, self._of_one.setdefault(key, _Queue())):
            queue.idle[connection] = None

    def begin(self, connection: Waiting) -> None:
        """The head of a request is there: until its answer, idle connections are closed first."""
        address = self._addresses.get(connection)
        if address is not None:
            for queue in (self._all, self._of_one[address_key(address)]):
                queue.idle.pop(connection, None)
                queue.busy[connection] = None

    def leave(self, connection: Waiting) -> None:
        """Count a connection no more: its request was admitted, or it is closed."""
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        key = address_key(address)
        for queue in (self._all, self._of_one[key]):
            queue.idle.pop(connection, None)
            queue.busy.pop(connection, None)
        if not self._of_one[key]:
            del self._of_one[key]

    def _close(self, queue: _Queue, reason: str) -> None:
        connection = queue.first_to_close()
        self._on_closed(self._addresses[connection], reason)
        self.leave(connection)
        connection.make_room()


UNADMITTED = web.AppKey("unadmitted", UnadmittedConnections)
