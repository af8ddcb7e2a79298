"""The hand-over of a connection from aiohttp to picows: what leans on undocumented parts of both is held here."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable
from time import thread_time
from typing import Any

import pytest
import uvloop
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # not in the stubs
from websockets.asyncio.client import connect

from relay.transport.read_budget import ReadBudget
from relay.transport.upgrade import Keepalive
from relay.transport.websocket import MAX_FRAMES_AFTER_CLOSE
from tests.support.raw_websocket import (
    MAX_BYTES,
    RawClient,
    RecordingConnection,
    UpgradeServer,
    binary,
    close,
    continuation,
    masked,
    ping,
    pong,
    raw_client,
    text,
    upgrade_request,
    upgrade_server,
)


@pytest.fixture
async def end():
    async with upgrade_server() as running:
        yield running


async def body(client: RawClient, head: bytes) -> dict[str, str]:
    [length] = [int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")]
    decoded: dict[str, str] = json.loads(await client.reader.readexactly(length))
    return decoded


# -- the hand-over ----------------------------------------------------------------------------------------------------


async def test_both_directions_after_the_upgrade(end: UpgradeServer) -> None:
    async with connect(f"ws://127.0.0.1:{end.port}/ws") as client:
        listener = await end.listener()
        await client.send("up")
        await client.send(b"\x01\x02")
        listener.send_text("dünn".encode())
        listener.send_binary(memoryview(b"x\x03\x04")[1:])
        assert [await client.recv(), await client.recv()] == ["dünn", b"\x03\x04"]
        await client.close(4000, "enough")
        assert await listener.wait_closed() == (4000, "enough")
        assert listener.messages == ["up", b"\x01\x02"]


async def test_data_right_behind_the_head_is_not_lost(end: UpgradeServer) -> None:
    client = await RawClient.open(end.port)
    early = [text("a", fin=False), continuation(b"b"), binary(b"c" * MAX_BYTES), close(1000, "that was all")]
    head = await client.upgrade(then=b"".join(masked(frame) for frame in early))
    assert head.startswith(b"HTTP/1.1 101 ")
    listener = await end.listener()
    assert await listener.wait_closed() == (1000, "that was all")
    assert listener.messages == ["ab", b"c" * MAX_BYTES]
    await client.close()


async def test_data_before_the_101_waits_for_it_however_much_it_is() -> None:
    async with upgrade_server(before_upgrade=asyncio.Event()) as end:
        assert end.before_upgrade is not None
        client = await RawClient.open(end.port)
        client.writer.write(upgrade_request())
        await end.upgrading.wait()
        messages = [b"%03d" % number + b"x" * 900 for number in range(200)]  # aiohttp stops reading after 64 KiB
        client.send(*[binary(message) for message in messages], close(1000))
        end.before_upgrade.set()
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        listener = await end.listener()
        assert await listener.wait_closed() == (1000, "")
        assert listener.messages == messages
        await client.close()


class Patient(RecordingConnection):
    """Reads no more after ten messages, until it is told to."""

    def __init__(self, max_message_bytes: int) -> None:
        super().__init__(max_message_bytes)
        self.paused = asyncio.Event()
        self.on_binary = self._take

    def _take(self, message: bytes) -> None:
        self.messages.append(message)
        if len(self.messages) == 10:
            self.pause_reading("test")
            self.paused.set()


async def test_data_before_the_101_comes_little_at_a_time_and_stops_while_nothing_is_read() -> None:
    async with upgrade_server(before_upgrade=asyncio.Event(), kind=Patient) as end:
        assert end.before_upgrade is not None
        client = await RawClient.open(end.port)
        client.writer.write(upgrade_request())
        await end.upgrading.wait()
        messages = [b"%04d" % number for number in range(4000)]
        client.send(*[binary(message) for message in messages], close(1000))
        end.before_upgrade.set()
        await client.head()
        listener = await end.listener()
        assert isinstance(listener, Patient)
        await listener.paused.wait()
        n_taken = len(listener.messages)
        assert 10 <= n_taken < 300, "what was taken at once is parsed, the rest waits"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(listener.messages) == n_taken
        listener.resume_reading("test")
        assert len(listener.messages) < n_taken + 300
        assert await listener.wait_closed() == (1000, "")
        assert listener.messages == messages
        await client.close()


async def test_half_a_frame_may_come_before_the_101() -> None:
    async with upgrade_server(before_upgrade=asyncio.Event()) as end:
        assert end.before_upgrade is not None
        client = await RawClient.open(end.port)
        frame = masked(text("in two halves"))
        client.writer.write(upgrade_request() + frame[:7])
        await end.upgrading.wait()
        end.before_upgrade.set()
        assert (await client.head()).startswith(b"HTTP/1.1 101 ")
        client.send(frame[7:], close(1000))
        listener = await end.listener()
        await listener.wait_closed()
        assert listener.messages == ["in two halves"]
        await client.close()


async def test_a_client_that_leaves_before_the_101_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with upgrade_server(before_upgrade=asyncio.Event()) as end:
        assert end.before_upgrade is not None
        client = await RawClient.open(end.port)
        client.writer.write(upgrade_request())
        await end.upgrading.wait()
        await client.close()
        await until(lambda: end.request is not None and end.request.transport is None)
        end.before_upgrade.set()
        await until(lambda: not end.runner.server.connections)
        assert end.listeners.empty()
        assert caplog.records == []
        async with raw_client(end) as (after, listener):
            after.send(close(1000))
            assert await listener.wait_closed() == (1000, "")


async def until(what: Callable[[], bool]) -> None:
    """Wait for something of which aiohttp tells nobody."""
    async with asyncio.timeout(5):
        while not what():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_connection_kept_alive_by_http_can_be_upgraded(end: UpgradeServer) -> None:
    client = await RawClient.open(end.port)
    client.writer.write(b"GET /plain HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert await client.reader.readexactly(5) == b"plain"
    assert (await client.upgrade(then=masked(text("hello")))).startswith(b"HTTP/1.1 101 ")
    listener = await end.listener()
    client.send(close(1000))
    await listener.wait_closed()
    assert listener.messages == ["hello"]
    await client.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"Connection": "keep-alive, Upgrade"},  # Firefox
        {"Connection": "upgrade"},
        {"Upgrade": "WebSocket"},
        {"Host": "relay.example:8080", "User_Agent": "x" * 6000},
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
        {"X_Odd": "ümläut", "Cookie": "a=b; c=d"},
    ],
    ids=str,
)
async def test_heads_as_browsers_and_proxies_send_them(end: UpgradeServer, changes: dict[str, str]) -> None:
    async with raw_client(end, **changes) as (client, listener):
        client.send(text("hello"), close(1000))
        assert await listener.wait_closed() == (1000, "")
        assert listener.messages == ["hello"]


async def test_the_answer_names_the_subprotocol_and_no_extension() -> None:
    async with upgrade_server(subprotocol="relay") as end:
        client = await RawClient.open(end.port)
        head = await client.upgrade(
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
            Sec_WebSocket_Protocol="relay, other",
            Sec_WebSocket_Extensions="permessage-deflate",
        )
        lines = [line.lower() for line in head.decode().split("\r\n")]
        assert "sec-websocket-protocol: relay" in lines
        assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=" in lines  # the example of RFC 6455, 1.3
        assert not any(line.startswith("sec-websocket-extensions") for line in lines)
        await client.close()


async def test_the_server_forgets_a_connection_that_has_ended(end: UpgradeServer) -> None:
    for _ in range(3):
        async with raw_client(end) as (client, listener):
            client.send(close(1000))
            await listener.wait_closed()
    async with raw_client(end) as (client, listener):
        client.writer.transport.abort()
        await listener.wait_closed()
    await until(lambda: not end.runner.server.connections)


async def test_shutting_down_ends_the_connections_that_are_left() -> None:
    async with upgrade_server() as end:
        client = await RawClient.open(end.port)
        await client.upgrade()
        listener = await end.listener()
        listener.close(1001, "restarting")
        client.send(close(1001))
    assert await client.close_code() == 1001
    await client.close()


# -- what is no upgrade -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"Upgrade": None, "Connection": None}, "Upgrade"),
        ({"Upgrade": "h2c"}, "Upgrade"),
        ({"Connection": None}, "Connection"),
        ({"Connection": "keep-alive"}, "Connection"),
        ({"Sec_WebSocket_Version": None}, "Sec-WebSocket-Version"),
        ({"Sec_WebSocket_Version": "8"}, "Sec-WebSocket-Version"),
        ({"Sec_WebSocket_Key": None}, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": ""}, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": "not base64 at all!!!!!!!"}, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ"}, "Sec-WebSocket-Key"),
        ({"Sec_WebSocket_Key": "ünïcödé"}, "Sec-WebSocket-Key"),
    ],
    ids=str,
)
async def test_what_is_no_upgrade_is_answered_with_the_field(
    end: UpgradeServer, changes: dict[str, str | None], field: str
) -> None:
    client = await RawClient.open(end.port)
    head = await client.upgrade(**changes)
    assert head.startswith(b"HTTP/1.1 400 ")
    answer = await body(client, head)
    assert answer["field"] == field
    assert answer["error"]
    assert end.listeners.empty()
    await client.close()


async def test_another_method_is_no_upgrade(end: UpgradeServer) -> None:
    client = await RawClient.open(end.port)
    client.writer.write(upgrade_request().replace(b"GET ", b"POST ", 1))
    assert (await client.head()).startswith(b"HTTP/1.1 405 ")
    await client.close()


# -- the parts in use that nobody documents ---------------------------------------------------------------------------


async def test_picows_still_takes_its_arguments_in_this_order(end: UpgradeServer) -> None:
    async with raw_client(end) as (_, listener):
        assert listener.transport is not None
        assert not listener.transport.is_client_side
        protocol = listener.transport.underlying_transport.get_protocol()
        assert isinstance(protocol, WSProtocol)
        assert type(protocol).connection_lost is not WSProtocol.connection_lost


async def test_the_options_land_where_they_are_meant_to(end: UpgradeServer) -> None:
    """The frame limit, the pings and the answers to pings are each at their own place among the arguments."""
    end.keepalive = Keepalive(0.05, 0.05)
    async with raw_client(end) as (client, listener):
        assert (await client.frame())[0] == 9, "a ping when the client is silent"
        assert await client.close_code() == 1001, "and the end when it stays so"
        assert (await listener.wait_closed())[0] in (1001, 1006)
    async with raw_client(end) as (client, listener):
        client.send(binary(bytes(10 * MAX_BYTES + 1)))
        assert await client.close_code() == 1009
        assert listener.messages == []


# -- a client that sends more than it may -----------------------------------------------------------------------------


async def test_what_a_client_sends_while_it_is_not_read_is_left_to_its_own_end(end: UpgradeServer) -> None:
    async with raw_client(end) as (client, listener):
        listener.pause_reading("test")
        flood = masked(binary(bytes(MAX_BYTES)))
        n_sent = 0
        while client.writer.transport.get_write_buffer_size() < 1024 * 1024:
            client.send(*[flood] * 100)
            n_sent += 100
            await asyncio.sleep(0)
        assert n_sent * len(flood) < 8 * 1024 * 1024, "the kernel holds no more than some MiB for both ends"
        protocol = listener.transport.underlying_transport.get_protocol()
        listener.resume_reading("test")
        client.send(close(1000))
        assert (await listener.wait_closed())[0] == 1000
        assert len(listener.messages) == n_sent
        assert len(protocol.get_buffer(-1)) < 512 * 1024, "picows' buffer grows to what one read brings"


async def test_a_sparing_reader_that_is_paused_has_little_left_to_parse(end: UpgradeServer) -> None:
    async with raw_client(end) as (client, listener):
        listener.throttle_reads()
        listener.throttle_reads()
        listener.on_control_frame = lambda: listener.pause_reading("test")
        seen = []
        listener.on_text = seen.append
        client.send(ping(), *[text("x")] * 5000, close(1000))
        assert (await client.frame())[0] == 10
        assert len(seen) < 200
        listener.resume_reading("test")
        await listener.wait_closed()
        assert len(seen) == 5000


async def rounds_of(
    frames: list[bytes], on_text: Callable[[], None], *, sparing: bool = True, **options: Any
) -> Counter[int]:
    """How many of these messages each round of the loop brings."""
    loop, rounds = asyncio.get_running_loop(), Counter[int]()
    n_round = 0

    def next_round() -> None:
        nonlocal n_round
        n_round += 1
        loop.call_soon(next_round)

    def count(_: bytes) -> None:
        rounds[n_round] += 1
        on_text()

    async with upgrade_server(**options) as end, raw_client(end) as (client, listener):
        if sparing:
            listener.throttle_reads()
        listener.on_text = count
        next_round()
        client.send(*frames, close(1000))
        await listener.wait_closed()
    return rounds


def work() -> None:
    """What a message may cost: 0.1 ms."""
    until_s = thread_time() + 0.0001
    while thread_time() < until_s:
        pass


def test_a_sparing_reader_reads_once_around_the_loop() -> None:
    # libuv, unlike asyncio's own loop, reads a socket up to 32 times in a row while there is more.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rounds = runner.run(rounds_of([text("x" * 26)] * 1000, work))  # frames of 32 bytes
    assert rounds.total() == 1000
    assert max(rounds.values()) <= 9


def test_a_sparing_reader_reads_more_at_once_of_what_costs_little() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rounds = runner.run(rounds_of([text("x" * 50)] * 4000, lambda: None))
    assert rounds.total() == 4000
    assert max(rounds.values()) > 64, "256 bytes hold five of them"


async def test_a_long_message_makes_no_room_for_many_short_ones_at_once() -> None:
    frames = [text("x" * 200_000), *[text("x" * 26)] * 3000]
    options = {"sparing": False, "read_within": (ReadBudget(), "owner"), "max_bytes": 300_000}
    rounds = await rounds_of(frames, lambda: None, **options)
    assert rounds.total() == 3001
    assert max(rounds.values()) <= 8192 / 32 + 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the room of a long message stays")
async def test_the_room_of_a_long_message_is_given_back_and_what_follows_is_whole() -> None:
    async with (
        upgrade_server(read_within=(ReadBudget(), "owner"), max_bytes=3_000_000) as end,
        raw_client(end) as (client, listener),
    ):
        both = asyncio.Event()
        listener.on_text = lambda message: (
            listener.messages.append(message),
            both.set() if len(message) == 9 else None,
        )
        client.send(text("x" * 2_000_000), text("a" * 9))
        await both.wait()
        protocol = listener.transport.underlying_transport.get_protocol()
        unused = WSProtocol.get_buffer(protocol, -1)
        assert len(unused) > 2_000_000
        assert not any(unused[100_000:1_900_000]), "the system gives empty pages in place of those that it took"
        client.send(text("y" * 500_000), text("b" * 9), close(1000))
        await listener.wait_closed()
        assert [message[:1] * len(message) for message in listener.messages] == listener.messages
        assert [len(message) for message in listener.messages] == [2_000_000, 9, 500_000, 9]


async def test_pongs_and_fragments_are_told_too_for_they_cost_as_much(end: UpgradeServer) -> None:
    async with raw_client(end) as (client, listener):
        told = []
        listener.on_control_frame = lambda: told.append("control")
        listener.on_fragment = lambda: told.append("fragment")
        client.send(
            pong(), text("a", fin=False), continuation(b"b", fin=False), ping(), continuation(b"c"), close(1000)
        )
        await listener.wait_closed()
        assert told == ["control", "fragment", "fragment", "control"]
        assert listener.messages == ["abc"]


async def test_who_floods_after_our_close_is_read_no_more_and_still_learns_why_we_hang_up(end: UpgradeServer) -> None:
    client = await RawClient.open(end.port)
    await client.upgrade()
    listener = await end.listener()
    flood = masked(text("{")) * 4000
    listener.close(1008, "enough")
    for _ in range(8):
        client.writer.write(flood)
    await until(lambda: listener.is_reading_paused)
    assert MAX_FRAMES_AFTER_CLOSE <= listener._frames_after_close < MAX_FRAMES_AFTER_CLOSE + 300
    assert await client.close_code() == 1008
    assert await listener.wait_closed() == (1008, "enough"), "its time is up"
    await client.close()
