"""The upstream's end: dialling a Realtime endpoint over WebSocket, with TLS where the URL says so."""

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
"""What one session's model may say at once before others have their turn; ten times as fast as speech over a line with
300 ms of delay."""

_FATAL_STATUSES = frozenset({400, 401, 403, 404, 405, 410, 422})
"""Dialling again with the same key and address will not help (D6)."""

_HINTS = {
    401: "the key was not accepted; check the key in the relay's settings",
    403: "the key may not use this model or address",
    404: "there is no such model or address; check the model and the URL in the relay's settings",
    429: "too many requests or no quota left; try again later",
}

_END = "The model's endpoint"
_log = logging.getLogger("relay.upstream")


class UpstreamConnectError(Exception):
    """The dial failed; `status` is the HTTP status, None when nobody answered properly."""

    def __init__(self, message: str, status: int | None, retryable: bool) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable


class UpstreamConnection(WebSocketConnection):
    """The connection to the upstream, as the session sees it."""

    def __init__(self) -> None:
        super().__init__(MAX_MESSAGE_BYTES)


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


@functools.cache
def _seed_masks() -> None:
    # picows takes frame masks from libc's rand(), which starts every process with the same ones unless it is seeded.
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


ConnectHeaders = Mapping[str, str] | Callable[[], Awaitable[Mapping[str, str]]]
"""What a dial sends along; a callable is asked once per dial, for a token that may have expired since the last."""


async def connect_upstream(
    url: str, headers: ConnectHeaders, socket: UpstreamConnection, timeout_s: float = CONNECT_TIMEOUT_S
) -> None:
    """Connect `socket` to `url` (ws or wss). Raises UpstreamRefusal; a cancelled dial leaves no connection behind."""
    _seed_masks()
    sockets: list[Line] = []
    try:
        async with asyncio.timeout(timeout_s):
            sent_headers = await headers() if callable(headers) else headers
            await _connect(url, sent_headers, socket, timeout_s, sockets)
    except BaseException as error:
        for tcp_socket in sockets:
            # picows leaves a handshake that was given up to itself: the connection would stay, or even come to stand.
            with contextlib.suppress(OSError):
                tcp_socket.shutdown(SHUT_RDWR)
        if isinstance(error, asyncio.CancelledError):
            raise
        connect_error = error if isinstance(error, UpstreamConnectError) else _connect_error(error)
        _log.warning("dialling %s failed: %s", netloc_of(url), connect_error)
        raise connect_error from None  # the error's own text may hold the address with a key in it


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
        max_redirects=0,  # a redirect would carry the key to another host
        max_frame_size=socket.max_message_bytes,
        enable_auto_ping=True,
        auto_ping_idle_timeout=PING_INTERVAL_S,
        auto_ping_reply_timeout=PONG_TIMEOUT_S,
        auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
        socket_factory=open_socket,
    )
    if cast(WebSocketConnection | None, listener) is None:
        transport.disconnect(False)
        raise UpstreamConnectError(f"{_END} hung up during the handshake.", None, retryable=True)


async def _open_socket(host: str, port: int) -> Line:
    """A TCP connection to the first address of `host` that takes one, in the resolver's order."""
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
    if isinstance(error, UpstreamError):  # there is no token to show
        return UpstreamConnectError(str(error), None, retryable=True)
    if isinstance(error, WSInvalidStatusError) and error.response is not None:
        status = int(error.response.status)
        if 300 <= status < 400:
            return UpstreamConnectError(
                f"{_END} redirects elsewhere; set the URL it really has ({status}).", status, retryable=False
            )
        hint = _HINTS.get(status, "try again later" if status >= 500 else "it gave no reason")
        return UpstreamConnectError(
            f"{_END} refused the connection with {status}: {hint}.", status, status not in _FATAL_STATUSES
        )
    if isinstance(error, TimeoutError):
        return UpstreamConnectError(f"{_END} did not answer in time.", None, retryable=True)
    if isinstance(error, ssl.SSLError):
        return UpstreamConnectError(
            f"No trusted TLS connection to the model's endpoint: {redact(error.reason or 'handshake failed')}.",
            None,
            False,
        )
    if isinstance(error, OSError):
        return UpstreamConnectError(f"{_END} cannot be reached: {redact(error.strerror or str(error))}.", None, True)
    if isinstance(error, WSError):
        return UpstreamConnectError(f"{_END} did not answer as a WebSocket server does.", None, retryable=False)
    return UpstreamConnectError(f"{_END} could not be dialled ({type(error).__name__}).", None, retryable=False)


def netloc_of(url: str) -> str:
    """Host and port of a URL, for the log: never its query or user part."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the upstream"
