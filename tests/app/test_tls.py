"""TLS on the relay's own listener."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
import uvloop

from relay.testing import ScriptedUpstream
from tests.support.raw_requests import RawHttpConnection, head
from tests.support.relay_server import DeviceClient, running_relay

CERTIFICATE = Path(__file__).parent.parent / "support" / "self_signed.pem"
TRUSTING = ssl.create_default_context(cafile=str(CERTIFICATE))


TLS = {"server_tls_cert": CERTIFICATE, "server_tls_key": CERTIFICATE}


async def get_and_talk() -> None:
    """Two requests on one connection, and a session."""
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url, **TLS) as relay,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=TRUSTING)) as http,
        await DeviceClient.connect(f"wss://localhost:{relay.port}/", ssl=TRUSTING) as client,
    ):
        await (await upstream.accept()).configure()
        await client.expect("AIConnected")
        for _ in range(2):
            async with http.get(f"https://localhost:{relay.port}/healthz") as answer:
                assert answer.status == 200


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_requests_and_sessions_go_through_tls(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(get_and_talk())


@pytest.mark.parametrize("sent", [head("GET", "/healthz"), b"\xff" * 300, b""])
async def test_what_is_no_handshake_is_closed(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        running_relay("ws://127.0.0.1:1", handshake_timeout_s=0.2, **TLS) as relay,
        await RawHttpConnection.open(relay.port) as client,
    ):
        client.send(sent)
        await client.wait_closed()
    assert not [record for record in caplog.records if record.exc_info]
