"""The log says of every session how it ended: one line with the close code and the reason, whoever closed."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from relay.runtime.base import MAX_REASON_CHARS
from relay.testing import ScriptedUpstream
from tests.support.relay_server import RunningRelay, running_relay

WAYS = ("/", "/v1/realtime")
TIMEOUT_S = 10.0
MASK = bytes(4)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="relay.session")
    return caplog


def endings(log: pytest.LogCaptureFixture) -> list[str]:
    """What the log says behind "session rs_… ends: "."""
    lines = [one.getMessage() for one in log.records if " ends" in one.getMessage()]
    assert all(one.levelno == logging.INFO for one in log.records if " ends" in one.getMessage())
    assert all(line.startswith("session rs_") for line in lines)
    return [line.partition(" ends: ")[2] for line in lines]


@asynccontextmanager
async def session(path: str) -> AsyncIterator[tuple[RunningRelay, ClientConnection]]:
    """A session that has begun; the relay is left before the log is looked at."""
    async with ScriptedUpstream() as upstream, running_relay(upstream.url) as relay:
        async with connect(relay.ws(path), compression=None, close_timeout=1) as client:
            scripted = await upstream.accept()
            await scripted.emit({"type": "session.created", "session": {"type": "realtime"}})
            if path == "/":
                await scripted.expect("session.update")
                await scripted.emit({"type": "session.updated", "session": {}})
            await client.recv()
            yield relay, client
        async with asyncio.timeout(TIMEOUT_S):
            await relay.sessions.all_ended.wait()
            await asyncio.sleep(0)


@pytest.mark.parametrize("path", WAYS)
@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (1000, "", "1000"),
        (4321, "the user hung up", "4321 the user hung up"),
        (1001, "a\nb\x1b[31m\u202e", r"1001 a\nb\x1b[31m\u202e"),
        (3000, "my key is sk-live-0123456789", "3000 my key is […]"),
    ],
)
async def test_a_client_that_closes_is_quoted(
    log: pytest.LogCaptureFixture, path: str, code: int, reason: str, expected: str
) -> None:
    async with session(path) as (_, client):
        await client.close(code, reason)
    assert endings(log) == [expected]


@pytest.mark.parametrize("path", WAYS)
async def test_a_client_that_is_cut_off_is_1006(log: pytest.LogCaptureFixture, path: str) -> None:
    async with session(path) as (_, client):
        client.transport.abort()
    assert endings(log) == ["1006 connection lost without a close frame"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/", "too many faults"), ("/v1/realtime", "10 faults in a minute (ignored: (events refused) ×10)")],
)
async def test_too_many_faults_are_a_1008(log: pytest.LogCaptureFixture, path: str, reason: str) -> None:
    async with session(path) as (_, client):
        with contextlib.suppress(ConnectionClosed):
            for _ in range(10):
                await client.send("{")
            await until_closed(client)
    assert endings(log) == [f"1008 {reason}"]


@pytest.mark.parametrize("path", WAYS)
@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"\xc1\x82" + MASK + b"{}", "1002 reserved bits are set"),
        (b"\x81\x81" + MASK + b"\xff", "1007 text messages must be UTF-8"),
        (b"\x80\x81" + MASK + b"x", "1002 fragments are out of order"),
        (b"\x81\x02{}", "1002 "),
        (b"\x88\x81" + MASK + b"x", "1002 "),
        (b"\x88\x82" + MASK + b"\x03\xed", "1002 "),
    ],
)
async def test_a_frame_that_cannot_be_is_named(
    log: pytest.LogCaptureFixture, path: str, frame: bytes, expected: str
) -> None:
    async with session(path) as (_, client):
        client.transport.write(frame)
        await until_closed(client)
    [ending] = endings(log)
    assert ending.startswith(expected)


async def test_a_message_that_is_too_big_is_a_1009(log: pytest.LogCaptureFixture) -> None:
    async with session("/") as (_, client):
        await client.send(bytes(70_000))
        await until_closed(client)
    [ending] = endings(log)
    assert ending.startswith("1009 ")


@pytest.mark.parametrize("path", WAYS)
async def test_the_relays_own_end_is_named(log: pytest.LogCaptureFixture, path: str) -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url) as relay:
        client = await connect(relay.ws(path), compression=None)
        await upstream.accept()
    [ending] = endings(log)
    assert ending.startswith("1001 ")
    await client.close()


async def test_what_was_ignored_stands_behind(log: pytest.LogCaptureFixture) -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url) as relay:
        async with connect(relay.ws("/"), compression=None) as client:
            scripted = await upstream.accept()
            await scripted.configure()
            await scripted.emit({"type": "response.brand\nnew"}, {"type": "response.brand\nnew"})
            await scripted.emit({"type": "input_audio_buffer.speech_started", "item_id": "i", "audio_start_ms": 0})
            while b"AISpeechDetected" not in await client.recv(decode=False):
                pass
            await client.close(1000, "done")
        await relay.sessions.all_ended.wait()
        await asyncio.sleep(0)
    assert endings(log) == [r"1000 done (ignored: response.brand\nnew ×2)"]


async def test_an_upstream_that_refuses_is_told_to_a_device_and_is_the_status_of_a_realtime_client(
    log: pytest.LogCaptureFixture,
) -> None:
    async def refuse(connection, request):
        return connection.respond(404, "{}")

    async with ScriptedUpstream(refuse) as upstream, running_relay(upstream.url) as relay:
        async with connect(relay.ws("/"), compression=None) as client:
            assert json.loads(await client.recv())["code"] == "upstream_refused"
            await until_closed(client)
        with pytest.raises(InvalidStatus):
            await connect(relay.ws("/v1/realtime"))
    device, realtime = endings(log)
    assert device == "1011 the upstream refused the connection"
    assert realtime.startswith("HTTP 404 The model's endpoint refused the connection with 404")


def test_a_close_reason_is_logged_whole() -> None:
    assert MAX_REASON_CHARS >= 123


async def until_closed(client: ClientConnection) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await client.recv()
