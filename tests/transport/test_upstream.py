"""Connecting to the upstream: success, every way it can fail, and the key that nobody else may see."""

import asyncio
import logging
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve

from relay.transport import upstream
from relay.transport.upstream import UpstreamConnectError, UpstreamConnection, connect_upstream, netloc_of

KEY = "sk-very-secret-0123456789"
HEADERS = {"Authorization": f"Bearer {KEY}"}
CERTIFICATE = Path(__file__).parent.parent / "support" / "self_signed.pem"
TIMEOUT_S = 10.0


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def refused(url: str, timeout_s: float = 5.0) -> UpstreamConnectError:
    """Dial in vain; the key must not show in anything that is said about it."""
    with pytest.raises(UpstreamConnectError) as raised:
        await connect_upstream(url, HEADERS, UpstreamConnection(), timeout_s)
    text = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert KEY not in text
    return raised.value


# -- a connection that stands -----------------------------------------------------------------------------------------


async def test_messages_go_both_ways_and_the_key_arrives() -> None:
    seen: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def handle(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.put_nowait(connection.request.headers["Authorization"])
        seen.put_nowait(connection.request.path)
        await connection.send('{"type":"session.created"}')
        async for message in connection:
            seen.put_nowait(message)

    async with serve(handle, "127.0.0.1", 0) as server:
        line = UpstreamConnection()
        heard: asyncio.Queue[str] = asyncio.Queue()
        ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        line.on_text = lambda message: heard.put_nowait(message.decode())
        line.on_closed = lambda code, reason: ended.set_result((code, reason))
        await connect_upstream(f"ws://127.0.0.1:{port_of(server)}/v1/realtime?model=m", HEADERS, line)
        async with asyncio.timeout(TIMEOUT_S):
            assert await seen.get() == f"Bearer {KEY}"
            assert await seen.get() == "/v1/realtime?model=m"
            assert await heard.get() == '{"type":"session.created"}'
            line.send_text(b'{"type":"session.update"}')
            assert await seen.get() == '{"type":"session.update"}'
            line.close(1000)
            assert await ended == (1000, "")


async def test_the_upstreams_close_code_and_reason_are_told() -> None:
    async def handle(connection: ServerConnection) -> None:
        await connection.close(1001, "maximum duration of 60 minutes")

    async with serve(handle, "127.0.0.1", 0) as server:
        line = UpstreamConnection()
        ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        line.on_closed = lambda code, reason: ended.set_result((code, reason))
        await connect_upstream(f"ws://127.0.0.1:{port_of(server)}", {}, line)
        async with asyncio.timeout(TIMEOUT_S):
            assert await ended == (1001, "maximum duration of 60 minutes")


async def test_tls_with_a_certificate_that_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(connection: ServerConnection) -> None:
        await connection.send("hello")
        await connection.wait_closed()

    monkeypatch.setattr(upstream, "_tls_context", lambda: ssl.create_default_context(cafile=CERTIFICATE))
    async with serve(handle, "127.0.0.1", 0, ssl=server_context()) as server:
        line = UpstreamConnection()
        heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        line.on_text = heard.set_result
        await connect_upstream(f"wss://localhost:{port_of(server)}/", HEADERS, line)
        async with asyncio.timeout(TIMEOUT_S):
            assert await heard == b"hello"
        assert line.transport is not None
        assert line.transport.is_secure
        line.close(1000)


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


# -- a refusal --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def http_server(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "retryable", "words"),
    [
        (400, False, "no reason given"),
        (401, False, "check the key"),
        (403, False, "may not use this model"),
        (404, False, "the model or the URL does not exist; check both"),
        (429, True, "try again later"),
        (500, True, "try again later"),
        (503, True, "try again later"),
        (200, True, "no reason given"),
    ],
)
async def test_an_http_status_is_a_refusal_with_a_hint(status: int, retryable: bool, words: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": f"no, {KEY}"}}, status=status)

    async with http_server(answer) as port:
        refusal = await refused(f"ws://127.0.0.1:{port}/v1/realtime?api-key={KEY}")
    assert (refusal.status, refusal.retryable) == (status, retryable)
    assert f"with {status}" in str(refusal)
    assert words in str(refusal)


async def test_a_redirect_is_not_followed_and_the_key_goes_nowhere_else() -> None:
    elsewhere: list[web.Request] = []

    async def other(request: web.Request) -> web.Response:
        elsewhere.append(request)
        return web.Response()

    async with http_server(other) as other_port:

        async def answer(request: web.Request) -> web.Response:
            raise web.HTTPFound(f"http://127.0.0.1:{other_port}/caught?{KEY}")

        async with http_server(answer) as port:
            refusal = await refused(f"ws://127.0.0.1:{port}/")
    assert elsewhere == []
    assert (refusal.status, refusal.retryable) == (302, False)
    assert "redirects to another URL" in str(refusal)


async def test_nobody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening: refused for sure
        refusal = await refused(f"ws://127.0.0.1:{listener.getsockname()[1]}/?api-key={KEY}")
    assert (refusal.status, refusal.retryable) == (None, True)
    assert "is unreachable: " in str(refusal)


async def test_a_name_that_nobody_has() -> None:
    refusal = await refused(f"ws://nowhere.invalid/?api-key={KEY}")
    assert (refusal.status, refusal.retryable) == (None, True)
    assert "is unreachable: " in str(refusal)


# -- peers that are no WebSocket server -------------------------------------------------------------------------------

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tcp_server(peer: Peer, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    tasks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await peer(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context) as server:
        try:
            yield port_of(server)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 2",
    ],
    ids=["nothing", "another protocol", "bare 101", "wrong accept", "half an answer"],
)
async def test_a_peer_that_does_not_answer_as_it_should(answer: bytes) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with tcp_server(peer) as port:
        refusal = await refused(f"ws://127.0.0.1:{port}/?api-key={KEY}")
    assert refusal.status is None


async def test_a_self_signed_certificate_is_not_trusted_and_the_key_is_not_sent() -> None:
    received: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1000))

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # the server's side of the failure
    async with tcp_server(peer, server_context()) as port:
        refusal = await refused(f"wss://localhost:{port}/?api-key={KEY}")
    assert (refusal.status, refusal.retryable) == (None, False)
    assert "The TLS connection to the upstream failed: " in str(refusal)
    assert b"".join(received) == b""


async def test_a_plain_server_where_tls_is_expected() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with tcp_server(peer) as port:
        refusal = await refused(f"wss://127.0.0.1:{port}/")
    assert refusal.status is None
    assert "TLS" in str(refusal)


# -- patience and its end ---------------------------------------------------------------------------------------------


class SilentPeer:
    """Takes a connection, reads the request, says nothing, and waits for the other side to leave."""

    def __init__(self) -> None:
        self.asked, self.left = asyncio.Event(), asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked.set()
        try:
            while await reader.read(1000):
                pass
        except ConnectionError:
            pass
        self.left.set()


async def test_a_peer_that_says_nothing_is_given_up_and_hung_up_on() -> None:
    peer = SilentPeer()
    async with tcp_server(peer) as port:
        refusal = await refused(f"ws://127.0.0.1:{port}/?api-key={KEY}", timeout_s=0.1)
        assert (refusal.status, refusal.retryable) == (None, True)
        assert "did not answer in time" in str(refusal)
        async with asyncio.timeout(TIMEOUT_S):
            await peer.left.wait()


async def test_a_cancelled_dial_leaves_no_connection() -> None:
    peer = SilentPeer()
    async with tcp_server(peer) as port:
        line = UpstreamConnection()
        dialling = asyncio.create_task(connect_upstream(f"ws://127.0.0.1:{port}/", HEADERS, line, timeout_s=600))
        await peer.asked.wait()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        async with asyncio.timeout(2):
            await peer.left.wait()
        assert not line.is_open


async def test_a_dial_cancelled_before_it_began_leaves_nothing() -> None:
    peer = SilentPeer()
    async with tcp_server(peer) as port:
        dialling = asyncio.create_task(
            connect_upstream(f"ws://127.0.0.1:{port}/", HEADERS, UpstreamConnection(), timeout_s=600)
        )
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
    assert not peer.asked.is_set()


# -- what the log says ------------------------------------------------------------------------------------------------


async def test_the_log_names_the_host_and_never_the_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with tcp_server(hang_up) as port:
        await refused(f"ws://user:{KEY}@127.0.0.1:{port}/path?api-key={KEY}")
    assert f"127.0.0.1:{port}" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("wss://api.openai.com/v1/realtime?model=m", "api.openai.com"),
        ("ws://user:word@127.0.0.1:8081/x?key=1", "127.0.0.1:8081"),
        ("ws:///nothing", "the upstream"),
    ],
)
def test_the_host_of_a_url(url: str, host: str) -> None:
    assert netloc_of(url) == host
