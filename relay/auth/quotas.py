"""Quotas of the routes that cost money at a provider: provider secrets and speech.

They count per identity of the caller's key, else per address behind RELAY_PROXIES. So a key cannot use up the quota of
another key, even if both come from one address.
"""

import math
from typing import Literal

from relay.errors import RateLimited
from relay.session.common.rate_limit import KeyedRateLimiter, RateLimit, address_key

DEFAULT_MINTS_PER_MINUTE = 30
DEFAULT_SPEECH_PER_MINUTE = 120
PaidRoute = Literal["mint", "speech"]
_PAID_ROUTE_TEXTS: dict[PaidRoute, tuple[str, str]] = {
    "mint": ("secrets", "RELAY_MINTS_PER_MINUTE"),
    "speech": ("speech requests", "RELAY_SPEECH_PER_MINUTE"),
}


class PaidRouteQuota:
    """Limits the calls of paid routes per minute and caller; 0 means no limit."""

    def __init__(
        self, mints_per_minute: int = DEFAULT_MINTS_PER_MINUTE, speech_per_minute: int = DEFAULT_SPEECH_PER_MINUTE
    ) -> None:
        self._limits: dict[PaidRoute, int] = {"mint": mints_per_minute, "speech": speech_per_minute}
        self._identities = {route: _per_minute_limiter(limit) for route, limit in self._limits.items()}
        self._addresses = {route: _per_minute_limiter(limit) for route, limit in self._limits.items()}

    def charge(self, route: PaidRoute, identity: str, address: str | None, now: float) -> None:
        """Count one call. Raises RateLimited, and counts nothing, if the caller is over the limit."""
        if identity == "anonymous":  # all callers without a key would share one quota
            wait_s = self._addresses[route].take(address_key(address), now)
        else:
            wait_s = self._identities[route].take(identity, now)
        if wait_s > 0:
            noun, setting = _PAID_ROUTE_TEXTS[route]
            raise RateLimited(
                f"Too many {noun}: at most {self._limits[route]} a minute for one caller ({setting}). "
                f"Try again in {math.ceil(wait_s)} s.",
                retry_after_s=wait_s,
            )


def _per_minute_limiter(per_minute: int) -> KeyedRateLimiter:
    return KeyedRateLimiter(RateLimit(per_minute, burst=max(per_minute, 1)))
