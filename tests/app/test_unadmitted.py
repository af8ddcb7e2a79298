"""Connections whose clients have shown nothing yet are bounded, for one address and in all."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from relay.app.unadmitted import MOST_OF_ONE_ADDRESS, UnadmittedConnections
from relay.testing import ScriptedUpstream
from tests.support.raw_requests import RawRequests, ask, head
from tests.support.relay_command import serving
from tests.support.relay_server import DeviceClient, running_relay

KEY = "a-long-enough-key"


class Connection:
    """One that knows whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def make_room(self) -> None:
        self.is_closed = True


def counted(most: int, proxy: str = "") -> UnadmittedConnections:
    return UnadmittedConnections(most, lambda address: address == proxy, lambda address, reason: None)


def test_the_one_that_has_waited_longest_makes_room() -> None:
    connections = counted(4)
    first, second, *others = (Connection() for _ in range(5))
    for number, connection in enumerate((first, second, *others)):
        assert connections.connect(connection, f"203.0.113.{number}")
    assert first.is_closed
    assert not any(one.is_closed for one in (second, *others))
    assert len(connections) == 4


def test_who_was_admitted_takes_no_place_and_begins_to_wait_anew_after_its_answer() -> None:
    connections = counted(2)
    first, second, third, fourth = (Connection() for _ in range(4))
    connections.connect(first, "203.0.113.1")
    connections.connect(second, "203.0.113.2")
    connections.leave(first)
    connections.connect(third, "203.0.113.3")
    assert not second.is_closed
    connections.wait(first, "203.0.113.1")
    assert second.is_closed
    connections.connect(fourth, "203.0.113.4")
    assert third.is_closed
    assert not first.is_closed


def test_one_address_has_half_of_the_places_and_a_proxy_all() -> None:
    connections = counted(8, proxy="198.51.100.1")
    ours = [Connection() for _ in range(4)]
    assert all(connections.connect(one, "203.0.113.1") for one in ours)
    assert not connections.connect(Connection(), "203.0.113.1")
    assert connections.connect(Connection(), "203.0.113.2")
    connections.leave(ours[0])
    assert connections.connect(Connection(), "203.0.113.1")
    assert all(connections.connect(Connection(), "198.51.100.1") for _ in range(20))
    assert len(connections) == 8


def test_nothing_is_kept_of_connections_that_are_gone() -> None:
    connections = counted(100_000)
    for number in range(100):
        connection = Connection()
        for _ in range(MOST_OF_ONE_ADDRESS + 1):
            assert connections.connect(connection, f"10.0.{number // 256}.{number % 256}")
            connections.leave(connection)
    assert len(connections) == 0


# -- on sockets -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def idle_connections(port: int, count: int, sources: tuple[str, ...] = ("127.0.0.1",)) -> AsyncIterator[None]:
    """So many connections that send nothing, from these addresses in turn; as fast as a listener's queue takes them."""
    writers = []
    for first in range(0, count, 100):
        places = [(sources[number % len(sources)], 0) for number in range(first, min(first + 100, count))]
        dials = [asyncio.open_connection("127.0.0.1", port, local_addr=place) for place in places]
        writers += [writer for _, writer in await asyncio.gather(*dials)]
    try:
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


async def test_1100_idle_connections_keep_nobody_out(tmp_path) -> None:
    settings = {"RELAY_API_KEYS": KEY, "RELAY_LOCAL": "off"}
    async with (
        ScriptedUpstream() as upstream,
        serving(tmp_path, open_files=(256, 1024), RELAY_UPSTREAM=upstream.url, **settings) as served,
    ):
        assert "this process may open 1024 files and sockets" in served.log, "the soft limit was raised"
        for sources in (("127.0.0.1",), tuple(f"127.0.0.{number}" for number in range(2, 12))):
            async with idle_connections(served.port, 1100, sources):
                await check_that_a_client_gets_in(served.port, upstream)
        await served.read_until(r"refused 127\.0\.0\.2 \? \?: 503 There are 128 connections")


async def check_that_a_client_gets_in(port: int, upstream: ScriptedUpstream) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    async with await DeviceClient.connect(f"ws://127.0.0.1:{port}/", additional_headers=key) as client:
        await (await upstream.accept()).configure()
        await client.expect("AIConnected")
        assert (await ask(port, head("GET", "/v1/models", **key))).status == 200


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
        await RawRequests.open(relay.port) as upload,
    ):
        await (await upstream.accept()).configure()
        await client.expect("AIConnected")
        upload.send(upload_head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert (await upload.answer()).status == 100
        async with await RawRequests.open(relay.port) as first, idle_connections(relay.port, 513):
            assert await first.is_closed()
            upload.send(body)
            assert (await upload.answer()).status == 404
            await client.send(type="hello", v=1)
            await client.expect("ready")
    assert any("has waited longest" in record.getMessage() for record in caplog.records)


async def test_who_was_let_in_and_is_idle_again_makes_room_too() -> None:
    async with (
        running_relay("ws://127.0.0.1:1") as relay,
        await RawRequests.open(relay.port) as client,
    ):
        client.send(head("GET", "/v1/models"))
        assert (await client.answer()).status == 200
        async with idle_connections(relay.port, 512):
            assert await client.is_closed()


async def test_an_address_with_its_share_is_closed_at_once_and_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = own_address()
    async with running_relay("ws://127.0.0.1:1", listen_on=address) as relay, AsyncExitStack() as stack:
        taken = [
            await stack.enter_async_context(await RawRequests.open(relay.port, address))
            for _ in range(MOST_OF_ONE_ADDRESS)
        ]
        one_more = await stack.enter_async_context(await RawRequests.open(relay.port, address))
        assert await one_more.is_closed()
        taken[0].send(head("GET", "/healthz"))
        assert (await taken[0].answer()).status == 200
    [line] = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert line.startswith(f"refused {address} ? ?: 503 This address has {MOST_OF_ONE_ADDRESS} connections already")


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
