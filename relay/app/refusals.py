"""One log line for each request that is refused, and for what is no request at all."""

import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from relay.state import RelayState

STATUSES = frozenset({400, 401, 403, 413, 415, 426, 429, 503})
"""They say that somebody was not let in, or sent what nobody takes."""
REASON = web.RequestKey("reason", str)
"""Why a request was refused, for its line."""


def log_refusal(relay: RelayState, request: web.Request, response: web.StreamResponse) -> None:
    """Log the request if its answer is a refusal."""
    if response.status in STATUSES:
        address, reason = relay.auth.address(request), request.get(REASON, response.reason or "")
        relay.refusals.refused(address, request.method, request.path, response.status, reason, relay.now())


class ServerLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's own log, which has a traceback for every request that is no HTTP; here those are refusals."""

    def __init__(self, relay: RelayState) -> None:
        super().__init__(logging.getLogger("aiohttp.server"))
        self._relay = relay

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        """Log one; what the request said is left out, for it may be a credential."""
        if isinstance(exc_info, HttpProcessingError):
            address, reason = str(args[0]) if args else "", f"This is no HTTP request ({type(exc_info).__name__})."
            self._relay.refusals.refused(address, "?", "?", exc_info.code, reason, self._relay.now())
        elif not isinstance(exc_info, web.RequestPayloadError):  # that one was answered, and logged as a refusal
            super().exception(msg, *args, exc_info=exc_info, **more)
