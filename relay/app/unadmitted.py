"""Connections of clients that have not shown that they may use the relay: how many there may be.

Such a connection has sent nothing yet, or part of a request, or waits for its next one. Each takes a descriptor. So
they are bounded, for one address and in all, and an admitted request or a session is not among them.
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from relay.core.quota import address_key

MOST_OF_ONE_ADDRESS = 128


class Waiting(Protocol):
    """A connection that can be closed from outside."""

    def make_room(self) -> None:
        """Close the connection at once, for another one."""


class UnadmittedConnections:
    """At most `most` connections in all, and half of them but at most `MOST_OF_ONE_ADDRESS` of one address.

    A new connection of an address that has its share is not taken. At the bound in all, the connection that has waited
    longest is closed: it was not admitted since it connected, or since its last answer. Addresses of proxies stand for
    many clients, so that only the bound in all holds for them.
    """

    def __init__(self, most: int, stands_for_many: Callable[[str], bool], refused: Callable[[str, str], None]) -> None:
        """`refused` is told the address and the reason of each connection that is closed."""
        self._most = most
        self._most_of_one = min(MOST_OF_ONE_ADDRESS, most // 2)
        self._stands_for_many = stands_for_many
        self._refused = refused
        self._waiting: dict[Waiting, str] = {}  # the one that has waited longest is first
        self._of_one: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def connect(self, connection: Waiting, address: str) -> bool:
        """Count a new connection; False if its address has its share already."""
        if not self._stands_for_many(address) and self._of_one[address_key(address)] >= self._most_of_one:
            self._refused(
                address,
                f"This address has {self._most_of_one} connections already whose clients have not been let in, or are "
                "idle; close some of them.",
            )
            return False
        self.wait(connection, address)
        return True

    def wait(self, connection: Waiting, address: str) -> None:
        """Count a connection whose request was answered, as the one that has waited least."""
        self.leave(connection)
        self._waiting[connection] = address
        self._of_one[address_key(address)] += 1
        if len(self._waiting) > self._most:
            oldest, its_address = next(iter(self._waiting.items()))
            self._refused(
                its_address,
                f"There are {self._most} connections whose clients have not been let in, or are idle. This one has "
                "waited longest, and was closed for a new one.",
            )
            self.leave(oldest)
            oldest.make_room()

    def leave(self, connection: Waiting) -> None:
        """Count a connection no more: its request was admitted, or it is closed."""
        address = self._waiting.pop(connection, None)
        if address is not None:
            key = address_key(address)
            self._of_one[key] -= 1
            if not self._of_one[key]:
                del self._of_one[key]


UNADMITTED = web.AppKey("unadmitted", UnadmittedConnections)
