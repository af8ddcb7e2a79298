"""The middleware of all routes: bodies, CORS, JSON errors, the log of refusals, and redaction of responses."""

import asyncio
import logging
import math
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from relay.app.context import AUTHENTICATOR, KNOWN_SECRETS, REFUSAL_LOG
from relay.auth.refusals import RefusalLog
from relay.errors import AccessDenied, OpenAIError, RelayError, RequestTimeout

REFUSAL_STATUSES = frozenset({400, 401, 403, 408, 413, 415, 426, 429, 503})
"""Statuses of requests that are logged as refused."""
REFUSAL_REASON = web.RequestKey("reason", str)
"""The reason of a refusal, for its log line."""
MAX_BODY_BYTES = 1024 * 1024
"""The size limit of request bodies."""
_API_PATHS = ("/v1/", "/openai/")
"""Routes whose errors have OpenAI's shape."""
_API_CODES = {401: "invalid_api_key", 403: "insufficient_permissions", 503: "server_busy"}
_log = logging.getLogger("relay")
_TEXT_TYPES = ("application/json", "text/plain")
"""Content types that are redacted: errors, tools and providers, but not pages, audio and recordings."""
LINGERING_TIME_S = 1.0
"""The time for which the rest of an unread body is discarded, so that its sender can read the response."""
LINGERING_BYTES = 1024 * 1024
"""The limit of bytes that are discarded."""
HANDLER_ARGS = {"auto_decompress": False, "lingering_time": LINGERING_TIME_S, "read_bufsize": 64 * 1024}
"""Arguments of aiohttp's request handler. It would decompress a body during parsing, before any route runs."""
NO_CORS_PATHS = ("/login", "/logout", "/recordings")
"""Paths without CORS headers, even for allowed origins."""


def log_connection_refusal(refusals: RefusalLog, status: int | None, address: str, reason: str) -> None:
    """Log a refusal before a request was parsed (status None: the connection was closed), without method and path."""
    refusals.log_refusal(address, "?", "?", status, reason, asyncio.get_running_loop().time())


class ServerLogger(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's log without tracebacks for unreadable bodies, which are logged as refusals."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("aiohttp.server"))

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        """Log an internal failure."""
        if not isinstance(exc_info, HttpProcessingError | web.RequestPayloadError | RequestTimeout):
            super().exception(msg, *args, exc_info=exc_info, **more)


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The response to a failed request; `field` names the invalid part of the request."""

    status: int
    message: str
    field: str | None = None
    code: str | None = None
    headers: dict[str, str] | None = None

    @classmethod
    def from_error(cls, error: RelayError) -> Self:
        """Describe one of our errors."""
        field = error.param if isinstance(error, OpenAIError) else getattr(error, "field", None)
        wait_s = getattr(error, "retry_after_s", None)
        headers = None if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}
        return cls(error.http_status, str(error), field, getattr(error, "code", None), headers)

    def to_response(self, *, openai: bool = False) -> web.Response:
        """Build the response, in the relay's own shape or OpenAI's."""
        body: dict[str, Any] = {"error": self.message}
        if self.field:
            body["field"] = self.field
        if openai:
            kind = "invalid_request_error" if self.status < 500 else "server_error"
            code = self.code or _API_CODES.get(self.status)
            body = {"error": {"message": self.message, "type": kind, "param": self.field, "code": code}}
        return web.json_response(body, status=self.status, headers=self.headers)


def error_response(request: web.Request, error: Exception) -> web.Response:
    """Build the response to a request whose handler raised; internal errors are logged and get no details."""
    error_body = _describe_error(request, error)
    request[REFUSAL_REASON] = error_body.message
    response = error_body.to_response(openai=request.path.startswith(_API_PATHS))
    if error_body.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _describe_error(request: web.Request, error: Exception) -> ErrorResponse:
    if isinstance(error, web.HTTPException):
        text = error.text or error.reason
        if isinstance(error, web.HTTPRequestEntityTooLarge):
            text = f"The body may have at most {MAX_BODY_BYTES} bytes."
        headers = {name: error.headers[name] for name in ("Allow", "Accept-Encoding") if name in error.headers}
        return ErrorResponse(error.status, text, headers=headers)
    if isinstance(error, RelayError):
        return ErrorResponse.from_error(error)
    if isinstance(error, web.RequestPayloadError):
        return ErrorResponse(400, "The body is incomplete, or not encoded as its headers say.")
    if isinstance(error, ConnectionError) and request.transport is None:
        return ErrorResponse(400, "The body is incomplete: the client disconnected.")  # only for the log
    _log.error("request failed: %s %r", request.method, request.path, exc_info=error)
    return ErrorResponse(500, "Internal error; see the relay's log.")


@web.middleware
async def response_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn exceptions into responses, log refusals, and redact text responses.

    This is one middleware instead of three because a session's handler stays inside it for the whole session.
    """
    try:
        response = await handler(request)
    except Exception as error:
        response = error_response(request, error)
    if response.status in REFUSAL_STATUSES:
        address, reason = (
            request.app[AUTHENTICATOR].client_address(request),
            request.get(REFUSAL_REASON, response.reason or ""),
        )
        refusals, now = request.app[REFUSAL_LOG], asyncio.get_running_loop().time()
        refusals.log_refusal(address, request.method, request.path, response.status, reason, now)
    if isinstance(response, web.Response) and response.content_type in _TEXT_TYPES and isinstance(response.body, bytes):
        cleaned = request.app[KNOWN_SECRETS].redact_json(response.body)
        if cleaned is not response.body:
            response.body = cleaned
    return response


@web.middleware
async def refuse_compressed_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a request with a `Content-Encoding` other than identity with 415 (RFC 9110, 8.4 and 15.5.16)."""
    if _is_compressed(request):
        raise web.HTTPUnsupportedMediaType(
            text="Compressed bodies are not supported; send the body without Content-Encoding.",
            headers={"Accept-Encoding": "identity"},
        )
    return await handler(request)


async def send_100_continue(request: web.Request) -> None:
    """Respond to `Expect: 100-continue` with 100, unless the body will be refused (RFC 9110, 10.1.1)."""
    is_expected = request.headers.get("Expect", "").lower() == "100-continue"
    if is_expected and request.version >= HttpVersion11 and not _is_compressed(request):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp counts the bytes of the response from here


def _is_compressed(request: web.Request) -> bool:
    codings = ",".join(request.headers.getall("Content-Encoding", ())).split(",")
    return any(coding.strip().lower() not in ("", "identity") for coding in codings)


@web.middleware
async def answer_preflights(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer the preflight requests of allowed origins and refuse all others."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return await handler(request)
    if request.path.startswith(NO_CORS_PATHS):
        raise AccessDenied("Only the relay's own pages may use this route.")
    if request.app[AUTHENTICATOR].classify_origin(request) != "allowed":
        raise AccessDenied("This origin may not use the relay. Add it to RELAY_ALLOWED_ORIGINS.")
    return web.Response(status=204, headers=_cors_headers(request, preflight=True))


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the CORS headers just before a response is sent, so that streamed responses get them too."""
    is_preflight = "Access-Control-Allow-Origin" in response.headers
    if response.status == 101 or is_preflight or request.path.startswith(NO_CORS_PATHS):
        return
    if request.app[AUTHENTICATOR].classify_origin(request) == "allowed":
        response.headers.update(_cors_headers(request, preflight=False))


def _cors_headers(request: web.Request, *, preflight: bool) -> dict[str, str]:
    headers = {"Access-Control-Allow-Origin": request.headers["Origin"], "Vary": "Origin"}
    if preflight:
        allowed_headers = request.headers.get("Access-Control-Request-Headers", "Content-Type, Authorization")
        headers |= {
            "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
            "Access-Control-Allow-Headers": allowed_headers,
            "Access-Control-Max-Age": "600",
        }
    return headers
