"""Programs of this machine that talk to the relay without a proxy: its own user needs no key, all others do."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from relay.app.context import AUTHENTICATOR
from relay.auth.access import Access
from relay.auth.local_peer import LocalPeerChecker, lookup_by_proc, lookup_by_sock_diag
from tests.proxies.raw_http import UPGRADE, ask, request_bytes
from tests.proxies.reverse_proxies import require_linux_root
from tests.proxies.routes import ADMIN_KEY, KEY, NOWHERE, routes, sent
from tests.proxies.witness import watch
from tests.support.relay_server import running_relay

NOBODY = 65534
PROGRAM = Path(__file__).parent / "other_user.py"
DEVICE = request_bytes("GET", "/ws", "localhost", UPGRADE)

needs_root = pytest.mark.usefixtures("root")


@pytest.fixture
def root() -> None:
    require_linux_root()


def command(uid: int, port: int, *more: str) -> list[str]:
    return [sys.executable, "-I", str(PROGRAM), str(uid), str(port), *more]


async def status_for(uid: int, port: int, request: bytes = DEVICE) -> int:
    """What a program of that user is answered."""
    process = await asyncio.create_subprocess_exec(*command(uid, port), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    output, _ = await process.communicate(request)
    return int(output.split()[1])


def leave_at_once(uid: int, port: int, request: bytes) -> None:
    """A program of that user sends a request, closes the connection and ends, while the relay stands still."""
    subprocess.run(command(uid, port, "leave"), input=request, check=True)


@needs_root
async def test_another_user_of_this_machine_needs_a_key() -> None:
    with_key = request_bytes("GET", "/ws", "localhost", [*UPGRADE, ("Authorization", f"Bearer {KEY}")])
    async with running_relay(NOWHERE, access_api_keys=(KEY,)) as relay:
        assert await status_for(NOBODY, relay.port) == 401
        assert await status_for(NOBODY, relay.port, with_key) == 101
        assert await status_for(os.geteuid(), relay.port) == 101


@needs_root
@pytest.mark.parametrize("lookup", [lookup_by_sock_diag, lookup_by_proc])
async def test_another_user_who_leaves_at_once_is_not_taken_for_root(lookup, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = watch(monkeypatch)
    async with running_relay(NOWHERE) as relay:
        relay.app[AUTHENTICATOR].local_peers = LocalPeerChecker(lookup, is_slow=lookup is lookup_by_proc)
        leave_at_once(NOBODY, relay.port, DEVICE)
        assert await witness.until_judged(1) == [401]
        assert witness.let_in == []


@needs_root
async def test_root_needs_a_key_where_the_relay_is_not_root() -> None:
    async with running_relay(NOWHERE) as relay:
        relay.app[AUTHENTICATOR].local_peers = LocalPeerChecker(lookup_by_sock_diag, uid=NOBODY)
        assert await status_for(0, relay.port) == 401
        assert await status_for(NOBODY, relay.port) == 101


async def test_the_relays_own_user_needs_no_key_unless_a_proxy_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    client_routes = routes(Access.CLIENT)
    witness = watch(monkeypatch)
    async with running_relay(NOWHERE, access_api_keys=(KEY,), access_admin_keys=(ADMIN_KEY,)) as relay:
        answers = await asyncio.gather(
            *(ask(relay.port, one, address="127.0.0.1") for one in sent(client_routes, "localhost"))
        )
        assert {answer.status for [answer] in answers} == {200}
        assert len(witness.let_in) == len(client_routes)
        witness.let_in.clear()
        for header in ("Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Via"):
            [answer] = await ask(
                relay.port, request_bytes("GET", "/v1/models", "localhost", [(header, "x")]), address="127.0.0.1"
            )
            assert answer.status == 401
        for one in sent(routes(Access.ADMIN), "localhost"):
            [answer] = await ask(relay.port, one, address="127.0.0.1")
            assert answer.status == 401
        assert witness.let_in == []


async def test_with_relay_local_off_the_relays_own_user_needs_a_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    client_routes = routes(Access.CLIENT)
    witness = watch(monkeypatch)
    async with running_relay(NOWHERE, access_api_keys=(KEY,), access_local="off") as relay:
        for one in sent(client_routes, "localhost"):
            [answer] = await ask(relay.port, one, address="127.0.0.1")
            assert answer.status == 401
        assert witness.let_in == []
        for one in sent(client_routes, "localhost", ("Authorization", f"Bearer {KEY}")):
            [answer] = await ask(relay.port, one, address="127.0.0.1")
            assert answer.status == 200
        assert len(witness.let_in) == len(client_routes)
