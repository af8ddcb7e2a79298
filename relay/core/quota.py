"""Token buckets in a bounded table: how often one caller may do something, with time as an argument."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, and `per_minute` in the long run; 0 per minute means no limit."""

    per_minute: float
    burst: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_minute) and self.per_minute >= 0 and self.burst >= 1):
            raise ValueError("a rate needs a finite per_minute of 0 or more and a burst of 1 or more")


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class TokenBuckets:
    """One bucket for each key, for at most `max_keys` keys.

    When the table is full the key that was used longest ago is forgotten, and would start with a full bucket again: a
    flood of keys makes the limit weaker for old ones, and never refuses or grows anything.
    """

    def __init__(self, rate: Rate, max_keys: int = 10_000) -> None:
        if max_keys < 1:
            raise ValueError("max_keys must be 1 or more")
        self._rate = rate
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, key: str, now: float) -> float:
        """Seconds until `key` could take a token; 0.0 if it can now. Takes nothing."""
        bucket = self._buckets.get(key)
        if self._rate.per_minute == 0 or bucket is None:
            return 0.0
        self._fill(bucket, now)
        return max(0.0, (1 - bucket.tokens) * 60 / self._rate.per_minute)

    def take(self, key: str, now: float) -> float:
        """Take one token for `key`: 0.0 if there was one, else the seconds until there is one, and nothing is taken."""
        if self._rate.per_minute == 0:
            return 0.0
        wait_s = self.wait_s(key, now)
        if wait_s > 0:
            self._buckets.move_to_end(key)
            return wait_s
        bucket = self._buckets.setdefault(key, _Bucket(float(self._rate.burst), now))
        bucket.tokens -= 1
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return 0.0

    def _fill(self, bucket: _Bucket, now: float) -> None:
        # A clock that goes back fills nothing, and takes nothing either.
        passed_s = max(0.0, now - bucket.filled_at)
        bucket.tokens = min(float(self._rate.burst), bucket.tokens + passed_s * self._rate.per_minute / 60)
        bucket.filled_at = max(now, bucket.filled_at)


def take_all(wanted: list[tuple[TokenBuckets, str]], now: float) -> float:
    """Take a token from each of several buckets, or from none: 0.0, or the longest wait in seconds among them."""
    wait_s = max((buckets.wait_s(key, now) for buckets, key in wanted), default=0.0)
    if wait_s > 0:
        return wait_s
    for buckets, key in wanted:
        buckets.take(key, now)
    return 0.0


def address_key(address: str | None) -> str:
    """What an address is counted by: itself, or its /64, for that is what one IPv6 subscriber has."""
    try:
        found = ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return f"{IPv6Address(int(found) >> 64 << 64)}/64"
    return str(found)


def is_loopback(address: str) -> bool:
    """Whether an address is one of this machine's own, and so may stand for many clients (a proxy, a test)."""
    try:
        found = ip_address(address)
    except ValueError:  # a Unix socket, or a proxy that writes a name
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback
