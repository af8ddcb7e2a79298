"""Every error as JSON: for OpenAI's SDKs in OpenAI's shape, else as `{"error": sentence, "field"?: name}`."""

import logging
import math

from aiohttp import web

from relay.app.refusals import REASON
from relay.errors import AccessDenied, ApiError, RelayError

MAX_BODY_BYTES = 1024 * 1024
"""The longest body of a request."""
_API_PATHS = ("/v1/", "/openai/")
"""Where errors have OpenAI's shape."""

_log = logging.getLogger("relay")


def error_response(request: web.Request, error: Exception) -> web.Response:
    """The answer to a request whose handler raised; our own faults are logged, and answered without a detail."""
    if isinstance(error, web.HTTPException):
        text = error.text or error.reason
        if isinstance(error, web.HTTPRequestEntityTooLarge):
            text = f"The body may have at most {MAX_BODY_BYTES} bytes, whatever the settings."
        return _error(request, error.status, text, headers=_kept_headers(error))
    if isinstance(error, RelayError):
        status = error.status if isinstance(error, AccessDenied | ApiError) else error.http_status
        wait_s = getattr(error, "retry_after_s", None)
        headers = {} if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}
        field, code = getattr(error, "field", None), getattr(error, "code", None)
        return _error(request, status, str(error), field, code, headers)
    if isinstance(error, web.RequestPayloadError):
        return _error(request, 400, "The body cannot be read: it is cut short, or not encoded as its headers say.")
    if isinstance(error, ConnectionError) and request.transport is None:
        return _error(request, 400, "The body was cut short: the client has left.")  # for the log alone
    _log.error("%s %r failed", request.method, request.path, exc_info=error)
    return _error(request, 500, "The relay failed while answering; its log says more.")


def _kept_headers(error: web.HTTPException) -> dict[str, str]:
    """The headers of an error that say what would be accepted."""
    return {name: error.headers[name] for name in ("Allow", "Accept-Encoding") if name in error.headers}


def _error(
    request: web.Request,
    status: int,
    message: str,
    field: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    headers = headers or {}
    request[REASON] = message
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if request.path.startswith(_API_PATHS):
        kind = "invalid_request_error" if status < 500 else "server_error"
        api_error = {"message": message, "type": kind, "param": field, "code": code or _API_CODES.get(status)}
        return web.json_response({"error": api_error}, status=status, headers=headers)
    return web.json_response({"error": message} | ({"field": field} if field else {}), status=status, headers=headers)


_API_CODES = {401: "invalid_api_key", 403: "insufficient_permissions", 503: "server_busy"}
