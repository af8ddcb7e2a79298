"""Calls to providers over HTTP: one client, with bounds on time and bytes, and errors that show no key and no raw body.

Nothing is sent twice, but for a connection that could not be made at all: then nothing had been sent, and one more
attempt is safe. Redirects are not followed, for they would carry the key to another host.
"""

import asyncio
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import aiohttp
from yarl import URL

from relay.errors import UpstreamError, UpstreamTimeout
from relay.json_types import JsonObject
from relay.session.common.redact import redact

CONNECT_TIMEOUT_S = 5.0
RETRY_AFTER_S = 0.2
MAX_CONNECTIONS = 100
MAX_JSON_BYTES = 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_RETRY_AFTER_S = 3600.0
CHUNK_BYTES = 64 * 1024

REDIRECTED = "redirects elsewhere; set the URL it really has"
"""What is said of a redirect, which would carry the key to another address."""

_CODE = re.compile(r"[A-Za-z][A-Za-z_.\-]{0,59}|[0-9]{1,5}")
"""Codes are words, such as invalid_api_key or DeploymentNotFound, or a status; letters with digits may be a key."""
_log = logging.getLogger("relay.provider")
_Json = TypeVar("_Json", JsonObject, list[Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request to a provider; `name` begins every error about it, such as "OpenAI client_secrets".

    `timeout_s` bounds the whole answer, for a streamed one the time without a byte. `url` is sent as it is.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: JsonObject | None = None
    method: str = "POST"
    timeout_s: float = 15.0
    max_bytes: int = MAX_JSON_BYTES


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back with a 2xx status; `content_type` as it was sent, parameters included."""

    status: int
    content_type: str
    body: bytes
    name: str

    def json_object(self) -> JsonObject:
        """The body as a JSON object. Raises UpstreamError if it is none."""
        return self._json(dict, "object")

    def json_list(self) -> list[Any]:
        """The body as a JSON array. Raises UpstreamError if it is none."""
        return self._json(list, "array")

    def _json(self, kind: type[_Json], noun: str) -> _Json:
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, kind):
            raise UpstreamError(f"{self.name} failed: the answer is not a JSON {noun}.", upstream_status=self.status)
        return found


class ProviderClient:
    """Makes calls; connections are kept for the next one. `close` it at the end, or use it as a context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(self, call: Call) -> Reply:
        """Make a call and read its whole answer. Raises UpstreamError, UpstreamTimeout."""
        with _told(call):
            async with asyncio.timeout(call.timeout_s):
                response = await self._accepted(call)
                try:
                    body = await _read(response, call.max_bytes, call.name)
                finally:
                    response.release()
        return Reply(response.status, _content_type(response), body, call.name)

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator["Stream"]:
        """Make a call and read its answer as it comes; leaving the block ends the transfer."""
        with _told(call):
            async with asyncio.timeout(call.timeout_s):
                response = await self._accepted(call)
        try:
            yield Stream(response, call)
        finally:
            response.release()

    async def _accepted(self, call: Call) -> aiohttp.ClientResponse:
        """The answer's head, if its status is 2xx."""
        response = await self._send(call)
        if 200 <= response.status < 300:
            return response
        try:
            raise await _refusal(response, call)
        finally:
            response.release()

    async def _send(self, call: Call) -> aiohttp.ClientResponse:
        try:
            return await self._request(call)
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(RETRY_AFTER_S)
            return await self._request(call)

    async def _request(self, call: Call) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return await self._session.request(
            call.method, URL(call.url, encoded=True), headers=call.headers, json=call.body, allow_redirects=False
        )


async def fetch(call: Call, provider: ProviderClient | None) -> Reply:
    """Make a call with `provider`, or with a client for this call alone. Raises UpstreamError, UpstreamTimeout."""
    if provider is not None:
        return await provider.fetch(call)
    async with ProviderClient() as own:
        return await own.fetch(call)


class Stream:
    """An answer under way; iterate it for its bytes."""

    def __init__(self, response: aiohttp.ClientResponse, call: Call) -> None:
        self._response = response
        self._call = call
        self.content_type = _content_type(response)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come, at most `max_bytes` in all. Raises UpstreamError, UpstreamTimeout."""
        call, content = self._call, self._response.content
        left = call.max_bytes
        while True:
            with _told(call):
                async with asyncio.timeout(call.timeout_s):
                    chunk = await content.readany()
                left -= len(chunk)
                if left < 0:
                    raise _too_big(call.name, call.max_bytes)
            if not chunk:
                return
            yield chunk


@contextmanager
def _told(call: Call) -> Iterator[None]:
    """Turns every way a call can fail into one of our errors, once, and into one line of the log."""
    try:
        yield
    except Exception as error:
        told = _error_of(error, call)
        if told is None:
            raise
        _log.warning("%s", told)
        raise told from None  # the cause may hold an address or a header with a key in it


def _error_of(error: Exception, call: Call) -> UpstreamError | None:
    name = call.name
    match error:
        case UpstreamError():
            return error
        case TimeoutError():
            return UpstreamTimeout(f"{name} failed: no answer within {call.timeout_s:g} s.")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return UpstreamError(f"{name} failed: no trusted TLS connection to {_host(call)}.")
        case aiohttp.ClientConnectorError():
            return UpstreamError(f"{name} failed: {_host(call)} cannot be reached.")
        case ValueError():  # aiohttp's InvalidURL as well, and what it says of a header that cannot be
            return UpstreamError(f"{name} failed: its key or its address holds characters that cannot be sent.")
        case aiohttp.ClientError() | OSError():
            return UpstreamError(f"{name} failed: the connection was lost.")
        case _:
            return None


def _host(call: Call) -> str:
    try:
        return redact(URL(call.url).host or "the address", 200)
    except ValueError:
        return "the address"


async def _read(response: aiohttp.ClientResponse, max_bytes: int, name: str) -> bytes:
    if (response.content_length or 0) > max_bytes:
        raise _too_big(name, max_bytes)
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise _too_big(name, max_bytes)
    return bytes(body)


def _too_big(name: str, max_bytes: int) -> UpstreamError:
    return UpstreamError(f"{name} failed: the answer is bigger than {max_bytes // 1024} KiB.")


async def _refusal(response: aiohttp.ClientResponse, call: Call) -> UpstreamError:
    """The refusal in our words: the status, and the provider's error code where it has one."""
    if 300 <= response.status < 400:
        return UpstreamError(
            f"{call.name} failed ({response.status}): {_host(call)} {REDIRECTED}.",
            upstream_status=response.status,
        )
    try:
        body = await _read(response, MAX_ERROR_BYTES, call.name)
    except (UpstreamError, aiohttp.ClientError, OSError):
        body = b""  # the status says enough
    code = error_code(body, call.headers)
    return UpstreamError(
        f"{call.name} failed ({response.status})" + (f": {code}" if code else ""),
        upstream_status=response.status,
        code=code,
        retry_after_s=_retry_after_s(response.headers.get("Retry-After")),
    )


def error_code(body: bytes, headers: Mapping[str, str]) -> str | None:
    """The error code in a provider's answer; None if there is none, or if it could be part of what we sent as a key.

    OpenAI and Azure: `error.code`, else `error.type`; ElevenLabs: `detail.status` or `detail.code`.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    for holder in ("error", "detail"):
        details = found.get(holder) if isinstance(found, dict) else None
        for key in ("code", "status", "type"):
            code = str(details.get(key)) if isinstance(details, dict) and details.get(key) is not None else ""
            if _CODE.fullmatch(code) and redact(code) == code and not _is_of_a_key(code, headers):
                return code
    return None


def _is_of_a_key(code: str, headers: Mapping[str, str]) -> bool:
    secrets = [part for value in headers.values() for part in value.split() if len(part) >= 8]
    return len(code) >= 8 and any(code in secret or secret in code for secret in secrets)


def _retry_after_s(header: str | None) -> float | None:
    """The header in seconds (RFC 9110, 10.2.3); its date form is not read."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return min(seconds, MAX_RETRY_AFTER_S) if math.isfinite(seconds) and seconds >= 0 else None


def _content_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").strip()
