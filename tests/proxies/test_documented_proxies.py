"""The proxies of docs/access.md, nginx and HAProxy, with TLS: conversations, clients' addresses, the admin's login."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from relay.testing import ScriptedUpstream
from tests.proxies.raw_http import UPGRADE, Answer, Headers, ask, request_bytes, trusting
from tests.proxies.reverse_proxies import ADDRESS, KINDS, ReverseProxy, documented_proxy, require_proxies
from tests.proxies.routes import ADMIN_KEY, KEY, NAME, NOWHERE
from tests.support.realtime_client import RealtimeClient
from tests.support.relay_server import DeviceClient, RunningRelay, running_relay

CLIENT, OTHER_CLIENT, FRONT_PROXY = "127.0.0.2", "127.0.0.3", "127.0.0.4"
"""Addresses of this machine that are no proxies of the relay's, or are said to be one."""
WITH_KEY = ("Authorization", f"Bearer {KEY}")
OWN_PAGE: Headers = [("Origin", f"https://{NAME}"), ("Sec-Fetch-Site", "same-origin")]

PASSING_HOST = {"nginx": "proxy_set_header Host $http_host;", "haproxy": "option forwardfor"}


@pytest.fixture(autouse=True)
def proxies_of_other_users() -> None:
    require_proxies()


@asynccontextmanager
async def behind(
    kind: str, folder: Path, upstream: str = NOWHERE, proxies: tuple[str, ...] = ("127.0.0.1",), **settings: Any
) -> AsyncIterator[tuple[RunningRelay, ReverseProxy]]:
    """A relay as docs/access.md sets one up behind that proxy."""
    async with (
        running_relay(upstream, access_api_keys=(KEY,), access_proxies=proxies, **settings) as relay,
        documented_proxy(folder, kind, relay.port) as proxy,
    ):
        yield relay, proxy


def websocket(proxy: ReverseProxy, path: str, **options: Any) -> Any:
    """A client's connection through a proxy."""
    return connect(
        f"wss://{NAME}{path}",
        host=ADDRESS,
        port=proxy.port,
        ssl=trusting(),
        server_hostname="localhost",
        compression=None,
        **options,
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_device_talks_through_the_proxy_with_a_key(kind: str, tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        behind(kind, tmp_path, upstream.url) as (_, proxy),
    ):
        with pytest.raises(InvalidStatus, match="401"):
            await websocket(proxy, "/ws")
        async with DeviceClient(await websocket(proxy, "/ws", additional_headers=[WITH_KEY])) as client:
            session = await upstream.accept()
            await session.configure()
            await client.expect("AIConnected")
            await client.speak(b"\0" * 640)
            await session.expect_audio(900)  # 20 ms at 16 kHz are 960 bytes at the model's 24 kHz
            await client.send(type="text", text="Hello?")
            await session.expect("response.create")
            await session.respond("Hello.")
            assert (await client.expect("AIResponseEnd"))["finalText"] == "Hello."
            await client.expect_audio(1000)
            await client.send(type="bye")
            assert await client.wait_closed() == (1000, "bye")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_realtime_client_talks_through_the_proxy_with_a_key(kind: str, tmp_path: Path) -> None:
    path = "/v1/realtime?model=m"
    async with (
        ScriptedUpstream() as upstream,
        behind(kind, tmp_path, upstream.url) as (_, proxy),
    ):
        with pytest.raises(InvalidStatus, match="401"):
            await websocket(proxy, path)
        async with websocket(proxy, path, additional_headers=[WITH_KEY]) as connection:
            client, session = RealtimeClient(connection), await upstream.accept()
            await session.emit({"type": "session.created", "session": {"type": "realtime", "model": "m"}})
            await client.expect("session.created")
            await client.send(type="response.create")
            await session.expect("response.create")
            await session.respond("Hello.")
            done = await client.expect("response.done")
            assert done["response"]["status"] == "completed"


def handshake(*forwarded_for: str) -> bytes:
    """An attempt to connect, with the client's own lines of X-Forwarded-For. It has no key, and counts all the same."""
    return request_bytes("GET", "/ws", NAME, [*UPGRADE, *(("X-Forwarded-For", line) for line in forwarded_for)])


async def answers_to(proxy: ReverseProxy, source: str, *requests: bytes) -> list[int]:
    """Each on a connection of its own from an address of this machine."""
    return [(await ask(proxy.port, one, source=source, tls=True))[0].status for one in requests]


INVENTED = [
    *(handshake(f"198.51.100.{n}") for n in range(1, 5)),
    handshake("198.51.100.5", "203.0.113.5"),
    handshake("198.51.100.6, 203.0.113.6"),
    handshake("127.0.0.1"),
    handshake("198.51.100.8", "127.0.0.1"),
    handshake("no address"),
    handshake(""),
    handshake("198.51.100.11:4711"),
    handshake("[2001:db8::12]:4711", "[2001:db8::12]"),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_whatever_addresses_a_client_invents_it_counts_as_one(kind: str, tmp_path: Path) -> None:
    async with behind(kind, tmp_path, limits_max_handshakes_per_minute=5) as (_, proxy):
        assert len(INVENTED) == 12
        assert await answers_to(proxy, CLIENT, *INVENTED) == [401] * 5 + [429] * 7
        assert await answers_to(proxy, OTHER_CLIENT, handshake()) == [401], "another client has its own allowance"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_cannot_have_the_proxys_line_taken_for_a_hop_by_hop_header(kind: str, tmp_path: Path) -> None:
    headers = [*UPGRADE[1:], ("Connection", "Upgrade, X-Forwarded-For"), ("X-Forwarded-For", "198.51.100.1")]
    async with behind(kind, tmp_path, limits_max_handshakes_per_minute=1) as (_, proxy):
        tries = [request_bytes("GET", "/ws", NAME, headers)] * 3
        assert await answers_to(proxy, CLIENT, *tries) == [401, 429, 429]


@pytest.mark.parametrize("kind", KINDS)
async def test_addresses_with_a_port_or_brackets_of_a_proxy_in_front_are_told_apart(kind: str, tmp_path: Path) -> None:
    both = ("127.0.0.1", FRONT_PROXY)
    same = [handshake("198.51.100.7:4711"), handshake("198.51.100.7:4712"), handshake("198.51.100.7")]
    same_subscriber = [handshake("[2001:db8::1]:4711"), handshake("[2001:db8::2]"), handshake("2001:db8::3")]
    async with behind(kind, tmp_path, proxies=both, limits_max_handshakes_per_minute=2) as (_, proxy):
        assert await answers_to(proxy, FRONT_PROXY, *same) == [401, 401, 429]
        assert await answers_to(proxy, FRONT_PROXY, *same_subscriber) == [401, 401, 429]
        assert await answers_to(proxy, FRONT_PROXY, handshake("198.51.100.8:4711")) == [401]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_clients_sessions_are_counted_by_its_own_address(kind: str, tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        behind(kind, tmp_path, upstream.url, limits_max_sessions_per_address=1) as (_, proxy),
    ):
        headers = [WITH_KEY, ("X-Forwarded-For", "198.51.100.1")]
        async with websocket(proxy, "/ws", additional_headers=headers, local_addr=(CLIENT, 0)):
            await upstream.accept()
            headers = [WITH_KEY, ("X-Forwarded-For", "198.51.100.2")]
            with pytest.raises(InvalidStatus, match="503"):
                await websocket(proxy, "/ws", additional_headers=headers, local_addr=(CLIENT, 0))
            async with websocket(proxy, "/ws", additional_headers=headers, local_addr=(OTHER_CLIENT, 0)):
                await upstream.accept()


async def tell(proxy: ReverseProxy, method: str, path: str, headers: Headers, body: Any = None) -> Answer:
    """One request of a browser to https://voice.example.com."""
    [answer] = await ask(
        proxy.port,
        request_bytes(
            method,
            path,
            NAME,
            [*headers, *([("Content-Type", "application/json")] if body else [])],
            json.dumps(body).encode() if body else b"",
        ),
        tls=True,
    )
    return answer


@pytest.mark.parametrize(
    ("kind", "passes_host"), [("nginx", True), ("nginx", False), ("haproxy", True), ("haproxy", False)]
)
async def test_an_admin_signs_in_and_out_through_the_proxy(kind: str, passes_host: bool, tmp_path: Path) -> None:
    instead = {"nginx": "", "haproxy": f"option forwardfor\n    http-request set-header Host {ADDRESS}"}[kind]
    async with (
        running_relay(
            NOWHERE, access_api_keys=(KEY,), access_admin_keys=(ADMIN_KEY,), recording_dir=tmp_path / "rec"
        ) as relay,
        documented_proxy(
            tmp_path, kind, relay.port, without="" if passes_host else PASSING_HOST[kind], more=instead
        ) as proxy,
    ):
        refused = await tell(proxy, "GET", "/recordings/list", OWN_PAGE)
        assert refused.status == 401
        assert (await tell(proxy, "POST", "/login", OWN_PAGE, {"key": KEY})).status == 401, "that is no admin's key"

        signed_in = await tell(proxy, "POST", "/login", OWN_PAGE, {"key": ADMIN_KEY})
        assert signed_in.status == 200
        name = f"relay_admin_{relay.port}"
        cookie = SimpleCookie(signed_in.headers["Set-Cookie"])[name]
        assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Strict")
        assert (cookie["path"], cookie["domain"], cookie["max-age"]) == ("/", "", "43200")

        with_cookie = ("Cookie", f"{name}={cookie.value}")
        listed = await tell(proxy, "GET", "/recordings/list", [with_cookie, ("Sec-Fetch-Site", "same-origin")])
        assert listed.status == 200
        assert "Access-Control-Allow-Origin" not in listed.headers
        for site in ("same-site", "cross-site"):
            other = [with_cookie, ("Sec-Fetch-Site", site)]
            assert (await tell(proxy, "GET", "/recordings/list", other)).status == 401
        assert (await tell(proxy, "GET", "/recordings/list", [with_cookie])).status == 401

        assert (await tell(proxy, "POST", "/logout", [with_cookie, *OWN_PAGE])).status == 200
        over = await tell(proxy, "GET", "/recordings/list", [with_cookie, ("Sec-Fetch-Site", "same-origin")])
        assert over.status == 401
