"""Token buckets: at most `rate_per_s` in the long run and `capacity` at once. Time is an argument.

No library fits: aiolimiter waits on the event loop, and the `limits` package reads the clock itself. Here a refusal
takes no tokens, several limits are taken together or not at all (`take_all_or_none`), and the table of keys is bounded.
A reader may also borrow tokens and spend them without a call (`relay.session.common.read_allowance`).
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address


class TokenBucket:
    """Gains `rate_per_s` tokens a second, more than 0, up to `capacity`. It starts full unless `tokens` is given."""

    __slots__ = ("_capacity", "_filled_at", "_rate_per_s", "tokens")

    def __init__(self, rate_per_s: float, capacity: float, now: float, tokens: float | None = None) -> None:
        self._rate_per_s = rate_per_s
        self._capacity = capacity
        self._filled_at = now
        self.tokens = capacity if tokens is None else tokens
        """The tokens at the last `fill` or `take`; negative if some were spent in advance."""

    def take(self, n_tokens: float, now: float) -> float:
        """Take `n_tokens` and return 0.0. If there are too few, take none and return the seconds until there are."""
        wait_s = self.wait_s(n_tokens, now)
        if not wait_s:
            self.fill(now)
            self.tokens -= n_tokens
        return wait_s

    def wait_s(self, n_tokens: float, now: float) -> float:
        """Return the seconds until there are `n_tokens`; 0.0 if there are."""
        return max(0.0, (n_tokens - self._tokens_at(now)) / self._rate_per_s)

    def fill(self, now: float) -> None:
        """Bring `tokens` up to date."""
        self.tokens, self._filled_at = self._tokens_at(now), max(now, self._filled_at)

    def _tokens_at(self, now: float) -> float:
        # A clock that goes back neither adds nor removes tokens.
        return min(self._capacity, self.tokens + max(0.0, now - self._filled_at) * self._rate_per_s)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`burst` at once, and `per_minute` in the long run; 0 per minute means no limit."""

    per_minute: float
    burst: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_minute) and self.per_minute >= 0 and self.burst >= 1):
            raise ValueError("a rate limit needs a finite per_minute of 0 or more and a burst of 1 or more")


class KeyedRateLimiter:
    """One token bucket for each key, for at most `max_keys` keys.

    If the table is full, the least recently used key is forgotten, and starts with a full bucket next time. A flood of
    keys thus weakens the limit for old keys, but refuses nothing and needs no more memory.
    """

    def __init__(self, limit: RateLimit, max_keys: int = 10_000) -> None:
        if max_keys < 1:
            raise ValueError("max_keys must be 1 or more")
        self._limit = limit
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, key: str, now: float) -> float:
        """Return the seconds until `key` can take a token; 0.0 if it can now. Takes none."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.wait_s(1, now)

    def take(self, key: str, now: float) -> float:
        """Take a token for `key` and return 0.0. If there is none, return the seconds until there is one."""
        if self._limit.per_minute == 0:
            return 0.0
        bucket = self._buckets.pop(key, None) or TokenBucket(self._limit.per_minute / 60, self._limit.burst, now)
        self._buckets[key] = bucket  # at the end: a refused attempt counts as use
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return bucket.take(1, now)


def take_all_or_none(limiter_keys: list[tuple[KeyedRateLimiter, str]], now: float) -> float:
    """Take a token from each limiter and return 0.0; if one has none, take none and return the longest wait in s."""
    wait_s = max((limiter.wait_s(key, now) for limiter, key in limiter_keys), default=0.0)
    if wait_s > 0:
        return wait_s
    for limiter, key in limiter_keys:
        limiter.take(key, now)
    return 0.0


def address_key(address: str | None) -> str:
    """Return the key by which an address is counted: itself, or its /64, as one IPv6 subscriber has a whole /64."""
    try:
        ip = ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return f"{IPv6Address(int(ip) >> 64 << 64)}/64"
    return str(ip)
