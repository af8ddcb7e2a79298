"""Every error as JSON: for OpenAI's SDKs in OpenAI's shape, else as `{"error": sentence, "field"?: name}`."""

import logging
import math
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

from relay.app.refusals import REASON
from relay.errors import AccessDenied, ApiError, RelayError

MAX_BODY_BYTES = 1024 * 1024
"""The longest body of a request."""
_API_PATHS = ("/v1/", "/openai/")
"""Where errors have OpenAI's shape."""

_API_CODES = {401: "invalid_api_key", 403: "insufficient_permissions", 503: "server_busy"}

_log = logging.getLogger("relay")


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What the answer to a failed request says; `field` names the part of the request that is wrong."""

    status: int
    message: str
    field: str | None = None
    code: str | None = None
    headers: dict[str, str] | None = None

    @classmethod
    def of(cls, error: RelayError) -> Self:
        """That of an error of ours."""
        status = error.status if isinstance(error, AccessDenied | ApiError) else error.http_status
        wait_s = getattr(error, "retry_after_s", None)
        headers = None if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}
        return cls(status, str(error), getattr(error, "field", None), getattr(error, "code", None), headers)

    def response(self, *, openai: bool = False) -> web.Response:
        """The answer in the relay's own shape or in OpenAI's."""
        body: dict[str, Any] = {"error": self.message}
        if self.field:
            body["field"] = self.field
        if openai:
            kind = "invalid_request_error" if self.status < 500 else "server_error"
            code = self.code or _API_CODES.get(self.status)
            body = {"error": {"message": self.message, "type": kind, "param": self.field, "code": code}}
        return web.json_response(body, status=self.status, headers=self.headers)


def error_response(request: web.Request, error: Exception) -> web.Response:
    """The answer to a request whose handler raised; our own faults are logged, and answered without a detail."""
    answer = _answer(request, error)
    request[REASON] = answer.message
    response = answer.response(openai=request.path.startswith(_API_PATHS))
    if answer.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _answer(request: web.Request, error: Exception) -> ErrorAnswer:
    if isinstance(error, web.HTTPException):
        text = error.text or error.reason
        if isinstance(error, web.HTTPRequestEntityTooLarge):
            text = f"The body may have at most {MAX_BODY_BYTES} bytes, whatever the settings."
        return ErrorAnswer(error.status, text, headers=_kept_headers(error))
    if isinstance(error, RelayError):
        return ErrorAnswer.of(error)
    if isinstance(error, web.RequestPayloadError):
        return ErrorAnswer(400, "The body cannot be read: it is cut short, or not encoded as its headers say.")
    if isinstance(error, ConnectionError) and request.transport is None:
        return ErrorAnswer(400, "The body was cut short: the client has left.")  # for the log alone
    _log.error("%s %r failed", request.method, request.path, exc_info=error)
    return ErrorAnswer(500, "The relay failed while answering; its log says more.")


def _kept_headers(error: web.HTTPException) -> dict[str, str]:
    """The headers of an error that say what would be accepted."""
    return {name: error.headers[name] for name in ("Allow", "Accept-Encoding") if name in error.headers}
