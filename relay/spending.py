"""How often one caller may ask for what costs money at a provider: secrets, and speech.

Counted for the caller's identity where a key shows one, else for its address; RELAY_PROXIES says which addresses are
those of proxies. So one key cannot use up what another one may buy, though both come from the same address.
"""

import math
from typing import Literal

from relay.errors import TooOften
from relay.session.common.rate_limit import KeyedRateLimiter, RateLimit, address_key

DEFAULT_MINTS_PER_MINUTE = 30
DEFAULT_SPEECH_PER_MINUTE = 120

Purchase = Literal["mint", "speech"]

_NAMES: dict[Purchase, tuple[str, str]] = {
    "mint": ("secrets", "RELAY_MINTS_PER_MINUTE"),
    "speech": ("speech requests", "RELAY_SPEECH_PER_MINUTE"),
}


class Spending:
    """Counts what callers buy; 0 per minute means without limit."""

    def __init__(
        self, mints_per_minute: int = DEFAULT_MINTS_PER_MINUTE, speech_per_minute: int = DEFAULT_SPEECH_PER_MINUTE
    ) -> None:
        self._limits: dict[Purchase, int] = {"mint": mints_per_minute, "speech": speech_per_minute}
        self._identities = {what: _buckets(limit) for what, limit in self._limits.items()}
        self._addresses = {what: _buckets(limit) for what, limit in self._limits.items()}

    def buy(self, what: Purchase, identity: str, address: str | None, now: float) -> None:
        """Count one purchase. Raises TooOften, and counts nothing, when the caller is over."""
        if identity == "anonymous":  # whom all callers without a key would share, and could take from each other
            wait_s = self._addresses[what].take(address_key(address), now)
        else:
            wait_s = self._identities[what].take(identity, now)
        if wait_s > 0:
            noun, setting = _NAMES[what]
            raise TooOften(
                f"Too many {noun}: at most {self._limits[what]} a minute for one caller ({setting}). "
                f"Try again in {math.ceil(wait_s)} s.",
                retry_after_s=wait_s,
            )


def _buckets(per_minute: int) -> KeyedRateLimiter:
    return KeyedRateLimiter(RateLimit(per_minute, burst=max(per_minute, 1)))
