"""No redirect is followed, by any call that carries a credential: each against a real server that redirects."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from audio.formats import PCM16_24K
from relay.cli.upstream_checks import check_upstreams
from relay.client import ConnectError, connect
from relay.config.navai_options import NavaiOptions
from relay.errors import UpstreamError
from relay.recording.live_replay import replay_client
from relay.session.device import commands as cmd
from relay.session.device import events as ev
from relay.toolkit.mcp.client import McpServer
from relay.toolkit.mcp.config import McpServerConfig
from relay.toolkit.registry import ToolRegistry
from relay.transport.elevenlabs import ElevenLabsOptions, ElevenLabsTts
from relay.transport.http_client import HttpRequest, ProviderHttpClient
from relay.transport.upstream import UpstreamConnectError, UpstreamConnection, connect_upstream
from relay.upstreams.credentials import TokenCredential
from tests.support.relay_server import serve_app, settings_for

KEY = "key-4f1c9e7b20d84a6f"
GOLDEN = Path(__file__).parent.parent / "recordings" / "golden"
TIMEOUT_S = 15.0
STATUSES = (300, 301, 302, 303, 307, 308)


class Redirector:
    """A server that sends everybody on, to another server or to another path of its own, and what both were sent."""

    def __init__(self) -> None:
        self.status = 307
        self.asked: list[str] = []
        self.followed: list[str] = []
        self.port = self.other_port = 0
        self.elsewhere = True

    async def redirect(self, request: web.Request) -> web.Response:
        if request.path.startswith("/moved"):
            return await self.arrive(request)
        self.asked.append(f"{request.method} {request.path} {dict(request.headers)}")
        place = f"http://localhost:{self.other_port}/there" if self.elsewhere else "/moved"
        return web.Response(status=self.status, headers={"Location": place})

    async def arrive(self, request: web.Request) -> web.Response:
        self.followed.append(f"{request.method} {request.path} {dict(request.headers)}")
        return web.json_response({})

    def url(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}"


@pytest.fixture(params=[True, False], ids=["another host", "another path"])
async def redirector(request: pytest.FixtureRequest) -> AsyncIterator[Redirector]:
    async with _running(request.param) as running:
        yield running
    assert running.asked, "nothing was called"
    assert not running.followed


@asynccontextmanager
async def _running(elsewhere: bool) -> AsyncIterator[Redirector]:
    found = Redirector()
    found.elsewhere = elsewhere
    first, second = web.Application(), web.Application()
    first.router.add_route("*", "/{path:.*}", found.redirect)
    second.router.add_route("*", "/{path:.*}", found.arrive)
    async with serve_app(first) as found.port, serve_app(second) as found.other_port:
        yield found


REFUSED = re.compile(
    r"redirects to another URL( \(\d+\))?; set its final URL"
    r"|the server redirects \(\d+\); configure its final URL"
)
"""What the upstream and the providers, the device client and MCP servers say of a redirect."""


def is_told(text: str) -> bool:
    return REFUSED.search(text) is not None


@pytest.mark.parametrize("status", STATUSES)
async def test_a_session_s_upstream(redirector: Redirector, status: int) -> None:
    redirector.status = status
    with pytest.raises(UpstreamConnectError) as refusal:
        await connect_upstream(
            f"{redirector.url('ws')}/v1/realtime", {"Authorization": f"Bearer {KEY}"}, UpstreamConnection()
        )
    assert is_told(str(refusal.value))
    assert not refusal.value.retryable
    assert KEY in redirector.asked[0]


async def test_a_session_s_upstream_with_a_fetched_token(redirector: Redirector) -> None:
    with pytest.raises(UpstreamConnectError, match="redirects to another URL"):
        await connect_upstream(redirector.url("ws"), TokenCredential(lambda: KEY).headers, UpstreamConnection())
    assert KEY in redirector.asked[0]


@pytest.mark.parametrize("status", STATUSES)
async def test_the_socket_of_an_elevenlabs_voice(redirector: Redirector, status: int) -> None:
    redirector.status = status
    told = await _voice(redirector, cmd.ConnectTts("voice-1", PCM16_24K))
    assert is_told(told.message)
    assert told.code == str(status)
    assert not told.retryable
    assert KEY in redirector.asked[0]


async def test_a_whole_text_for_an_elevenlabs_voice(redirector: Redirector) -> None:
    told = await _voice(redirector, cmd.SynthesizeText("c1", "voice-1", PCM16_24K, "Hello."))
    assert is_told(told.message)
    assert KEY in redirector.asked[0]


async def _voice(redirector: Redirector, command: cmd.TtsCommand) -> ev.TtsFailed:
    heard: asyncio.Queue[ev.TtsEvent] = asyncio.Queue()
    provider = ProviderHttpClient()
    voice = ElevenLabsTts(ElevenLabsOptions(base_url=redirector.url(), api_key=KEY), provider, heard.put_nowait)
    try:
        voice.execute(command)
        event = await asyncio.wait_for(heard.get(), TIMEOUT_S)
    finally:
        await voice.stop()
        await provider.close()
    assert isinstance(event, ev.TtsFailed)
    return event


@pytest.mark.parametrize("status", STATUSES)
async def test_a_provider(redirector: Redirector, status: int) -> None:
    redirector.status = status
    provider = ProviderHttpClient()
    try:
        for ask in (provider.fetch, partial(_stream, provider)):
            with pytest.raises(UpstreamError) as error:
                await ask(HttpRequest(name="X", url=f"{redirector.url()}/v1/x", headers={"api-key": KEY}, body={}))
            assert is_told(str(error.value))
    finally:
        await provider.close()
    assert KEY in redirector.asked[0]


async def _stream(provider: ProviderHttpClient, call: HttpRequest) -> None:
    async with provider.stream(call):
        pass


@pytest.mark.parametrize("status", STATUSES)
async def test_an_mcp_server(redirector: Redirector, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    redirector.status = status
    config = McpServerConfig(name="far", url=f"{redirector.url()}/mcp", headers={"Authorization": f"Bearer {KEY}"})
    server = McpServer(config, ToolRegistry(), retry_delay_s=30)
    said = asyncio.Event()
    listener = logging.Handler()
    listener.emit = lambda record: said.set() if "MCP server far" in record.getMessage() else None  # type: ignore[method-assign]
    logging.getLogger("relay.toolkit").addHandler(listener)
    server.start()
    try:
        await asyncio.wait_for(said.wait(), TIMEOUT_S)
    finally:
        logging.getLogger("relay.toolkit").removeHandler(listener)
        await server.stop()
    assert is_told(caplog.text)
    assert KEY in redirector.asked[0]
    assert KEY not in caplog.text


async def test_a_conversation_from_the_terminal(redirector: Redirector) -> None:
    with pytest.raises(ConnectError) as error:
        async with connect(redirector.url("ws"), key=KEY):
            pass
    assert is_told(str(error.value))
    assert KEY in redirector.asked[0]


@pytest.mark.parametrize("path", ["/", "/v1/realtime"])
async def test_a_recording_that_is_spoken_again(
    redirector: Redirector, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_KEY", KEY)
    monkeypatch.setenv("RELAY_UPSTREAM_KEY", KEY)
    recording = next(folder for folder in sorted(GOLDEN.iterdir()) if (folder / "journal.jsonl").exists())
    with pytest.raises(ConnectError) as error:
        await replay_client.replay_against(recording, redirector.url("ws") + path, None, None)
    assert is_told(str(error.value))
    assert KEY in redirector.asked[0]


async def test_a_check_of_the_settings(redirector: Redirector) -> None:
    base = f"{redirector.url()}/v1"
    settings = settings_for(
        "openai", openai_api_key=KEY, openai_base_url=base, azure_api_key=KEY, azure_endpoint=redirector.url(),
        azure_deployment="d",
    )  # fmt: skip
    env = {"NAVAI_TTS_PROVIDER": "elevenlabs", "ELEVENLABS_API_KEY": KEY, "ELEVENLABS_VOICE_ID": "v"}
    navai = NavaiOptions.from_env(env | {"ELEVENLABS_BASE_URL": redirector.url(), "OPENAI_API_KEY": KEY})
    findings = [finding async for finding in check_upstreams(settings, navai, today=date(2026, 12, 1))]
    failed = [finding for finding in findings if finding.status == "fail"]
    assert {finding.subject for finding in failed} >= {"key and model", "elevenlabs"}
    assert all(is_told(finding.text) for finding in failed)
