"""A relay in the test's event loop, and a device client that records its messages."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from relay.app.context import SESSIONS, SETTINGS
from relay.app.server import create_app
from relay.app.serving import TLS_HANDSHAKE_TIMEOUT_S, RelayRunner, RelaySite
from relay.app.sessions import SessionRegistry
from relay.auth.admin_login import create_login_code
from relay.config.navai_options import NavaiOptions
from relay.config.settings import Settings
from relay.toolkit.registry import ToolRegistry
from tests.support.device_schema import check

Obj = dict[str, Any]
TIMEOUT_S = 10.0


class RunningRelay:
    """A running relay: its port and its parts."""

    def __init__(self, app: web.Application, port: int) -> None:
        self.app = app
        self.port = port

    @property
    def sessions(self) -> SessionRegistry:
        return self.app[SESSIONS]

    def ws(self, path: str = "/") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def http(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


def settings_for(upstream: str | None = None, **overrides: Any) -> Settings:
    """Return settings that ignore the environment and `.env`; `overrides` are named `group_field`."""
    return Settings(**groups_of(upstream_target=upstream or "local", **overrides))


def groups_of(**overrides: Any) -> Obj:
    """Return settings groups by name, from values named `group_field`, such as `server_port`."""
    groups: dict[str, Obj] = {}
    for name, value in overrides.items():
        group, _, field = name.partition("_")
        groups.setdefault(group, {})[field] = value
    return {group: Settings.groups()[group](**values) for group, values in groups.items()}


@asynccontextmanager
async def running_relay(
    upstream: str | None = None,
    registry: ToolRegistry | None = None,
    *,
    keepalive_timeout_s: float = 15,
    request_timeout_s: float = 15,
    handshake_timeout_s: float = TLS_HANDSHAKE_TIMEOUT_S,
    listen_on: str = "127.0.0.1",
    navai: NavaiOptions | None = None,
    **overrides: Any,
) -> AsyncIterator[RunningRelay]:
    """Run a relay on a free port; it shuts down as `relay serve` does on SIGTERM."""
    settings = settings_for(upstream, **overrides)
    app = create_app(settings, registry if registry is not None else ToolRegistry(), navai)
    runner = RelayRunner(app, keepalive_timeout_s=keepalive_timeout_s, request_timeout_s=request_timeout_s)
    await runner.setup()
    try:
        await RelaySite(
            runner, listen_on, 0, settings.server.tls_context(settings.name_of), handshake_timeout_s
        ).start()
        yield RunningRelay(app, int(runner.addresses[0][1]))
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serve_app(app: web.Application) -> AsyncIterator[int]:
    """Serve an application on a free port; yields the port."""
    runner = RelayRunner(app) if SESSIONS in app else web.AppRunner(app, shutdown_timeout=2, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def console_link(relay: RunningRelay) -> str:
    """Return the link that `relay console` prints."""
    return f"{relay.http('/login')}#code={create_login_code(relay.app[SETTINGS].access.state_dir, time.time())}"


class DeviceClient:
    """A client of the device protocol; `expect` waits for a message, `audio` holds the received audio.

    Messages of both directions must be what the schema says; `connection.send` sends what is not.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[Obj] = []
        self.sent: list[str] = []
        self.audio = bytearray()
        self.order: list[str] = []
        self._taken = 0
        self._news = asyncio.Condition()
        self._closed = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, url: str, **options: Any) -> Self:
        return cls(await connect(url, compression=None, **options))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()
        await self._reader

    async def send(self, **message: Any) -> None:
        self.sent.append(check(message, "toRelay")["type"])
        await self.connection.send(json.dumps(message))

    async def speak(self, pcm: bytes) -> None:
        await self.connection.send(pcm)

    async def expect(self, kind: str, timeout_s: float = TIMEOUT_S) -> Obj:
        """Return the next message whose `type` or event `name` is `kind`; earlier ones are skipped."""
        async with asyncio.timeout(timeout_s), self._news:
            while True:
                while self._taken < len(self.messages):
                    message = self.messages[self._taken]
                    self._taken += 1
                    if kind in (message["type"], message.get("name")):
                        return message
                assert not self._closed, f"closed before {kind}: {self.kinds()}"
                await self._news.wait()

    async def expect_any(self, timeout_s: float = TIMEOUT_S) -> Obj:
        """Return the next message."""
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(lambda: self._taken < len(self.messages) or self._closed)
            assert self._taken < len(self.messages), "closed without a word"
            self._taken += 1
            return self.messages[self._taken - 1]

    async def expect_audio(self, n_bytes: int, timeout_s: float = TIMEOUT_S) -> bytes:
        async with asyncio.timeout(timeout_s), self._news:
            await self._news.wait_for(lambda: len(self.audio) >= n_bytes or self._closed)
        assert len(self.audio) >= n_bytes, f"closed after {len(self.audio)} bytes"
        return bytes(self.audio)

    async def wait_closed(self, timeout_s: float = TIMEOUT_S) -> tuple[int | None, str | None]:
        async with asyncio.timeout(timeout_s):
            await self.connection.wait_closed()
            await self._reader
        return self.connection.close_code, self.connection.close_reason

    def kinds(self) -> list[str]:
        return [message.get("name") or message["type"] for message in self.messages]

    async def _read(self) -> None:
        try:
            async for message in self.connection:
                async with self._news:
                    if isinstance(message, bytes):
                        self.audio += message
                        self.order.append("binary")
                    else:
                        self.messages.append(check(json.loads(message), "toClient"))
                        self.order.append(self.kinds()[-1])
                    self._news.notify_all()
        except ConnectionClosed:
            pass  # wait_closed returns the close code
        finally:
            async with self._news:
                self._closed = True
                self._news.notify_all()
