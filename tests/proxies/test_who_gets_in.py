"""Behind nginx and HAProxy on the relay's own machine no route is open without a key, whatever the client says.

Every handler is replaced by one that says that it was reached: what counts is who came that far, besides the status.
"""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from relay.app.routes import all_routes
from relay.auth.access import Access
from tests.proxies.raw_http import ask, request_bytes
from tests.proxies.reverse_proxies import (
    FORWARDING,
    HAPROXY_USER,
    KINDS,
    NGINX_USER,
    forwarding_proxy,
    require_proxies,
)
from tests.proxies.routes import ADMIN_KEY, ALLOWED, KEY, NAME, NOWHERE, routes, sent
from tests.proxies.witness import watch
from tests.support.relay_server import running_relay

RELAYS = {
    "without keys": {},
    "with keys": {"access_api_keys": (KEY,)},
    "with admin keys": {"access_api_keys": (KEY,), "access_admin_keys": (ADMIN_KEY,)},
}

SILENT = ("proxy_pass alone", "server alone", "Host")
"""With these a relay cannot tell by the headers that there is a proxy."""


@pytest.fixture(autouse=True)
def proxies_of_other_users() -> None:
    require_proxies()


async def statuses(port: int, requests: list[bytes]) -> set[int]:
    return {answer.status for answer in await ask(port, *requests)}


def claims_to_be_near(relay_port: int) -> list[tuple[str, str | None]]:
    """Names and origins by which a client may claim to be on this machine, or to be a page that is allowed."""
    names = ("localhost", f"127.0.0.1:{relay_port}", NAME)
    return [(name, page) for name in names for page in (None, "http://localhost:3000", ALLOWED, f"http://{name}")]


def test_the_table_holds_all_routes_that_are_not_open() -> None:
    client, admin = routes(Access.CLIENT), routes(Access.ADMIN)
    n_upgrades = sum(route.websocket is not None for route in all_routes())
    n_open = sum(route.access is Access.OPEN for route in all_routes())
    n_heads = sum(method == "HEAD" for method, _, _ in client)
    assert len(client) + len(admin) == len(all_routes()) - n_open + n_upgrades + n_heads
    assert n_upgrades == 5


@pytest.mark.parametrize("kind", KINDS)
async def test_the_workers_run_as_another_user_than_the_relay(kind: str, tmp_path: Path) -> None:
    async with running_relay(NOWHERE) as relay, forwarding_proxy(tmp_path, kind, "Host", relay.port) as proxy:
        assert await statuses(proxy.port, [request_bytes("GET", "/healthz", NAME)]) == {200}, "a worker has answered"
        assert proxy.worker_users() == {{"nginx": NGINX_USER, "haproxy": HAPROXY_USER}[kind]}


@pytest.mark.parametrize(("kind", "forwarding"), FORWARDING)
async def test_who_gets_in_through_a_proxy(
    kind: str, forwarding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_upgrades = forwarding != "proxy_pass alone"  # which is HTTP/1.0, and passes none on
    client_routes, admin_routes = routes(Access.CLIENT, with_upgrades=with_upgrades), routes(Access.ADMIN)
    every_route = client_routes + admin_routes
    witness = watch(monkeypatch)
    async with AsyncExitStack() as stack:
        relays = [
            await stack.enter_async_context(running_relay(NOWHERE, access_allowed_origins=(ALLOWED,), **settings))
            for settings in RELAYS.values()
        ]
        proxy = await stack.enter_async_context(
            forwarding_proxy(tmp_path, kind, forwarding, *(relay.port for relay in relays))
        )
        for relay, port in zip(relays, proxy.ports, strict=True):
            assert await statuses(port, [request_bytes("GET", "/healthz", NAME)]) == {200}, "the way there works"
            claims = claims_to_be_near(relay.port)
            # Where the proxy says that it is one, a few of them will do.
            for name, origin in claims if relay is relays[0] and forwarding in SILENT else claims[::5]:
                page = [("Origin", origin)] if origin else []
                assert await statuses(port, sent(every_route, name, *page)) <= {401, 403}, (name, origin)
        unknown = ("Authorization", "Bearer a-key-that-nobody-knows")
        assert await statuses(proxy.port, sent(every_route, "localhost", unknown)) <= {401, 403}
        assert witness.let_in == []

        without_keys, with_keys, with_admin_keys = proxy.ports
        key, admin_key = ("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {ADMIN_KEY}")
        for port, name, page in (
            (with_keys, "localhost", []),
            (with_admin_keys, NAME, [("Origin", "https://evil.example")]),
        ):
            assert await statuses(port, sent(client_routes, name, key, *page)) == {200}
            assert await statuses(port, sent(admin_routes, name, key, *page)) == {403}
        assert len(witness.let_in) == 2 * len(client_routes)

        witness.let_in.clear()
        assert await statuses(with_admin_keys, sent(every_route, NAME, admin_key)) == {200}
        assert len(witness.let_in) == len(every_route)
        assert await statuses(without_keys, sent(every_route, "localhost", admin_key)) <= {401, 403}
        assert len(witness.let_in) == len(every_route)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_open_relay_behind_a_proxy_answers_to_its_own_names(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_routes, admin_routes = routes(Access.CLIENT), routes(Access.ADMIN)
    witness = watch(monkeypatch)
    passes_host = {"nginx": "Host", "haproxy": "X-Forwarded-For"}[kind]
    async with (
        running_relay(
            NOWHERE,
            server_host="0.0.0.0",
            access_open=True,
            access_hosts=(NAME,),
            access_api_keys=(KEY,),
            access_allowed_origins=(ALLOWED,),
        ) as relay,
        forwarding_proxy(tmp_path, kind, passes_host, relay.port) as proxy,
    ):
        for page in ([], [("Origin", ALLOWED)], [("Origin", "capacitor://localhost")]):
            assert await statuses(proxy.port, sent(client_routes, NAME, *page)) == {200}
        assert len(witness.let_in) == 3 * len(client_routes)
        witness.let_in.clear()
        assert await statuses(proxy.port, sent(client_routes, "rebound.example")) == {403}
        assert await statuses(proxy.port, sent(client_routes, NAME, ("Origin", "https://evil.example"))) == {403}
        own = ("Origin", "http://rebound.example")
        assert await statuses(proxy.port, sent(client_routes, "rebound.example", own)) == {403}
        for name in ("localhost", NAME):
            assert await statuses(proxy.port, sent(admin_routes, name)) == {401}
        assert witness.let_in == []


@pytest.mark.parametrize("kind", KINDS)
async def test_access_by_origin_behind_a_proxy_asks_for_the_origin_and_the_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client_routes, admin_routes = routes(Access.CLIENT), routes(Access.ADMIN)
    witness = watch(monkeypatch)
    passes_host = {"nginx": "Host", "haproxy": "X-Forwarded-For"}[kind]
    async with (
        running_relay(
            NOWHERE,
            access_browser_access="origin",
            access_hosts=(NAME,),
            access_api_keys=(KEY,),
            access_allowed_origins=(ALLOWED,),
        ) as relay,
        forwarding_proxy(tmp_path, kind, passes_host, relay.port) as proxy,
    ):
        page = ("Origin", ALLOWED)
        assert await statuses(proxy.port, sent(client_routes, NAME)) == {401}
        assert await statuses(proxy.port, sent(client_routes, "rebound.example", page)) == {403}
        assert await statuses(proxy.port, sent(client_routes, NAME, ("Origin", "https://evil.example"))) == {403}
        assert await statuses(proxy.port, sent(client_routes, NAME, ("Origin", "capacitor://localhost"))) == {403}
        assert await statuses(proxy.port, sent(admin_routes, NAME, page)) == {401}
        assert witness.let_in == []
        assert await statuses(proxy.port, sent(client_routes, NAME, page)) == {200}
        assert len(witness.let_in) == len(client_routes)
