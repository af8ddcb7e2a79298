"""One log line for each request that is refused, and for what is no request at all."""

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from relay.app.context import AUTHENTICATOR, REFUSALS
from relay.auth.refusals import RefusalLog
from relay.errors import RequestTooSlow

STATUSES = frozenset({400, 401, 403, 408, 413, 415, 426, 429, 503})
"""They say that somebody was not let in, or sent what nobody takes."""
REASON = web.RequestKey("reason", str)
"""Why a request was refused, for its line."""


def log_refusal(request: web.Request, response: web.StreamResponse) -> None:
    """Log the request if its answer is a refusal."""
    if response.status in STATUSES:
        address, reason = request.app[AUTHENTICATOR].address(request), request.get(REASON, response.reason or "")
        refusals, now = request.app[REFUSALS], asyncio.get_running_loop().time()
        refusals.refused(address, request.method, request.path, response.status, reason, now)


def log_connection_refusal(refusals: RefusalLog, status: int | None, address: str, reason: str) -> None:
    """Log what was refused before it was a request, or closed (None): there is no method and no path."""
    refusals.refused(address, "?", "?", status, reason, asyncio.get_running_loop().time())


class ServerLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's own log, without tracebacks for bodies that cannot be read: those are logged as refusals."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("aiohttp.server"))

    def exception(self, msg: object, *args: object, exc_info: Any = True, **more: Any) -> None:
        """Log a failure of the relay's own."""
        if not isinstance(exc_info, HttpProcessingError | web.RequestPayloadError | RequestTooSlow):
            super().exception(msg, *args, exc_info=exc_info, **more)
