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
from relay.transport.websocket import MessageListener

DIAL_TIMEOUT_S = 10.0
PING_INTERVAL_S = 20.0
PONG_TIMEOUT_S = 20.0
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
KERNEL_BUFFER_BYTES = 128 * 1024
"""What one session's model may say at once before others have their turn; ten times as fast as speech over a line with
300 ms of delay."""

_FINAL_STATUSES = frozenset({400, 401, 403, 404, 405, 410, 422})
"""Dialling again with the same key and address will not help (D6)."""

_HINTS = {
    401: "the key was not accepted; check the key in the relay's settings",
    403: "the key may not use this model or address",
    404: "there is no such model or address; check the model and the URL in the relay's settings",
    429: "too many requests or no quota left; try again later",
}

_END = "The model's endpoint"
_log = logging.getLogger("relay.upstream")


class UpstreamRefusal(Exception):
    """The dial failed; `status` is the HTTP status, None when nobody answered properly."""

    def __init__(self, message: str, status: int | None, retryable: bool) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable


class UpstreamSocket(MessageListener):
    """The connection to the upstream, as the session sees it."""

    def __init__(self) -> None:
        super().__init__(MAX_MESSAGE_BYTES)


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


@functools.cache
def _seed_masks() -> None:
    # picows takes frame masks from libc's rand(), which starts every process with the same ones unless it is seeded.
    ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))


Headers = Mapping[str, str] | Callable[[], Awaitable[Mapping[str, str]]]
"""What a dial sends along; a callable is asked once per dial, for a token that may have expired since the last."""


async def dial(url: str, headers: Headers, socket: UpstreamSocket, timeout_s: float = DIAL_TIMEOUT_S) -> None:
    """Connect `socket` to `url` (ws or wss). Raises UpstreamRefusal; a cancelled dial leaves no connection behind."""
    _seed_masks()
    lines: list[Line] = []
    try:
        async with asyncio.timeout(timeout_s):
            given = await headers() if callable(headers) else headers
            await _connect(url, given, socket, timeout_s, lines)
    except BaseException as error:
        for line in lines:
            # picows leaves a handshake that was given up to itself: the connection would stay, or even come to stand.
            with contextlib.suppress(OSError):
                line.shutdown(SHUT_RDWR)
        if isinstance(error, asyncio.CancelledError):
            raise
        refusal = error if isinstance(error, UpstreamRefusal) else _refusal(error)
        _log.warning("dialling %s failed: %s", host_of(url), refusal)
        raise refusal from None  # the error's own text may hold the address with a key in it


async def _connect(
    url: str, headers: Mapping[str, str], socket: UpstreamSocket, timeout_s: float, lines: list[Line]
) -> None:
    async def connected_line(at: WSParsedURL) -> Line:
        lines.append(await _connected_line(at.host, at.port))
        return lines[-1]

    transport, listener = await ws_connect(
        lambda _request, _response: socket,
        url,
        ssl_context=_tls() if url.startswith("wss:") else None,
        extra_headers=dict(headers),
        websocket_handshake_timeout=timeout_s,
        max_redirects=0,  # a redirect would carry the key to another host
        max_frame_size=socket.max_message_bytes,
        enable_auto_ping=True,
        auto_ping_idle_timeout=PING_INTERVAL_S,
        auto_ping_reply_timeout=PONG_TIMEOUT_S,
        auto_ping_strategy=WSAutoPingStrategy.PING_WHEN_IDLE,
        socket_factory=connected_line,
    )
    if cast(MessageListener | None, listener) is None:
        transport.disconnect(False)
        raise UpstreamRefusal(f"{_END} hung up during the handshake.", None, retryable=True)


async def _connected_line(host: str, port: int) -> Line:
    """A TCP connection to the first address of `host` that takes one, in the resolver's order."""
    loop = asyncio.get_running_loop()
    failure = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=SOCK_STREAM):
        line = Line(family, kind, protocol)
        try:
            line.setblocking(False)
            line.setsockopt(SOL_SOCKET, SO_RCVBUF, KERNEL_BUFFER_BYTES)
            await loop.sock_connect(line, address)
        except OSError as error:
            line.close()
            failure = error
        except BaseException:
            line.close()
            raise
        else:
            return line
    raise failure


def _refusal(error: BaseException) -> UpstreamRefusal:
    if isinstance(error, UpstreamError):  # there is no token to show
        return UpstreamRefusal(str(error), None, retryable=True)
    if isinstance(error, WSInvalidStatusError) and error.response is not None:
        status = int(error.response.status)
        if 300 <= status < 400:
            return UpstreamRefusal(
                f"{_END} redirects elsewhere; set the URL it really has ({status}).", status, retryable=False
            )
        hint = _HINTS.get(status, "try again later" if status >= 500 else "it gave no reason")
        return UpstreamRefusal(
            f"{_END} refused the connection with {status}: {hint}.", status, status not in _FINAL_STATUSES
        )
    if isinstance(error, TimeoutError):
        return UpstreamRefusal(f"{_END} did not answer in time.", None, retryable=True)
    if isinstance(error, ssl.SSLError):
        return UpstreamRefusal(
            f"No trusted TLS connection to the model's endpoint: {redact(error.reason or 'handshake failed')}.",
            None,
            False,
        )
    if isinstance(error, OSError):
        return UpstreamRefusal(f"{_END} cannot be reached: {redact(error.strerror or str(error))}.", None, True)
    if isinstance(error, WSError):
        return UpstreamRefusal(f"{_END} did not answer as a WebSocket server does.", None, retryable=False)
    return UpstreamRefusal(f"{_END} could not be dialled ({type(error).__name__}).", None, retryable=False)


def host_of(url: str) -> str:
    """Host and port of a URL, for the log: never its query or user part."""
    return urlsplit(url).netloc.rpartition("@")[2] or "the upstream"
