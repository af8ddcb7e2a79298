"""The opening handshake: the URL of a relay, the connection, and the texts of its errors."""

import errno
import logging
import os
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidProxy, InvalidStatus, InvalidURI, WebSocketException

from relay.client.errors import ConnectError, InvalidURL
from relay.json_types import parse_json_object
from relay.loopback import is_loopback_host
from relay.transport.no_redirects import NoRedirectConnect, is_redirect

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Without pacing (`max_ahead_ms=None`), an audio message is one of the model's deltas; else it has about 100 ms."""
CLOSE_TIMEOUT_S = 1.0
NOT_A_URL = "the URL must look like ws://127.0.0.1:8080/ (ws, wss, http or https)"
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_REFUSAL_TEXTS = {
    403: "this client is not allowed",
    404: "there is no device protocol at this path; try / or /ws",
    429: "too many requests; try again later",
    503: "the relay is full or shutting down; try again later",
}
_WEBSOCKET_LOG = logging.getLogger("relay.client.websocket")
_WEBSOCKET_LOG.setLevel(logging.INFO)  # at DEBUG, the library logs the header that holds the key


class _Connection(ClientConnection):
    """Ends also where a close is due and the relay leaves the connection open: `recv` waits for its end."""

    _is_ending = False

    def data_received(self, data: bytes) -> None:
        """Take data from the network."""
        super().data_received(data)
        if self.protocol.close_expected() and not self._is_ending:
            self._is_ending = True
            self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)


@dataclass(frozen=True, slots=True)
class RelayURL:
    """A URL to connect to; `address` is the URL for messages, without the query, which may contain a client secret."""

    url: str = field(repr=False)
    address: str
    host: str


def parse_url(url: str) -> RelayURL:
    """Parse a ws, wss, http or https URL, or `host:port`. Raises InvalidURL."""
    try:
        parts = urlsplit(url.strip() if "://" in url else f"ws://{url.strip()}")
        host = parts.hostname
        bracketed = f"[{host}]" if host and ":" in host else f"{host}"
        netloc = f"{bracketed}:{parts.port}" if parts.port else bracketed
        url.encode()
        bracketed.encode("idna")
    except ValueError:  # its text may have a part of a password, and so may the URL
        raise InvalidURL(NOT_A_URL) from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not host:
        raise InvalidURL(NOT_A_URL)
    path = parts.path or "/"
    return RelayURL(
        url=urlunsplit((scheme, parts.netloc, path, parts.query, "")),
        address=urlunsplit((scheme, netloc, path, "", "")),
        host=host,
    )


async def open_socket(
    target: RelayURL, key: str | None, timeout_s: float, ssl_context: ssl.SSLContext | None
) -> ClientConnection:
    """Connect without following redirects, which would leak the key. Raises ConnectError or InvalidURL."""
    key_name = "RELAY_KEY" if key is None else "`key`"
    key = os.environ.get("RELAY_KEY", "").strip() if key is None else key
    if not (key.isascii() and key.isprintable()):
        raise ConnectError(f"{key_name} contains characters other than printable ASCII")
    tls: dict[str, Any] = {"ssl": ssl_context} if ssl_context and target.url.startswith("wss:") else {}
    try:
        return await NoRedirectConnect(
            target.url,
            additional_headers={"Authorization": f"Bearer {key}"} if key else None,
            compression=None,  # audio does not compress, and small JSON is not worth the memory
            proxy=None if is_loopback_host(target.host) or target.host.endswith(".localhost") else True,
            open_timeout=timeout_s,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MAX_MESSAGE_BYTES,
            create_connection=_Connection,
            logger=_WEBSOCKET_LOG,
            **tls,
        )
    except InvalidStatus as error:
        raise ConnectError(_refusal_text(target, error, key, key_name), error.response.status_code) from error
    except InvalidURI as error:
        raise InvalidURL(f"the URL cannot be used: {error.msg}") from None  # its text has the URL, with any password
    except InvalidProxy as error:
        text = f"the proxy that the environment names for {target.address} cannot be used: {error.msg}"
        raise ConnectError(text) from None
    except WebSocketException as error:
        raise ConnectError(f"{target.address} is not a relay: {error}") from error
    except TimeoutError as error:
        raise ConnectError(f"{target.address} did not answer within {timeout_s:g} s") from error
    except (OSError, ImportError) as error:  # ImportError: a SOCKS proxy needs a package of its own
        raise ConnectError(f"cannot reach {target.address}: {_network_error_text(error)}") from error


def _refusal_text(target: RelayURL, error: InvalidStatus, key: str, key_name: str) -> str:
    status = error.response.status_code
    meaning = _REFUSAL_TEXTS.get(status, "the connection was refused")
    if is_redirect(error):
        meaning = "it redirects to another URL; set its final URL"
    if status == 401:
        meaning = f"the key in {key_name} is not accepted" if key else f"a key is required; set {key_name}"
    detail = _error_text(error.response.body)
    if key and key in detail:
        detail = ""
    return f"{target.address} answered HTTP {status}: {meaning}{f' ({detail})' if detail else ''}"


def _error_text(body: Any) -> str:
    """Return the error message in the body of a refusal, if there is one."""
    text = (parse_json_object(body or b"") or {}).get("error")
    return text[:300] if isinstance(text, str) else ""


def _network_error_text(error: OSError | ImportError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); name the certificate's file in SSL_CERT_FILE"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error}); if it does not use TLS, write ws:// instead of wss://"
    if isinstance(error, socket.gaierror):
        return "there is no such host"
    # asyncio joins the errors of several addresses into one text without a number.
    if getattr(error, "errno", None) == errno.ECONNREFUSED or "refused" in str(error).lower():
        return "nothing listens there; is the relay running?"
    if isinstance(error, ConnectionError):
        return "it closed the connection; if it does not use TLS, write ws:// instead of wss://"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
