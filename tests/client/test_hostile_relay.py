"""`relay.client` against hostile and unlucky relays, over real sockets: it ends soon, and nothing grows."""

import asyncio
import base64
import gc
import hashlib
import json
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from relay.client import ClosedError, ConnectError, InvalidURL, ProtocolError, RelayClient, VirtualPlayer, connect
from relay.client.events import TextDeltaEvent
from relay.client.handshake import parse_url
from tests.support.scripted_relay import ScriptedConnection, scripted_relay

CONNECTED = json.dumps({"type": "event", "name": "AIConnected", "sessionId": "s_1"})
KEY = "relay-key-0123456789abcdef"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def frame(opcode: int, payload: bytes) -> bytes:
    n_bytes = len(payload)
    length = bytes([n_bytes]) if n_bytes < 126 else b"\x7f" + n_bytes.to_bytes(8)
    return bytes([0x80 | opcode]) + length + payload


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    key = next(line for line in lines if line.lower().startswith(b"sec-websocket-key:")).split()[1]
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    writer.write(head + base64.b64encode(digest) + b"\r\n\r\n" + frame(1, CONNECTED.encode()))


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    """A TCP server, and the URL of it. The connections end with it."""
    handlers: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        try:
            await handler(reader, writer)
        except (asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with listener:
        yield f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        for task in handlers:
            if task is not None:
                task.cancel()


async def stop_reading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await accept(reader, writer)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(60)


async def send_until_blocked(client: RelayClient) -> None:
    async def send() -> None:
        while True:
            await client.send_audio(bytes(32_000))

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send(), 0.3)


@pytest.mark.parametrize("is_failing", [False, True])
async def test_a_relay_that_does_not_read_is_left_soon(is_failing: bool) -> None:
    async with server(stop_reading) as url, asyncio.timeout(8):
        try:
            async with connect(url, key="") as client:
                await send_until_blocked(client)
                if is_failing:
                    raise KeyError
        except KeyError:
            assert is_failing
        with pytest.raises(ClosedError):
            await client.send_text("Hello.")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(1, b'"' + bytes(5 * 1024**2)), 1009),
        (frame(1, b"\xff"), 1007),
        (frame(5, b""), 1002),
    ],
)
async def test_what_the_protocol_does_not_allow_ends_although_the_relay_stays(data: bytes, code: int) -> None:
    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        writer.write(data)
        await asyncio.sleep(60)

    async with server(stay) as url, asyncio.timeout(8), connect(url, key="") as client:
        with pytest.raises(ClosedError, match=rf"^the relay sent what the protocol does not allow \({code}\): ") as end:
            [event async for event in client]
    assert (end.value.code, end.value.retryable) == (code, False)


async def test_a_close_frame_on_a_connection_that_stays_open_ends_the_session() -> None:
    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accept(reader, writer)
        writer.write(frame(8, (1008).to_bytes(2) + b"\x1b[31mred\n"))
        await asyncio.sleep(60)

    async with server(stay) as url, asyncio.timeout(8), connect(url, key="") as client:
        with pytest.raises(ClosedError) as end:
            [event async for event in client]
    assert str(end.value) == "the relay closed the connection (1008): \\x1b[31mred\\n"
    assert end.value.reason == "\x1b[31mred\n"


async def test_events_before_a_session_is_ready_are_bounded_in_bytes() -> None:
    async def script(device: ScriptedConnection) -> None:
        while True:
            await device.send("textDelta", text="x" * 500_000)

    async with scripted_relay(script) as harness:
        with pytest.raises(ProtocolError, match=r"^the relay sent more than 4 MiB, but the session is not ready$"):
            async with connect(harness.url):
                pass


async def test_after_close_an_error_does_not_blame_the_relay() -> None:
    async with scripted_relay(ScriptedConnection.begin) as harness, connect(harness.url) as client:
        await client.close()
        await client.close()
        with pytest.raises(ClosedError, match=r"^the connection is closed$"):
            await client.send_text("Hello.")
        await client.recv()
        with pytest.raises(ClosedError, match=r"^the connection is closed$"):
            await client.recv()


async def test_two_readers_are_a_mistake_and_lose_nothing() -> None:
    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.until(lambda: device.received("text"))
        await device.send("textDelta", text="word")

    async with scripted_relay(script) as harness, connect(harness.url) as client:
        await client.recv()
        first = asyncio.create_task(client.recv())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError):
            await client.recv()
        await client.send_text("Go.")
        event = await first
        assert isinstance(event, TextDeltaEvent)


async def test_a_recv_that_is_cancelled_at_any_moment_loses_nothing() -> None:
    n_events = 500

    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        for number in range(n_events):
            await device.send("textDelta", text=str(number))
            if number % 7 == 0:
                await asyncio.sleep(0.001)

    texts: list[str] = []
    async with scripted_relay(script) as harness, connect(harness.url) as client:
        await client.recv()
        async with asyncio.timeout(20):
            while len(texts) < n_events:
                task = asyncio.create_task(client.recv())
                for _ in range(random.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    event = await task
                except asyncio.CancelledError:
                    continue
                assert isinstance(event, TextDeltaEvent)
                texts.append(event.text)
    assert texts == [str(number) for number in range(n_events)]


async def test_connecting_again_and_again_leaves_nothing_behind() -> None:
    player = VirtualPlayer()

    async def script(device: ScriptedConnection) -> None:
        await device.begin()
        await device.send("audioStart", itemId="a")
        await device.socket.send(bytes(48_000))
        await device.until(lambda: device.received("text"))
        device.socket.transport.abort()

    async with scripted_relay(script) as harness:
        for _ in range(10):
            async with connect(harness.url, playback=player) as client:
                for _ in range(3):
                    await client.recv()
                await client.send_text("Go.")
                with pytest.raises(ClosedError):
                    await client.recv()
        gc.collect()
        assert [task for task in asyncio.all_tasks() if "RelayClient" in repr(task)] == []
        assert sum(isinstance(thing, RelayClient) for thing in gc.get_objects()) <= 1
        assert all(device.played("a") == [] for device in harness.devices[1:])


# -- keys and URLs ----------------------------------------------------------------------------------------------------


async def test_no_key_is_in_the_log_of_the_library_or_in_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"error": f"Bearer {KEY} is wrong"}).encode()
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        await asyncio.sleep(0.2)

    caplog.set_level(logging.DEBUG)
    async with server(refuse) as url:
        with pytest.raises(ConnectError, match=r"answered HTTP 401: the key in `key` is not accepted$"):
            async with connect(url, key=KEY):
                pass
    async with scripted_relay(ScriptedConnection.begin) as harness, connect(harness.url, key=KEY):
        pass
    assert not [record for record in caplog.records if record.name.startswith("relay") and KEY in record.getMessage()]
    with pytest.raises(ConnectError, match=r"^`key` contains characters other than printable ASCII$"):
        async with connect(url, key="a\nb"):
            pass


@pytest.mark.parametrize(
    "url",
    [
        "ws://a..b/",
        "ws://" + "a" * 70 + ".com/",
        "ws://me:pass/word@h/",
        "h:pass",
        "ws://h\udcff/",
        "ws://h/?key=pass\udcff",
    ],
)
def test_a_url_that_cannot_be_used_is_one_error_without_a_part_of_it(url: str) -> None:
    with pytest.raises(InvalidURL) as invalid:
        parse_url(url)
    assert "pass" not in str(invalid.value)
    assert invalid.value.__cause__ is None


def test_a_url_with_secrets_does_not_show() -> None:
    assert "pass" not in repr(parse_url("ws://me:pass@h/?key=pass"))


async def test_a_proxy_with_a_password_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:pass@:1/")
    monkeypatch.setenv("HTTP_PROXY", "http://me:pass@:1/")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ConnectError) as failed:
        async with connect("ws://relay.invalid/", key="", open_timeout_s=2):
            pass
    assert "pass" not in str(failed.value)


# -- arguments --------------------------------------------------------------------------------------------------------


async def test_an_unknown_argument_or_a_wrong_format_is_a_type_error() -> None:
    async with scripted_relay(ScriptedConnection.begin) as harness:
        with pytest.raises(TypeError, match=r"^connect\(\) has no argument 'voise'$"):
            async with connect(harness.url, voise="marin"):  # type: ignore[call-arg]
                pass
        with pytest.raises(TypeError, match=r"^input_format must be an AudioFormat"):
            async with connect(harness.url, input_format="pcm16"):  # type: ignore[arg-type]
                pass
        assert harness.devices == []
