"""An HTTP client for provider APIs: limits on time and bytes, and errors without keys or raw bodies.

A request is retried once, and only if the connection could not be opened: then nothing was sent. Redirects are not
followed, because they would send the key to another host.
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
CONNECT_RETRY_DELAY_S = 0.2
MAX_CONNECTIONS = 100
MAX_JSON_BYTES = 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_RETRY_AFTER_S = 3600.0
CHUNK_BYTES = 64 * 1024

REDIRECT_TEXT = "redirects to another URL; set its final URL"
"""The error text for a redirect, which would send the key to another host."""

_CODE = re.compile(r"[A-Za-z][A-Za-z_.\-]{0,59}|[0-9]{1,5}")
"""An error code is a word such as invalid_api_key or DeploymentNotFound, or a status; other text may be a key."""
_log = logging.getLogger("relay.provider")
_Json = TypeVar("_Json", JsonObject, list[Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request to a provider; errors about it begin with `name`, such as "OpenAI client_secrets".

    `timeout_s` limits the whole exchange, or the time without a byte of a streamed response. `url` is sent unchanged.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: JsonObject | None = None
    method: str = "POST"
    timeout_s: float = 15.0
    max_bytes: int = MAX_JSON_BYTES


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response with a 2xx status; `content_type` includes its parameters."""

    status: int
    content_type: str
    body: bytes
    name: str

    def json_object(self) -> JsonObject:
        """Parse the body as a JSON object. Raises UpstreamError if it is not one."""
        return self._json(dict, "object")

    def json_list(self) -> list[Any]:
        """Parse the body as a JSON array. Raises UpstreamError if it is not one."""
        return self._json(list, "array")

    def _json(self, kind: type[_Json], noun: str) -> _Json:
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise UpstreamError(f"{self.name} failed: the response is not a JSON {noun}.", upstream_status=self.status)
        return value


class ProviderHttpClient:
    """Sends requests over a connection pool. Call `close` at the end, or use it as a context manager."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; running requests fail."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        """Send a request and read the whole response. Raises UpstreamError, UpstreamTimeout."""
        with _translate_errors(request):
            async with asyncio.timeout(request.timeout_s):
                response = await self._open_response(request)
                try:
                    body = await _read(response, request.max_bytes, request.name)
                finally:
                    response.release()
        return HttpResponse(response.status, _content_type(response), body, request.name)

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator["HttpResponseStream"]:
        """Send a request and read the response as it arrives; leaving the block ends the transfer."""
        with _translate_errors(request):
            async with asyncio.timeout(request.timeout_s):
                response = await self._open_response(request)
        try:
            yield HttpResponseStream(response, request)
        finally:
            response.release()

    async def _open_response(self, request: HttpRequest) -> aiohttp.ClientResponse:
        """Return the response once its head has arrived. Raises UpstreamError unless its status is 2xx."""
        response = await self._send(request)
        if 200 <= response.status < 300:
            return response
        try:
            raise await _status_error(response, request)
        finally:
            response.release()

    async def _send(self, request: HttpRequest) -> aiohttp.ClientResponse:
        try:
            return await self._request(request)
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(CONNECT_RETRY_DELAY_S)
            return await self._request(request)

    async def _request(self, request: HttpRequest) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return await self._session.request(
            request.method,
            URL(request.url, encoded=True),
            headers=request.headers,
            json=request.body,
            allow_redirects=False,
        )


async def fetch(request: HttpRequest, provider: ProviderHttpClient | None) -> HttpResponse:
    """Send a request with `provider`, or with a temporary client. Raises UpstreamError, UpstreamTimeout."""
    if provider is not None:
        return await provider.fetch(request)
    async with ProviderHttpClient() as temporary:
        return await temporary.fetch(request)


class HttpResponseStream:
    """A response that is still arriving."""

    def __init__(self, response: aiohttp.ClientResponse, request: HttpRequest) -> None:
        self._response = response
        self._request = request
        self.content_type = _content_type(response)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the bytes as they arrive, at most `max_bytes` in all. Raises UpstreamError, UpstreamTimeout."""
        request, content = self._request, self._response.content
        remaining_bytes = request.max_bytes
        while True:
            with _translate_errors(request):
                async with asyncio.timeout(request.timeout_s):
                    chunk = await content.readany()
                remaining_bytes -= len(chunk)
                if remaining_bytes < 0:
                    raise _too_large_error(request.name, request.max_bytes)
            if not chunk:
                return
            yield chunk


@contextmanager
def _translate_errors(request: HttpRequest) -> Iterator[None]:
    """Translate every failure of a request into one of our errors, and log it once."""
    try:
        yield
    except Exception as error:
        translated_error = _translate_error(error, request)
        if translated_error is None:
            raise
        _log.warning("%s", translated_error)
        raise translated_error from None  # the cause may contain a URL or a header with a key


def _translate_error(error: Exception, request: HttpRequest) -> UpstreamError | None:
    name = request.name
    match error:
        case UpstreamError():
            return error
        case TimeoutError():
            return UpstreamTimeout(f"{name} failed: no response within {request.timeout_s:g} s.")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return UpstreamError(f"{name} failed: cannot open a trusted TLS connection to {_host_name(request)}.")
        case aiohttp.ClientConnectorError():
            return UpstreamError(f"{name} failed: {_host_name(request)} cannot be reached.")
        case ValueError():  # includes aiohttp's InvalidURL and its error for an invalid header
            return UpstreamError(f"{name} failed: its key or its URL contains characters that cannot be sent.")
        case aiohttp.ClientError() | OSError():
            return UpstreamError(f"{name} failed: the connection was lost.")
        case _:
            return None


def _host_name(request: HttpRequest) -> str:
    try:
        return redact(URL(request.url).host or "the address", 200)
    except ValueError:
        return "the address"


async def _read(response: aiohttp.ClientResponse, max_bytes: int, name: str) -> bytes:
    if (response.content_length or 0) > max_bytes:
        raise _too_large_error(name, max_bytes)
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise _too_large_error(name, max_bytes)
    return bytes(body)


def _too_large_error(name: str, max_bytes: int) -> UpstreamError:
    return UpstreamError(f"{name} failed: the response is larger than {max_bytes // 1024} KiB.")


async def _status_error(response: aiohttp.ClientResponse, request: HttpRequest) -> UpstreamError:
    """Return the error for a status other than 2xx, with the provider's error code if any."""
    if 300 <= response.status < 400:
        return UpstreamError(
            f"{request.name} failed ({response.status}): {_host_name(request)} {REDIRECT_TEXT}.",
            upstream_status=response.status,
        )
    try:
        body = await _read(response, MAX_ERROR_BYTES, request.name)
    except (UpstreamError, aiohttp.ClientError, OSError):
        body = b""  # the status is enough
    code = error_code(body, request.headers)
    return UpstreamError(
        f"{request.name} failed ({response.status})" + (f": {code}" if code else ""),
        upstream_status=response.status,
        code=code,
        retry_after_s=_retry_after_s(response.headers.get("Retry-After")),
    )


def error_code(body: bytes, headers: Mapping[str, str]) -> str | None:
    """Return the error code in a provider's response; None if there is none, or if it may be part of our key.

    OpenAI and Azure: `error.code`, else `error.type`; ElevenLabs: `detail.status` or `detail.code`.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    for member in ("error", "detail"):
        details = value.get(member) if isinstance(value, dict) else None
        for key in ("code", "status", "type"):
            code = str(details.get(key)) if isinstance(details, dict) and details.get(key) is not None else ""
            if _CODE.fullmatch(code) and redact(code) == code and not _may_be_key(code, headers):
                return code
    return None


def _may_be_key(code: str, headers: Mapping[str, str]) -> bool:
    secrets = [part for value in headers.values() for part in value.split() if len(part) >= 8]
    return len(code) >= 8 and any(code in secret or secret in code for secret in secrets)


def _retry_after_s(header: str | None) -> float | None:
    """Parse a `Retry-After` header in seconds (RFC 9110, 10.2.3); None for the date form."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return min(seconds, MAX_RETRY_AFTER_S) if math.isfinite(seconds) and seconds >= 0 else None


def _content_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Type", "").strip()
