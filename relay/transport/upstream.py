"""Connects to a Realtime endpoint over WebSocket, with TLS for `wss:` URLs."""

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from socket import SHUT_RDWR, SO_RCVBUF, SOCK_STREAM, SOL_SOCKET
from socket import socket as Line
from typing import cast
from urllib.parse import urlsplit

from picows import WSAutoPingStrategy, WSError, WSInvalidStatusError, WSParsedURL, ws_connect

from relay.errors import UpstreamError
from relay.session.common.redact import redact
from relay.transport.websocket import WebSocketConnection

CONNECT_TIMEOUT_S = 10.0
PING_INTERVAL_S = 20.0
PONG_TIMEOUT_S = 20.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
KERNEL_BUFFER_BYTES = 128 * 1024
"""The receive buffer in the kernel. It bounds the burst of one upstream, and allows ten times the rate of speech over a
connection with 300 ms of delay."""

_FATAL_STATUSES = frozenset({400, 401, 403, 404, 405, 410, 422})
"""A second attempt with the same key and URL fails as well (D6)."""

_HINTS = {
    401: "the key is not accepted; check the key in the relay's settings",
    403: "the key may not use this model or address",
    404: "the model or the URL does not exist; check both in the relay's settings",
    429: "too many requests or no quota left; try again later",
}

_UPSTREAM = "The upstream"
_log = logging.getLogger("relay.upstream")


class UpstreamConnectError(Exception):
    """The connection attempt failed; `status` is the HTTP status, None if there was no HTTP response."""

    def __init__(self, message: str, status: int | None, retryable: bool) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable


class UpstreamConnection(WebSocketConnection):
    """A session's connection to its upstream."""

    def __init__(self) -> None:
        super().__init__(MAX_MESSAGE_BYTES)


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


@functools.cache
def _seed_masks() -> None:
    # picows takes frame masks from libc's rand(), which returns the same ones in every process unless it is seeded.
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


ConnectHeaders = Mapping[str, str] | Callable[[], Awaitable[Mapping[str, str]]]
"""The headers of the handshake; a callable is called for every attempt, because a token may have expired."""


async def connect_upstream(
    url: str, headers: ConnectHeaders, socket: UpstreamConnection, timeout_s: float = CONNECT_TIMEOUT_S
) -> None:
    """Connect `socket` to `url` (ws or wss). Raises UpstreamConnectError; a cancelled call leaves no connection."""
    _seed_masks()
    sockets: list[Line] = []
    try:
        async with asyncio.timeout(timeout_s):
            sent_headers = await headers() if callable(headers) else headers
            await _connect(url, sent_headers, socket, timeout_s, sockets)
    except BaseException as error:
        for tcp_socket in sockets:
            # picows does not cancel an abandoned handshake: the connection would stay or even be established.
            with contextlib.suppress(OSError):
                tcp_socket.shutdown(SHUT_RDWR)
        if isinstance(error, asyncio.CancelledError):
            raise
        connect_error = error if isinstance(error, UpstreamConnectError) else _connect_error(error)
        _log.warning("upstream connection failed: host=%s error=%s", netloc_of(url), connect_error)
        raise connect_error from None  # the original text may contain a URL with a key


async def _connect(
    url: str, headers: Mapping[str, str], socket: UpstreamConnection, timeout_s: float, sockets: list[Line]
) -> None:
    async def open_socket(parsed_url: WSParsedURL) -> Line:
        sockets.append(await _open_socket(parsed_url.host, parsed_url.port))
        return sockets[-1]

    transport, listener = await ws_connect(
        lambda _request, _response: socket,
        url,
        ssl_context=_tls_context() if url.startswith("wss:") else None,
        extra_headers=dict(headers),
        websocket_handshake_timeout=timeout_s,
        max_redirects=0,  # a redirect would send the key to another host
        max_frame_size=socket.max_message_bytes,
        enable_auto_ping=True,
        auto_ping_idle_timeout=PING_INTERVAL_S,
        auto_ping_reply_timeout=PONG_TIMEOUT_S,
        auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
        socket_factory=open_socket,
    )
    if cast(WebSocketConnection | None, listener) is None:
        transport.disconnect(False)
        raise UpstreamConnectError(f"{_UPSTREAM} closed the connection during the handshake.", None, retryable=True)


async def _open_socket(host: str, port: int) -> Line:
    """Connect to the first address of `host` that accepts a connection, in the resolver's order."""
    loop = asyncio.get_running_loop()
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=SOCK_STREAM):
        tcp_socket = Line(family, kind, protocol)
        try:
            tcp_socket.setblocking(False)
            tcp_socket.setsockopt(SOL_SOCKET, SO_RCVBUF, KERNEL_BUFFER_BYTES)
            await loop.sock_connect(tcp_socket, address)
        except OSError as error:
            tcp_socket.close()
            failure = error
        except BaseException:
            tcp_socket.close()
            raise
        else:
            return tcp_socket
    raise failure


def _connect_error(error: BaseException) -> UpstreamConnectError:
    if isinstance(error, UpstreamError):  # no bearer token
        return UpstreamConnectError(str(error), None, retryable=True)
    if isinstance(error, WSInvalidStatusError) and error.response is not None:
        status = int(error.response.status)
        if 300 <= status < 400:
            return UpstreamConnectError(
                f"{_UPSTREAM} redirects to another URL ({status}); set its final URL.", status, retryable=False
            )
        hint = _HINTS.get(status, "try again later" if status >= 500 else "no reason given")
        return UpstreamConnectError(
            f"{_UPSTREAM} refused the connection with {status}: {hint}.", status, status not in _FATAL_STATUSES
        )
    if isinstance(error, TimeoutError):
        return UpstreamConnectError(f"{_UPSTREAM} did not answer in time.", None, retryable=True)
    if isinstance(error, ssl.SSLError):
        return UpstreamConnectError(
            f"The TLS connection to the upstream failed: {redact(error.reason or 'handshake failed')}.",
            None,
            False,
        )
    if isinstance(error, OSError):
        return UpstreamConnectError(f"{_UPSTREAM} is unreachable: {redact(error.strerror or str(error))}.", None, True)
    if isinstance(error, WSError):
        return UpstreamConnectError(f"{_UPSTREAM} is not a WebSocket server.", None, retryable=False)
    return UpstreamConnectError(f"{_UPSTREAM}'s connection failed ({type(error).__name__}).", None, retryable=False)


def netloc_of(url: str) -> str:
    """Return host and port of a URL for the log, without its user part and query."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the upstream"
