"""The errors of Relay; each class carries the HTTP status that a client would see."""

from typing import ClassVar


class RelayError(Exception):
    """Base of all errors that Relay raises on purpose; `str(error)` is a sentence a user may read."""

    http_status: ClassVar[int] = 500


class ConfigError(RelayError):
    """The settings are wrong; the text lists every mistake at once, each with its fix."""


class AccessDenied(RelayError):
    """The caller may not do this; `status` is 401 when a credential would help, else 403.

    `field` names the part of the request that is not allowed, where one is.
    """

    http_status = 403

    def __init__(self, message: str, status: int = 403, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class BadRequest(RelayError):
    """The request is malformed; `field` names the part that is wrong, where one is."""

    http_status = 400

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class OpenAIError(BadRequest):
    """A refusal on an OpenAI-shaped route, with the status, `code` and `param` that its SDKs show to their users."""

    def __init__(self, message: str, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message, param)
        self.status = status
        self.code = code


class PayloadTooLarge(RelayError):
    """A message or a body is over its bound."""

    http_status = 413


class RequestTimeout(RelayError):
    """The head or the body of a request did not arrive in time."""

    http_status = 408


class CapacityExceeded(RelayError):
    """A limit is reached for now; trying again later helps."""

    http_status = 503


class RateLimited(CapacityExceeded):
    """A quota is used up; `retry_after_s` says when it is not."""

    http_status = 429

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UpstreamError(RelayError):
    """The model's end refused the connection or broke; never carries a key or the upstream's raw body.

    `upstream_status` is the HTTP status that it answered with, `code` its error code, `retry_after_s` how long it
    asked to wait; each None where there was none.
    """

    http_status = 502

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.upstream_status = upstream_status
        self.code = code
        self.retry_after_s = retry_after_s


class UpstreamTimeout(UpstreamError):
    """The model's end did not answer in time."""

    http_status = 504


class NotConfigured(RelayError):
    """What was asked for needs a setting that is not there; the text names it."""

    http_status = 503


class ToolError(RelayError):
    """A tool could not be described, loaded or run."""
