"""Whose connection it is: asked of the kernel, for sockets that are really there."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from relay.auth.local_peer import (
    TCP_ESTABLISHED,
    ConnectionAddresses,
    LocalPeerChecker,
    SocketOwner,
    lookup_by_proc,
    lookup_by_sock_diag,
)
from relay.errors import CapacityExceeded

LOOKUPS = [lookup_by_sock_diag, lookup_by_proc]
UID = os.geteuid()
NOBODY = 65534
is_linux = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the system does not say whose a socket is")
pytestmark = is_linux


class Pair:
    """A connection, and its end as a server's transport shows it."""

    def __init__(self, listener: socket.socket, address: str) -> None:
        self.client = socket.create_connection((address, listener.getsockname()[1]))
        self.server, _ = listener.accept()

    @property
    def ends(self) -> ConnectionAddresses:
        peer, own = self.server.getpeername(), self.server.getsockname()
        ends = [(ip_address(end[0].removeprefix("::ffff:")), end[1]) for end in (peer, own)]
        return ConnectionAddresses(*ends)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return {"peername": self.server.getpeername(), "sockname": self.server.getsockname()}.get(name, default)

    def close(self) -> None:
        self.client.close()
        self.server.close()


@pytest.fixture(params=["127.0.0.1", "::1", "mapped"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "127.0.0.1":
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    with listener:
        found = Pair(listener, "127.0.0.1" if request.param == "mapped" else request.param)
        yield found
        found.close()


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_connection_of_our_own_is_ours(lookup, pair: Pair) -> None:
    assert lookup(pair.ends) == SocketOwner(UID, TCP_ESTABLISHED)


@pytest.mark.parametrize("lookup", LOOKUPS)
async def test_one_that_its_program_has_closed_is_nobodys(lookup, pair: Pair) -> None:
    pair.client.close()  # the kernel shows root as the owner of what is left of it
    assert not await LocalPeerChecker(lookup).is_local(pair)
    assert not await LocalPeerChecker(lookup, uid=0).is_local(pair)


@pytest.mark.parametrize("lookup", LOOKUPS)
async def test_one_that_is_half_closed_is_nobodys(lookup, pair: Pair) -> None:
    pair.client.shutdown(socket.SHUT_WR)
    assert not await LocalPeerChecker(lookup, uid=0).is_local(pair)


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_a_connection_that_is_not_there_is_not_found(lookup) -> None:
    nowhere = (ip_address("127.0.0.1"), 1)
    assert lookup(ConnectionAddresses(nowhere, nowhere)) is None


@pytest.mark.parametrize(
    ("owner", "uid", "expected"),
    [
        (SocketOwner(1000, TCP_ESTABLISHED), 1000, True),
        (SocketOwner(33, TCP_ESTABLISHED), 1000, False),
        (SocketOwner(0, TCP_ESTABLISHED), 1000, False),
        (SocketOwner(0, TCP_ESTABLISHED), 0, True),
        (SocketOwner(1000, TCP_ESTABLISHED), 0, False),
        (SocketOwner(1000, 8), 1000, False),
        (None, 1000, False),
    ],
)
async def test_whose_connections_are_local(owner: SocketOwner | None, uid: int, expected: bool, pair: Pair) -> None:
    assert await LocalPeerChecker(lambda ends: owner, uid=uid).is_local(pair) is expected
    assert await LocalPeerChecker(lambda ends: owner, uid=uid, is_slow=True).is_local(pair) is expected


async def test_another_address_is_not_this_machines(pair: Pair) -> None:
    class Far(Pair):
        def __init__(self) -> None: ...

        def get_extra_info(self, name: str, default: object = None) -> object:
            return {"peername": ("203.0.113.7", 1), "sockname": ("203.0.113.8", 2)}.get(name, default)

    assert not await LocalPeerChecker(lambda ends: SocketOwner(UID, TCP_ESTABLISHED)).is_local(Far())
    assert not await LocalPeerChecker(None).is_local(Far())
    assert await LocalPeerChecker(None).is_local(pair), "where the system does not say, the address alone decides"
    assert not await LocalPeerChecker(None).is_local(None)


async def test_a_lookup_that_fails_lets_nobody_in(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    def fails(ends: ConnectionAddresses) -> SocketOwner:
        raise OSError(errno.EPERM, "Operation not permitted")

    assert not await LocalPeerChecker(fails).is_local(pair)
    assert "Operation not permitted" in caplog.text


async def test_without_a_descriptor_to_look_it_up_with_the_relay_is_full(pair: Pair) -> None:
    def fails(ends: ConnectionAddresses) -> SocketOwner:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(CapacityExceeded, match="no descriptor left"):
        await LocalPeerChecker(fails).is_local(pair)


@pytest.mark.skipif(UID != 0, reason="only root can become another user")
async def test_a_program_of_another_user_is_not_local() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        port = listener.getsockname()[1]
        # The socket is made by the new user, before nothing can be imported any more.
        connect = f"s = socket.socket(); s.connect((b'127.0.0.1', {port})); s.recv(1)"
        script = f"import os, socket; os.setuid({NOBODY}); {connect}"
        stranger = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
        server, _ = await asyncio.to_thread(listener.accept)
        found = Pair.__new__(Pair)
        found.server = server
        assert lookup_by_sock_diag(found.ends) == lookup_by_proc(found.ends) == SocketOwner(NOBODY, TCP_ESTABLISHED)
        assert not await LocalPeerChecker.detect().is_local(found)
        server.close()
        await stranger.wait()


IN_A_NAMESPACE = """
import asyncio, socket
from relay.auth.local_peer import LocalPeerChecker, lookup_by_proc, lookup_by_sock_diag

class Transport:
    def __init__(self, server):
        self.server = server
    def get_extra_info(self, name, default=None):
        return {"peername": self.server.getpeername(), "sockname": self.server.getsockname()}.get(name, default)

with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    for lookup in (lookup_by_sock_diag, lookup_by_proc):
        server, _ = listener.accept()
        print(asyncio.run(LocalPeerChecker(lookup).is_local(Transport(server))), flush=True)
        server.close()
"""


@pytest.mark.skipif(UID != 0, reason="only root can become another user")
@pytest.mark.parametrize(("own", "expected"), [(0, ["True", "False"]), (NOBODY, ["False", "False"])])
def test_users_that_a_container_does_not_know_are_not_its_nobody(own: int, expected: list[str]) -> None:
    """The kernel shows them all as nobody, as it shows the relay's own user where that is nobody."""
    namespace = ["unshare", "--user", f"--map-user={own}"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system makes no user namespaces")
    command = [*namespace, sys.executable, "-c", IN_A_NAMESPACE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None
        port = int(relay.stdout.readline())
        connect = f"s = socket.socket(); s.connect((b'127.0.0.1', {port})); s.recv(1)"
        answers = []
        for uid in (UID, 1234):
            with subprocess.Popen([sys.executable, "-c", f"import os, socket; os.setuid({uid}); {connect}"]):
                answers.append(relay.stdout.readline().strip())
    assert answers == expected
