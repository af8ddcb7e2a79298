"""Reaching a relay as a device client, with every way it can go wrong as a sentence."""

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from audio.formats import AudioFormat
from relay.errors import RelayError
from relay.json_types import parse_json_object
from relay.loopback import is_loopback_host
from relay.transport.no_redirects import NoRedirectConnect, is_redirect

# Audio comes in pieces of some 100 ms, but an unpaced relay may pass on what the model sent in one piece.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_MEANINGS = {
    401: "it wants a key",
    403: "it does not let this client in",
    404: "there is no device protocol at this path; try / or /ws",
    429: "it has had too many requests; try again later",
    503: "it is full or stopping; try again later",
}


class TalkError(RelayError):
    """The conversation could not be had; the text is the sentence for the user."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect: the whole URL, and what of it may be shown (its query may hold a ticket)."""

    url: str
    shown: str
    host: str
    rate_hz: int


def target_of(url: str, rate_hz: int) -> Target:
    """Read `url` (ws, wss, http, https, or none) and ask for `rate_hz` in its query, unless that asks already.

    TalkError says what is wrong with the URL or the rate.
    """
    try:
        parts = urlsplit(url.strip() if "://" in url else f"ws://{url.strip()}")
        host = parts.hostname
        bracketed = f"[{host}]" if host and ":" in host else f"{host}"
        shown_host = f"{bracketed}:{parts.port}" if parts.port else bracketed
    except ValueError as error:
        raise TalkError(f"--url is not a URL: {error}") from error
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not host:
        raise TalkError("--url must look like ws://127.0.0.1:8080/ (ws, wss, http or https)")
    query = parse_qs(parts.query)
    asked_format, asked_rate = query.get("format", ["pcm16"])[-1], query.get("rate", [""])[-1]
    if asked_rate.isascii() and asked_rate.isdigit():
        rate_hz = int(asked_rate[:9])
    elif asked_format in ("pcmu", "pcma"):
        rate_hz = 8000
    try:
        AudioFormat(asked_format, rate_hz)  # type: ignore[arg-type]  # it checks the name itself
    except ValueError as error:
        raise TalkError(str(error)) from error
    with_rate = parts.query if "rate" in query else "&".join(filter(None, [parts.query, urlencode({"rate": rate_hz})]))
    path = parts.path or "/"
    return Target(
        url=urlunsplit((scheme, parts.netloc, path, with_rate, "")),
        shown=urlunsplit((scheme, shown_host, path, "", "")),
        host=host,
        rate_hz=rate_hz,
    )


@asynccontextmanager
async def dial(target: Target, key: str, timeout_s: float) -> AsyncIterator[ClientConnection]:
    """An open connection, closed at the end; a refusal or a break is a TalkError. `key` goes into a header only."""
    if not (key.isascii() and key.isprintable()):
        raise TalkError("RELAY_KEY holds characters that no key has")
    try:
        connection = await NoRedirectConnect(
            target.url,
            additional_headers={"Authorization": f"Bearer {key}"} if key else None,
            compression=None,  # sound does not shrink, and small JSON is not worth the memory
            proxy=None if is_loopback_host(target.host) or target.host.endswith(".localhost") else True,
            open_timeout=timeout_s,
            close_timeout=1,
            max_size=MAX_MESSAGE_BYTES,
        )
    except InvalidStatus as error:
        raise TalkError(_refusal(target, error, key)) from error
    except InvalidURI as error:
        raise TalkError(f"--url cannot be used: {error.msg}") from error
    except WebSocketException as error:
        raise TalkError(f"{target.shown} does not answer as a relay: {error}") from error
    except TimeoutError as error:
        raise TalkError(f"{target.shown} did not answer within {timeout_s:g} s") from error
    except (OSError, ImportError) as error:  # ImportError: a SOCKS proxy needs a package of its own
        raise TalkError(f"cannot reach {target.shown}: {_why_unreachable(error)}") from error
    async with connection:
        yield connection


async def receive(connection: ClientConnection, until: float | None) -> str | bytes | None:
    """The next message; None when none came by `until` (loop time). ConnectionClosed passes through."""
    try:
        async with asyncio.timeout_at(until):
            return await connection.recv()
    except TimeoutError:
        return None


def how_it_closed(error: ConnectionClosed, said_before: str) -> str:
    """The sentence for a connection that the relay ended; `said_before` is its last error or goodbye."""
    if error.rcvd is None:
        return f"the connection broke off{f'; the relay had said: {said_before}' if said_before else ''}"
    why = said_before or error.rcvd.reason or "it gave no reason"
    return f"the relay closed the connection ({int(error.rcvd.code)}): {why}"


def _refusal(target: Target, error: InvalidStatus, key: str) -> str:
    status = error.response.status_code
    meaning = _MEANINGS.get(status, "it refused the connection")
    if is_redirect(error):
        meaning = "it redirects elsewhere; give the URL that it really has"
    if status == 401:
        meaning = "it does not know the key in RELAY_KEY" if key else "it wants a key; set RELAY_KEY"
    said = _said(error.response.body)
    return f"{target.shown} answered HTTP {status}: {meaning}{f' ({said})' if said else ''}"


def _said(body: Any) -> str:
    """The relay's own sentence in the body of a refusal, if there is one."""
    said = (parse_json_object(body or b"") or {}).get("error")
    return said[:300] if isinstance(said, str) else ""


def _why_unreachable(error: OSError | ImportError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    # asyncio joins the errors of several addresses into one text without a number.
    if getattr(error, "errno", None) == errno.ECONNREFUSED or "refused" in str(error).lower():
        return "nothing listens there; is the relay running?"
    return getattr(error, "strerror", None) or str(error)
