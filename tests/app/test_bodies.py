"""Bodies: none is inflated, and none is read that nobody asked for."""

import asyncio
import functools
import time
import zlib
from collections.abc import AsyncIterator
from http.client import HTTPConnection
from socket import SO_SNDBUF, SOL_SOCKET

import pytest

from relay.app.middleware import HANDLER_ARGS, LINGERING_BYTES
from tests.support.raw_requests import RawHttpConnection, head, send_request
from tests.support.relay_server import RunningRelay, running_relay


@pytest.fixture
async def relay() -> AsyncIterator[RunningRelay]:
    async with running_relay("ws://127.0.0.1:1") as running:
        yield running


def inflates_to(n_bytes: int, window_bits: int) -> bytes:
    """So many zeros, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, window_bits)
    piece = bytes(1024 * 1024)
    return b"".join(packer.compress(piece) for _ in range(n_bytes // len(piece))) + packer.flush()


@functools.cache
def seconds_to_inflate(body: bytes) -> float:
    """Processor time."""
    started_s = time.thread_time()
    zlib.decompress(body, 31)
    return time.thread_time() - started_s


GZIP = inflates_to(64 * 1024 * 1024, 31)
DEFLATE = inflates_to(64 * 1024 * 1024, 15)
ROUTES = [
    ("GET", "/healthz"),
    ("GET", "/nowhere"),
    ("POST", "/login"),
    ("POST", "/logout"),
    ("POST", "/navai/functions/execute"),
    ("POST", "/v1/realtime/client_secrets"),
    ("DELETE", "/"),
    ("OPTIONS", "/navai/functions"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_compressed_body_is_refused_on_every_route(relay: RunningRelay, method: str, path: str) -> None:
    about = {"Content_Encoding": "gzip", "Content_Length": str(len(GZIP)), "Connection": "close"}
    took_s = []
    for _ in range(3):
        started_s = time.thread_time()
        async with await RawHttpConnection.open(relay.port) as client:
            client.send(head(method, path, **about) + GZIP)
            answer = await client.response()
            assert await client.is_closed()  # the rest was thrown away
        took_s.append(time.thread_time() - started_s)
        assert answer.status == 415
        assert "without Content-Encoding" in str(answer.json())
        assert answer.headers["accept-encoding"] == "identity"
    assert min(took_s) < seconds_to_inflate(GZIP) / 4


async def test_a_compressed_body_is_refused_before_it_is_sent(relay: RunningRelay) -> None:
    answer = await send_request(
        relay.port, head("POST", "/login", Content_Encoding="gzip", Content_Length="1000", Expect="100-continue")
    )
    assert answer.status == 415


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, identity", "identity,br", "GZIP"])
async def test_every_coding_but_identity_is_refused(relay: RunningRelay, coding: str) -> None:
    body = DEFLATE if coding == "deflate" else GZIP
    answer = await send_request(
        relay.port, head("POST", "/login", Content_Encoding=coding, Content_Length=str(len(body))) + body
    )
    assert answer.status == 415


async def test_a_compressed_body_in_chunks_is_refused_too(relay: RunningRelay) -> None:
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(GZIP), GZIP)
    answer = await send_request(
        relay.port, head("POST", "/login", Content_Encoding="gzip", Transfer_Encoding="chunked") + chunks
    )
    assert answer.status == 415


async def test_identity_is_no_coding(relay: RunningRelay) -> None:
    assert (await send_request(relay.port, head("GET", "/healthz", Content_Encoding="Identity"))).status == 200


BODILESS = [
    ("GET", "/healthz", 200),
    ("GET", "/recordings/list", 401),
    ("DELETE", "/", 405),
    ("OPTIONS", "/", 405),
    ("POST", "/logout", 200),
    ("POST", "/v1/realtime/calls", 501),
    ("POST", "/nowhere", 404),
]


async def test_a_route_without_a_body_answers_before_it_came_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HANDLER_ARGS, "lingering_time", 0.1)

    async def answered(relay: RunningRelay, method: str, path: str) -> int:
        async with await RawHttpConnection.open(relay.port) as client:
            client.send(head(method, path, Content_Length="1000000") + b"x")
            answer = await client.response()
            assert answer.headers["connection"] == "close"
            assert await client.is_closed()
        return answer.status

    async with running_relay("ws://127.0.0.1:1") as relay:
        statuses = await asyncio.gather(*(answered(relay, method, path) for method, path, _ in BODILESS))
    assert statuses == [status for *_, status in BODILESS]


async def test_a_body_that_came_with_its_head_costs_no_connection(relay: RunningRelay) -> None:
    async with await RawHttpConnection.open(relay.port) as client:
        for _ in range(2):
            client.send(head("GET", "/healthz", Content_Length="3") + b"abc")
            assert (await client.response()).status == 200


async def test_an_upload_client_that_reads_after_sending_sees_its_413(relay: RunningRelay) -> None:
    def upload() -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", relay.port, timeout=10)
        connection.connect()
        connection.sock.setsockopt(SOL_SOCKET, SO_SNDBUF, 16 * 1024)  # what is sent has nearly all arrived
        json = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/realtime/client_secrets", b" " * 1_500_000, json)
        answer = connection.getresponse()
        return answer.status, answer.read()

    status, body = await asyncio.to_thread(upload)
    assert status == 413
    assert b"at most 1048576 bytes" in body


async def test_who_sends_an_endless_body_to_nobody_is_cut_off_after_a_mebibyte(relay: RunningRelay) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(head("POST", "/logout", Content_Length=str(1 << 40)))
    assert b" 200 " in await reader.readline()
    n_bytes = await send_until_cut(writer)
    assert n_bytes < LINGERING_BYTES + 8 * 1024 * 1024, "what the kernel holds comes on top"


async def send_until_cut(writer: asyncio.StreamWriter) -> int:
    """How many bytes went out before the other end closed."""
    n_bytes, piece = 0, bytes(64 * 1024)
    try:
        while True:
            writer.write(piece)
            await writer.drain()
            n_bytes += len(piece)
    except ConnectionError:
        return n_bytes
