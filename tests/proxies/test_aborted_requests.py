"""Who sends a request and leaves at once is not taken for root, whom the kernel shows as the owner of a closed socket.

The relay runs as root here, and each client leaves at the worst of moments: when its request has been read, and the
kernel has not been asked yet whose the connection is.
"""

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.app.context import AUTHENTICATOR
from relay.auth.access import Access
from relay.auth.local_peer import (
    ROOT_UID,
    TCP_ESTABLISHED,
    ConnectionAddresses,
    LocalPeerChecker,
    OwnerLookup,
    SocketOwner,
    lookup_by_proc,
    lookup_by_sock_diag,
)
from tests.proxies.reverse_proxies import ADDRESS, KINDS, forwarding_proxy, require_proxies
from tests.proxies.routes import NOWHERE, routes, sent
from tests.proxies.witness import watch
from tests.support.relay_server import running_relay

TIMEOUT_S = 10.0


@pytest.fixture(autouse=True)
def proxies_of_other_users() -> None:
    require_proxies()


def close(client: socket.socket) -> None:
    client.close()


def half_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class LastMoment:
    """A way to ask the kernel that lets the client leave first, and waits until the proxy's socket has no owner left.

    It runs in a thread, so that the relay closes its end meanwhile.
    """

    def __init__(self, lookup: OwnerLookup) -> None:
        self._lookup = lookup
        self.leave: Callable[[], None] = lambda: None
        self.owners: list[SocketOwner | None] = []

    def __call__(self, ends: ConnectionAddresses) -> SocketOwner | None:
        before = self._lookup(ends)
        assert before is not None
        assert before.uid != ROOT_UID
        assert before.state == TCP_ESTABLISHED
        self.leave()
        deadline = time.monotonic() + TIMEOUT_S
        while (owner := self._lookup(ends)) is not None and owner.uid != ROOT_UID:
            assert time.monotonic() < deadline, "the proxy does not hang up"
            time.sleep(0.001)  # the kernel tells nobody when a connection changes its state
        self.owners.append(owner)
        return owner


@pytest.mark.parametrize(
    ("lookup", "leave"),
    [
        (lookup_by_sock_diag, close),
        (lookup_by_sock_diag, half_close),
        (lookup_by_sock_diag, reset),
        (lookup_by_proc, close),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_whose_client_is_gone_reaches_no_handler(
    kind: str,
    lookup: OwnerLookup,
    leave: Callable[[socket.socket], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every_route = routes(Access.CLIENT)
    requests = sent(every_route[::4] if lookup is lookup_by_proc else every_route, "localhost")  # /proc is slow to read
    witness, last_moment = watch(monkeypatch), LastMoment(lookup)
    async with (
        running_relay(NOWHERE) as relay,
        forwarding_proxy(tmp_path, kind, {"nginx": "Host", "haproxy": "server alone"}[kind], relay.port) as proxy,
    ):
        relay.app[AUTHENTICATOR].local_peers = LocalPeerChecker(last_moment, is_slow=True)
        for n_sent, request in enumerate(requests, start=1):
            with socket.create_connection((ADDRESS, proxy.port)) as client:
                last_moment.leave = lambda client=client: leave(client)
                client.sendall(request)
                await witness.until_judged(n_sent)
    assert witness.judged == [401] * len(requests)
    assert witness.let_in == []
    assert len(last_moment.owners) == len(requests)
    if kind == "nginx":  # HAProxy resets its connection, which leaves nothing behind
        assert None not in last_moment.owners
