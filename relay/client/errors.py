"""The errors of the client. The text of each is a sentence for users."""

from relay.client.events import ErrorEvent
from relay.errors import RelayError
from relay.escaping import escape_controls

# docs/device-protocol.md, "How a session ends"; 1011 is decided by the `error` event before it.
_RETRYABLE_CODES = frozenset({1001, 1006, 1013, 4002, 4003})


class ClientError(RelayError):
    """Base of all errors of the client. What a relay wrote is escaped, so that a terminal does not interpret it."""

    def __init__(self, message: str) -> None:
        super().__init__(escape_controls(message))


class InvalidURL(ClientError):
    """The URL of the relay is not valid."""


class ConnectError(ClientError):
    """The connection failed before a session began. `status` is the HTTP status of the response, if there was one."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ProtocolError(ClientError):
    """The relay violated the device protocol, or refused the session's options."""


class ClosedError(ClientError):
    """The connection is closed; `code` is 1006 if there was no close frame.

    `error` is the last error event of the session, if there was one.
    """

    def __init__(self, message: str, code: int, reason: str, error: ErrorEvent | None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.error = error

    @property
    def retryable(self) -> bool:
        """Whether a new connection may succeed; docs/device-protocol.md lists the pauses before it."""
        if self.code == 1011:
            return self.error is not None and self.error.retryable
        return self.code in _RETRYABLE_CODES
