"""How the relay listens: aiohttp's runner and site with the relay's connections, their log, and bounds of their own.

Undocumented parts of aiohttp in use, held by tests/app/test_connections.py: `AppRunner._make_server`, `Server._kwargs`,
and what `TCPSite.start` does.
"""

import asyncio
import ssl
from socket import SO_RCVBUF, SOL_SOCKET
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.web_runner import BaseSite

from relay.app.connections import HttpConnection
from relay.app.context import REFUSAL_LOG
from relay.app.file_descriptors import BURST_CONNECTIONS
from relay.app.middleware import ServerLogger
from relay.app.unadmitted import CONNECTION_LIMITER

REQUEST_TIMEOUT_S = 15.0
"""How long a request may take to arrive, from its first byte to the last of its body."""
KEEPALIVE_TIMEOUT_S = 15.0
"""How long a connection may be idle, before its first request and between two."""
SHUTDOWN_TIMEOUT_S = 2.0
TLS_HANDSHAKE_TIMEOUT_S = 10.0
"""How long a handshake may take: an ESP32 on poor Wi-Fi or GSM needs more than 5 s.

Event loops report a connection only after its handshake, so none is counted before."""
_KERNEL_BUFFER_BYTES = 32 * 1024
"""What the kernel keeps of a request that is not read yet."""


class _Server(web.Server):
    def __init__(self, server: web.Server, app: web.Application, request_timeout_s: float) -> None:
        super().__init__(server.request_handler, request_factory=self._request, loop=asyncio.get_running_loop())
        self._options = server._kwargs
        self._make = server.request_factory
        self._app = app
        self._timeout_s = request_timeout_s

    def __call__(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        return HttpConnection(
            self, self._app[REFUSAL_LOG], self._app[CONNECTION_LIMITER], self._timeout_s, loop=loop, **self._options
        )

    def _request(
        self, message: Any, payload: StreamReader, protocol: web.RequestHandler, writer: Any, task: Any
    ) -> web.BaseRequest:
        assert isinstance(protocol, HttpConnection)
        protocol.on_request_head(payload)
        return self._make(message, payload, protocol, writer, task)


class RelayRunner(web.AppRunner):
    """aiohttp's `AppRunner` for an application of `create_app`, with the relay's connections and their log."""

    def __init__(
        self,
        app: web.Application,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        keepalive_timeout_s: float = KEEPALIVE_TIMEOUT_S,
    ) -> None:
        super().__init__(
            app,
            keepalive_timeout=keepalive_timeout_s,
            shutdown_timeout=SHUTDOWN_TIMEOUT_S,
            access_log=None,
            logger=ServerLogger(),
        )
        self._request_timeout_s = request_timeout_s

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self.app, self._request_timeout_s)


class RelaySite(web.TCPSite):
    """aiohttp's `TCPSite`, with a bound of its own for TLS handshakes: loops wait for a minute."""

    def __init__(
        self,
        runner: RelayRunner,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        handshake_timeout_s: float = TLS_HANDSHAKE_TIMEOUT_S,
    ) -> None:
        super().__init__(runner, host, port, ssl_context=tls, backlog=BURST_CONNECTIONS)
        self._handshake_timeout_s = handshake_timeout_s if tls is not None else None

    async def start(self) -> None:
        """Listen. Raises OSError if the address cannot be had."""
        await BaseSite.start(self)
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            backlog=self._backlog,
            ssl_handshake_timeout=self._handshake_timeout_s,
        )
        for listener in self._server.sockets:
            listener.setsockopt(SOL_SOCKET, SO_RCVBUF, _KERNEL_BUFFER_BYTES)  # connections inherit it
