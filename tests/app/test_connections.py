"""Connections on raw sockets: deadlines, and what is no request. Undocumented parts of aiohttp are held here."""

import asyncio
import base64
import logging
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from relay import tool
from relay.testing import ScriptedUpstream
from relay.toolkit.registry import Tool, ToolRegistry
from tests.support.raw_requests import RawHttpConnection, head, send_request
from tests.support.raw_websocket import RawClient, masked, text, upgrade_request
from tests.support.relay_server import DeviceClient, RunningRelay, running_relay
from tests.transport.test_upgrade import until

TIMEOUT_S = 0.2
SECRET = "sk-proj-0123456789abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
async def relay() -> AsyncIterator[RunningRelay]:
    async with running_relay("ws://127.0.0.1:1", request_timeout_s=TIMEOUT_S) as running:
        yield running


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# -- what is no request -----------------------------------------------------------------------------------------------

TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(200))
NO_REQUESTS = {
    "20 bytes of rubbish": b"\x8f\x01\xfe rubbish 012345\r\n",
    "a TLS hello": TLS_HELLO,
    "a method that is none": f"G@T /{SECRET} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "another protocol's version": f"GET /{SECRET} HTTP/9.9\r\nHost: localhost\r\n\r\n".encode(),
    "a header without a colon": f"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization {SECRET}\r\n\r\n".encode(),
    "a NUL in a header": f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {SECRET}\0\r\n\r\n".encode(),
    "a NUL in the path": f"GET /{SECRET}\0 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "a chunk size that is none": head("POST", "/login", Transfer_Encoding="chunked") + f"{SECRET}\r\n".encode(),
    "a length that is none": head("POST", "/login", Content_Length=SECRET),
    "two lengths": b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
}


@pytest.mark.parametrize("what", NO_REQUESTS)
async def test_what_is_no_request_is_a_400_in_json_and_one_line(
    relay: RunningRelay, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    async with await RawHttpConnection.open(relay.port) as client:
        client.send(NO_REQUESTS[what])
        answer = await client.response()
        assert await client.is_closed()
    assert answer.status == 400
    assert answer.json()["error"].startswith("This is no HTTP/1.1 request")
    [line] = refusals(caplog)
    assert line.startswith("refused 127.0.0.1 ? ?: 400 This is no HTTP/1.1 request")
    assert SECRET not in line + answer.body.decode()


@pytest.mark.parametrize(
    "request_bytes",
    [
        f"GET /{SECRET * 200} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {SECRET * 200}\r\n\r\n".encode(),
        f"GET / HTTP/1.1\r\nHost: localhost\r\n{SECRET * 200}: x\r\n\r\n".encode(),
    ],
)
async def test_a_line_that_is_too_long_is_told_its_bound(relay: RunningRelay, request_bytes: bytes) -> None:
    answer = await send_request(relay.port, request_bytes)
    assert answer.status == 400
    assert "at most 8190 bytes" in answer.json()["error"]
    assert SECRET not in answer.body.decode()


async def test_a_chunk_that_goes_wrong_later_is_a_400_at_once(relay: RunningRelay) -> None:
    async with await RawHttpConnection.open(relay.port) as client:
        json = {"Content_Type": "application/json", "Transfer_Encoding": "chunked"}
        client.send(head("POST", "/login", Expect="100-continue", **json))
        assert (await client.response()).status == 100
        client.send(b"1\r\n{\r\nno size\r\n")
        answer = await client.response()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert answer.json()["error"].startswith("The body cannot be read")
        assert await client.is_closed()


async def test_who_leaves_within_a_body_is_one_line_and_no_traceback(
    relay: RunningRelay, caplog: pytest.LogCaptureFixture
) -> None:
    async with await RawHttpConnection.open(relay.port) as client:
        client.send(head("POST", "/login", Content_Type="application/json", Content_Length="9", Expect="100-continue"))
        assert (await client.response()).status == 100
    assert (await send_request(relay.port, head("GET", "/healthz"))).status == 200  # by now the relay has seen it leave
    [line] = refusals(caplog)
    assert line == "refused 127.0.0.1 POST /login: 400 The body was cut short: the client has left."
    assert not any(record.exc_info for record in caplog.records)


async def test_what_follows_a_declined_upgrade_is_answered_in_json_too(relay: RunningRelay) -> None:
    async with await RawHttpConnection.open(relay.port) as client:
        client.send(head("GET", "/ws", Connection="Upgrade", Upgrade="websocket") + b"\x00\x01\x02\r\n\r\n")
        assert (await client.response()).status == 400
        assert "no HTTP/1.1 request" in (await client.response()).json()["error"]


async def test_tls_on_a_plain_port_ends_at_once(relay: RunningRelay) -> None:
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection("127.0.0.1", relay.port, ssl=ssl.create_default_context())


# -- the deadline -----------------------------------------------------------------------------------------------------


async def drip(client: RawHttpConnection, data: bytes) -> None:
    """A byte now and then, as long as the connection lives."""
    for index in range(len(data)):
        client.send(data[index : index + 1])
        await asyncio.sleep(0.02)


ENDLESS = b"x" * 1000
DRIPPED = {
    "the first line": (b"", b"GET /" + ENDLESS),
    "a header": (head("GET", "/").removesuffix(b"\r\n"), b"X: " + ENDLESS),
    "a body": (head("POST", "/login", Content_Type="application/json", Content_Length="1000"), ENDLESS),
    "a body in chunks": (
        head("POST", "/login", Content_Type="application/json", Transfer_Encoding="chunked"),
        b"1\r\nx\r\n" * 1000,
    ),
}


@pytest.mark.parametrize("what", DRIPPED)
async def test_a_request_that_does_not_end_is_a_408(
    relay: RunningRelay, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    at_once, slowly = DRIPPED[what]
    async with await RawHttpConnection.open(relay.port) as client:
        started_s = asyncio.get_running_loop().time()
        client.send(at_once)
        dripping = asyncio.create_task(drip(client, slowly))
        answer = await client.response()
        took_s = asyncio.get_running_loop().time() - started_s
        assert await client.is_closed()
        dripping.cancel()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert f"within {TIMEOUT_S:g} s" in answer.json()["error"]
    assert took_s >= TIMEOUT_S
    assert any(": 408 A request must arrive within" in line for line in refusals(caplog))


async def as_long_as_idle_ones_last(relay: RunningRelay) -> None:
    """Wait until a new connection has been closed because it was idle."""
    async with await RawHttpConnection.open(relay.port) as idle:
        assert await idle.is_closed()


async def as_long_as_requests_may_take(relay: RunningRelay) -> None:
    """Wait until a new request has been refused because it took too long to arrive."""
    assert (await send_request(relay.port, b"GET / HTTP/1.1\r\n")).status == 408


async def test_the_time_begins_with_the_first_byte_and_not_with_the_connection() -> None:
    async with (
        running_relay("ws://127.0.0.1:1", keepalive_timeout_s=0.3) as relay,
        await RawHttpConnection.open(relay.port) as client,
    ):
        for _ in range(2):
            client.send(b"GET /healthz HTTP/1.1\r\n")
            await as_long_as_idle_ones_last(relay)
            client.send(b"Host: localhost\r\n\r\n")
            assert (await client.response()).status == 200
        assert await client.is_closed(), "it is idle now"


async def test_a_body_that_nobody_waits_for_disturbs_no_answer(relay: RunningRelay) -> None:
    async with await RawHttpConnection.open(relay.port) as client:
        client.send(head("GET", "/healthz", Content_Length="10"))
        assert (await client.response()).status == 200
        assert await client.is_closed()


async def test_a_slow_tool_and_what_waits_behind_it_are_not_cut() -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    @tool
    async def slow() -> str:
        """Take long."""
        has_begun.set()
        await may_end.wait()
        return "done"

    registry = ToolRegistry([Tool.from_function(slow)])
    body = b'{"function_name": "slow"}'
    request = head("POST", "/navai/functions/execute", Content_Type="application/json", Content_Length=str(len(body)))
    async with (
        running_relay("ws://127.0.0.1:1", registry, request_timeout_s=0.1) as relay,
        await RawHttpConnection.open(relay.port) as client,
    ):
        client.send(request + body)
        await has_begun.wait()
        client.send(head("GET", "/healthz")[:-2])  # the next one, but for its last line
        await as_long_as_requests_may_take(relay)
        may_end.set()
        assert (await client.response()).json()["result"] == "done"
        client.send(b"\r\n")
        assert (await client.response()).status == 200


async def test_a_session_lasts_longer_than_a_request_may_take() -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url, request_timeout_s=0.3, keepalive_timeout_s=0.3) as relay,
        await DeviceClient.connect(relay.ws()) as client,
    ):
        await (await upstream.accept()).configure()
        await client.expect("AIConnected")
        await asyncio.gather(as_long_as_idle_ones_last(relay), as_long_as_requests_may_take(relay))
        await client.send(type="hello", v=1)
        await client.expect("ready")


# -- what comes at once -----------------------------------------------------------------------------------------------


async def test_a_body_of_thousands_of_chunks_is_parsed_in_pieces_and_whole() -> None:
    @tool
    def echo(text: str) -> str:
        """Says it again."""
        return text

    body = b'{"function_name": "echo", "payload": {"text": "%s"}}' % (b"x" * 20_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    call = head("POST", "/navai/functions/execute", Content_Type="application/json", Transfer_Encoding="chunked")
    async with running_relay("ws://127.0.0.1:1", ToolRegistry([Tool.from_function(echo)])) as relay:
        answer = await send_request(relay.port, call + chunks)
    assert answer.json()["result"] == "x" * 20_000


async def test_what_comes_with_an_upgrade_is_the_sessions_in_its_order() -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url) as relay:
        client = await RawClient.open(relay.port)
        sound = [bytes([number]) * 960 for number in range(200)]
        frames = [
            masked(text(f'{{"type":"input_audio_buffer.append","audio":"{base64.b64encode(one).decode()}"}}'))
            for one in sound
        ]
        client.writer.write(upgrade_request("/v1/realtime") + b"".join(frames))
        session = await upstream.accept()
        await session.emit({"type": "session.created", "session": {"type": "realtime"}})
        assert await session.expect_audio(200 * 960) == b"".join(sound)
        await client.close()


# -- answers that are not read ----------------------------------------------------------------------------------------


@tool
def long_text() -> str:
    """Answers at length."""
    return "x" * 1_000_000


def ask_at_length() -> bytes:
    body = b'{"function_name": "long_text", "payload": {}}'
    return head(
        "POST", "/navai/functions/execute", Content_Type="application/json", Content_Length=str(len(body))
    ) + body  # fmt: skip


@pytest.fixture
async def talkative(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningRelay]:
    monkeypatch.setattr("relay.app.connections.RESPONSE_STALL_S", 0.1)
    tools = ToolRegistry([Tool.from_function(long_text)])
    async with running_relay("ws://127.0.0.1:1", tools) as running:
        yield running


async def slow_client(port: int) -> RawHttpConnection:
    """A client for which the kernel keeps little of what it does not read."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.setblocking(False)
    await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
    client = RawHttpConnection(*await asyncio.open_connection(sock=line))
    client.writer.transport.pause_reading()
    return client


async def test_who_does_not_read_an_answer_is_cut(talkative: RunningRelay, caplog: pytest.LogCaptureFixture) -> None:
    async with await slow_client(talkative.port) as client:
        client.send(ask_at_length() * 12)  # the kernel takes the first few, for whoever may read them
        await until(lambda: bool(refusals(caplog)))
        [line] = refusals(caplog)
        assert "The answer is not read: at least 65536 bytes must be, each 0.1 s." in line
        assert "closed" in line
        client.writer.transport.resume_reading()
        await client.wait_closed()


async def test_who_reads_an_answer_slowly_has_all_of_it(talkative: RunningRelay) -> None:
    async with await slow_client(talkative.port) as client:
        client.send(ask_at_length() * 12)
        client.writer.transport.resume_reading()
        for _ in range(12):
            head_bytes = await client.head()
            n_bytes = int(head_bytes.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await client.reader.readexactly(n_bytes)
            await asyncio.sleep(0.03)  # longer in all than anybody who does not read has


async def test_one_caller_has_so_many_requests_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.app.session_limiter.MAX_REQUESTS_PER_CLIENT", 2)
    gate, running_calls = asyncio.Event(), asyncio.Semaphore(0)

    @tool
    async def slow() -> str:
        """Waits."""
        running_calls.release()
        await gate.wait()
        return "done"

    body = b'{"function_name": "slow", "payload": {}}'
    call = (
        head("POST", "/navai/functions/execute", Content_Type="application/json", Content_Length=str(len(body))) + body
    )
    async with running_relay("ws://127.0.0.1:1", ToolRegistry([Tool.from_function(slow)])) as relay:
        clients = [await RawHttpConnection.open(relay.port) for _ in range(2)]
        for client in clients:
            client.send(call)
            await running_calls.acquire()
        refused = await send_request(relay.port, call)
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert "at most 2 of one caller" in refused.json()["error"]
        gate.set()
        for client in clients:
            assert (await client.response()).status == 200
            client.writer.transport.abort()
        assert (await send_request(relay.port, call)).status == 200
