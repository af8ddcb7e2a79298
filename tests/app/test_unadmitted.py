"""Connections whose clients have shown nothing yet are bounded, for one address and in all."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

import pytest

from relay.app.unadmitted import MAX_PER_ADDRESS, ConnectionLimiter
from relay.testing import ScriptedUpstream
from tests.support.raw_requests import RawHttpConnection, head, send_request
from tests.support.relay_command import serve_process
from tests.support.relay_server import DeviceClient, running_relay

KEY = "a-long-enough-key"


class Connection:
    """One that knows whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def evict(self) -> None:
        self.is_closed = True


class Wanted:
    """Bounded connections, and what was told of those that were closed."""

    def __init__(self, most: int, proxy: str = "") -> None:
        self.told: list[str] = []
        self.all = ConnectionLimiter(
            most, lambda address: address == proxy, lambda address, reason: self.told.append(f"{address} {reason}")
        )

    def connect(self, address: str = "203.0.113.1", count: int = 1) -> list[Connection]:
        connections = [Connection() for _ in range(count)]
        for connection in connections:
            self.all.add_idle(connection, address)
        return connections

    def begin(self, connections: list[Connection]) -> None:
        for connection in connections:
            self.all.mark_busy(connection)


def open_ones(connections: list[Connection]) -> list[bool]:
    return [not connection.is_closed for connection in connections]


def test_the_one_that_has_waited_longest_makes_room() -> None:
    bound = Wanted(4)
    connections = [bound.connect(f"203.0.113.{number}")[0] for number in range(5)]
    assert open_ones(connections) == [False, True, True, True, True]
    assert len(bound.all) == 4
    assert bound.told == [
        "203.0.113.0 There are already 4 idle or unauthenticated connections. This one was closed for a newer one."
    ]


def test_who_was_admitted_takes_no_place_and_begins_to_wait_anew_after_its_answer() -> None:
    bound = Wanted(2)
    first, second = (bound.connect(f"203.0.113.{number}")[0] for number in (1, 2))
    bound.all.remove(first)
    [third] = bound.connect("203.0.113.3")
    assert not second.is_closed
    bound.all.add_idle(first, "203.0.113.1")
    assert second.is_closed
    bound.connect("203.0.113.4")
    assert third.is_closed
    assert not first.is_closed


def test_an_address_with_half_of_the_places_closes_its_own_oldest_and_a_proxy_has_all() -> None:
    bound = Wanted(8, proxy="198.51.100.1")
    [other] = bound.connect("203.0.113.2")
    ours = bound.connect("203.0.113.1", 6)
    assert open_ones([other, *ours]) == [True, False, False, True, True, True, True]
    assert bound.told[0] == (
        "203.0.113.1 This address already has 4 idle or unauthenticated connections; close some of them. This one was "
        "closed for a newer one."
    )
    proxied = bound.connect("198.51.100.1", 20)
    assert open_ones(proxied) == [False] * 12 + [True] * 8
    assert len(bound.all) == 8


def test_who_comes_back_from_a_request_keeps_to_the_share_of_its_address() -> None:
    bound = Wanted(8)
    [first] = bound.connect()
    bound.all.remove(first)
    others = bound.connect(count=4)
    bound.all.add_idle(first, "203.0.113.1")
    assert open_ones([first, *others]) == [True, False, True, True, True]


def test_a_request_under_way_is_closed_after_those_that_are_idle() -> None:
    bound = Wanted(8)
    busy = bound.connect("203.0.113.1")
    bound.begin(busy)
    idle = [bound.connect(f"203.0.113.{number}")[0] for number in range(2, 100)]
    assert open_ones(busy) == [True]
    assert open_ones(idle) == [False] * 91 + [True] * 7
    same_address = bound.connect("203.0.113.1", 10)
    assert open_ones(busy) == [True]
    assert sum(open_ones(same_address)) == 3


def test_requests_under_way_leave_half_of_the_places_to_others() -> None:
    bound = Wanted(8)
    for number in range(100):
        bound.begin(bound.connect(f"203.0.113.{number}"))
    newest = [bound.connect(f"198.51.100.{number}")[0] for number in range(4)]
    for number in range(100, 200):
        bound.begin(bound.connect(f"203.0.113.{number}"))
    assert open_ones(newest[1:]) == [True] * 3
    assert len(bound.all) == 8


def test_who_was_closed_is_not_counted_when_its_request_begins() -> None:
    bound = Wanted(2)
    [first, *_] = [bound.connect(f"203.0.113.{number}")[0] for number in range(3)]
    bound.begin([first])
    bound.all.remove(first)
    assert len(bound.all) == 2


def test_nothing_is_kept_of_connections_that_are_gone() -> None:
    bound = Wanted(100_000)
    for number in range(100):
        connections = bound.connect(f"10.0.0.{number}", MAX_PER_ADDRESS + 1)
        assert open_ones(connections) == [False] + [True] * MAX_PER_ADDRESS
        bound.begin(connections[::2])
        for connection in connections:
            bound.all.remove(connection)
    assert len(bound.all) == 0


# -- on sockets -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def idle_connections(port: int, count: int, sources: tuple[str, ...] = ("127.0.0.1",)) -> AsyncIterator[None]:
    """So many connections that send nothing, from these addresses in turn, which the relay has accepted."""
    with ExitStack() as stack:
        for number in range(count):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.bind((sources[number % len(sources)], 0))
            client.connect_ex(("127.0.0.1", port))
            if number % 100 == 99 or number == count - 1:  # as many as a listener's queue takes
                assert (
                    await send_request(port, head("GET", "/healthz"))
                ).status == 200  # and this one comes last in it
        yield


async def test_1100_idle_connections_keep_nobody_out(tmp_path) -> None:
    settings = {"RELAY_API_KEYS": KEY, "RELAY_LOCAL": "off"}
    async with (
        ScriptedUpstream() as upstream,
        serve_process(tmp_path, open_files=(256, 1024), RELAY_UPSTREAM=upstream.url, **settings) as served,
    ):
        assert "this process may open 1024 files and sockets" in served.log, "the soft limit was raised"
        async with idle_connections(served.port, 1100):
            await check_that_a_client_gets_in(served.port, upstream)
        async with idle_connections(served.port, 300, tuple(f"127.0.0.{number}" for number in range(2, 12))):
            await check_that_a_client_gets_in(served.port, upstream)
        await served.read_until(r"refused 127\.0\.0\.2 \? \?: closed There are already 128 idle")


async def check_that_a_client_gets_in(port: int, upstream: ScriptedUpstream) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    async with await DeviceClient.connect(f"ws://127.0.0.1:{port}/", additional_headers=key) as client:
        await (await upstream.accept()).configure()
        await client.expect("AIConnected")
        assert (await send_request(port, head("GET", "/v1/models", **key))).status == 200


async def test_a_session_and_a_request_under_way_are_not_closed_for_idle_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    body = b'{"function_name": "none"}'
    upload_head = head(
        "POST", "/navai/functions/execute", Content_Type="application/json", Content_Length=str(len(body))
    )
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url) as relay,
        await DeviceClient.connect(relay.ws()) as client,
        await RawHttpConnection.open(relay.port) as upload,
        await RawHttpConnection.open(relay.port) as login,
    ):
        await (await upstream.accept()).configure()
        await client.expect("AIConnected")
        upload.send(upload_head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert (await upload.response()).status == 100
        login.send(head("POST", "/login", Content_Type="application/json", Content_Length="2", Expect="100-continue"))
        assert (await login.response()).status == 100
        async with await RawHttpConnection.open(relay.port) as first, idle_connections(relay.port, 513):
            assert await first.is_closed()
            upload.send(body)
            assert (await upload.response()).status == 404
            login.send(b"{}")
            assert (await login.response()).status == 400
            await client.send(type="hello", v=1)
            await client.expect("ready")
    assert any("closed There are already 512" in record.getMessage() for record in caplog.records)


async def test_who_was_let_in_and_is_idle_again_makes_room_too() -> None:
    async with (
        running_relay("ws://127.0.0.1:1") as relay,
        await RawHttpConnection.open(relay.port) as client,
    ):
        client.send(head("GET", "/v1/models"))
        assert (await client.response()).status == 200
        async with idle_connections(relay.port, 512):
            assert await client.is_closed()


async def test_an_address_with_its_share_has_its_oldest_closed_and_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = own_address()
    async with running_relay("ws://127.0.0.1:1", listen_on=address) as relay, AsyncExitStack() as stack:
        ours = [
            await stack.enter_async_context(await RawHttpConnection.open(relay.port, address))
            for _ in range(MAX_PER_ADDRESS + 1)
        ]
        assert await ours[0].is_closed()
        for client in (ours[1], ours[-1]):
            client.send(head("GET", "/healthz"))
            assert (await client.response()).status == 200
    [line] = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert line.startswith(f"refused {address} ? ?: closed This address already has {MAX_PER_ADDRESS} idle")


def own_address() -> str:
    """An address of this machine that is no loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no network")
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        pytest.skip("this machine has no network")
    return address
