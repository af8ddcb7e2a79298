"""The errors of Relay; each one has the HTTP status of the response to a client."""


class RelayError(Exception):
    """Base of all errors that Relay raises on purpose; `str(error)` is a sentence for the user."""

    http_status = 500


class ConfigError(RelayError):
    """The settings are invalid; the text lists every mistake with its fix."""


class AccessDenied(RelayError):
    """The caller lacks permission; `http_status` is 401 if a credential would help, else 403.

    `field` names the part of the request that is not allowed, if it is a single part.
    """

    http_status = 403

    def __init__(self, message: str, status: int = 403, field: str | None = None) -> None:
        super().__init__(message)
        self.http_status = status
        self.field = field


class BadRequest(RelayError):
    """The request is malformed; `field` names the invalid part, if it is a single part."""

    http_status = 400

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class OpenAIError(RelayError):
    """An error on an OpenAI-shaped route, with the `code` and `param` that OpenAI's SDKs show."""

    def __init__(self, message: str, status: int = 400, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.http_status = status
        self.code = code
        self.param = param


class PayloadTooLarge(RelayError):
    """A message or a body exceeds its size limit."""

    http_status = 413


class RequestTimeout(RelayError):
    """The head or the body of a request did not arrive in time."""

    http_status = 408


class CapacityExceeded(RelayError):
    """A limit is reached for now; a later attempt may succeed."""

    http_status = 503


class RateLimited(CapacityExceeded):
    """A quota is used up; `retry_after_s` is the time until it is available again."""

    http_status = 429

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UpstreamError(RelayError):
    """The upstream refused a request or failed; the text never has a key or the raw response body.

    `upstream_status` is the HTTP status of its response, `code` its error code, and `retry_after_s` its `Retry-After`;
    each is None if the response had none.
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
    """The upstream did not respond in time."""

    http_status = 504


class NotConfigured(RelayError):
    """The request needs a setting that is not set; the text names the setting."""

    http_status = 503


class ToolError(RelayError):
    """A tool could not be described, loaded or run."""
