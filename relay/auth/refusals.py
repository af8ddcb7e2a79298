"""One log line for each request that is refused, and no more of one address than anybody will read."""

import logging
from collections import OrderedDict

from relay.escaping import escape_controls
from relay.session.common.rate_limit import KeyedRateLimiter, RateLimit, address_key

LINES_PER_MINUTE = 20
MAX_ADDRESSES = 1000
MAX_METHOD_CHARS = 20
MAX_PATH_CHARS = 120
MAX_REASON_CHARS = 300

_log = logging.getLogger("relay.access")


class RefusalLog:
    """Writes WARNING lines, at most `LINES_PER_MINUTE` for one address; its next line counts what was left out."""

    def __init__(self) -> None:
        self._rates = KeyedRateLimiter(RateLimit(LINES_PER_MINUTE, LINES_PER_MINUTE), MAX_ADDRESSES)
        self._n_suppressed: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rates) + len(self._n_suppressed)

    def log_refusal(self, address: str, method: str, path: str, status: int | None, reason: str, now: float) -> None:
        """Log one refusal; its status is None for a connection that was closed without an answer.

        `path` is without its query, which may hold a credential.
        """
        key = address_key(address)
        if self._rates.take(key, now) > 0:
            self._n_suppressed[key] = self._n_suppressed.pop(key, 0) + 1
            if len(self._n_suppressed) > MAX_ADDRESSES:
                self._n_suppressed.popitem(last=False)
            return
        n_suppressed = self._n_suppressed.pop(key, 0)
        suffix = f" ({n_suppressed} refusals of this address before it were not logged)" if n_suppressed else ""
        _log.warning(
            "refused %s %s %s: %s %s%s",
            escape_controls(address[:MAX_PATH_CHARS]),
            escape_controls(method[:MAX_METHOD_CHARS]),
            escape_controls(path[:MAX_PATH_CHARS]),
            "closed" if status is None else status,
            escape_controls(reason[:MAX_REASON_CHARS]),
            suffix,
        )
