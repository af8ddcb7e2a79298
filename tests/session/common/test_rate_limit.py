"""Token limiter: a burst, then a steady rate, alone and in a table that does not grow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.session.common.rate_limit import KeyedRateLimiter, RateLimit, TokenBucket, take_all_or_none


def test_a_bucket_may_begin_with_less_than_it_holds_and_gives_several_at_once() -> None:
    bucket = TokenBucket(rate_per_s=2, capacity=10, now=0.0, tokens=3)
    assert bucket.take(4, now=0.0) == 0.5
    assert bucket.take(4, now=0.5) == 0.0
    assert bucket.wait_s(10, now=1.0) == 4.5
    assert bucket.take(10, now=100.0) == 0.0, "no more than it holds"
    assert bucket.take(1, now=100.0) == 0.5


def test_a_burst_passes_then_one_at_a_time() -> None:
    limiter = KeyedRateLimiter(RateLimit(per_minute=60, burst=3))
    assert [limiter.take("ana", now=0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.take("ana", now=0.0) == 1.0
    assert limiter.take("ana", now=0.25) == 0.75
    assert limiter.take("ana", now=1.0) == 0.0
    assert limiter.take("ana", now=1.0) == 1.0


def test_a_refusal_costs_nothing() -> None:
    limiter = KeyedRateLimiter(RateLimit(per_minute=60, burst=1))
    limiter.take("ana", now=0.0)
    for _ in range(100):
        assert limiter.take("ana", now=0.5) == 0.5
    assert limiter.take("ana", now=1.0) == 0.0


def test_keys_do_not_share() -> None:
    limiter = KeyedRateLimiter(RateLimit(per_minute=1, burst=1))
    assert limiter.take("ana", now=0.0) == 0.0
    assert limiter.take("ben", now=0.0) == 0.0
    assert limiter.take("ana", now=0.0) == 60.0


def test_zero_means_no_limit_and_keeps_nothing() -> None:
    limiter = KeyedRateLimiter(RateLimit(per_minute=0, burst=1))
    assert [limiter.take("ana", now=0.0) for _ in range(1000)] == [0.0] * 1000
    assert len(limiter) == 0


def test_a_full_table_forgets_the_key_used_longest_ago() -> None:
    limiter = KeyedRateLimiter(RateLimit(per_minute=1, burst=1), max_keys=2)
    for key in ("ana", "ben"):
        limiter.take(key, now=0.0)
    assert limiter.take("ana", now=1.0) == 59.0, "asking in vain is use as well"
    limiter.take("cia", now=1.0)
    assert len(limiter) == 2
    assert limiter.take("ana", now=1.0) == 59.0
    assert limiter.take("ben", now=1.0) == 0.0


def test_a_clock_that_goes_back_changes_nothing() -> None:
    limiter = KeyedRateLimiter(RateLimit(per_minute=60, burst=1))
    limiter.take("ana", now=10.0)
    assert limiter.take("ana", now=5.0) == 1.0
    assert limiter.take("ana", now=11.0) == 0.0


def test_several_are_taken_together_or_not_at_all() -> None:
    identities, addresses = KeyedRateLimiter(RateLimit(60, burst=5)), KeyedRateLimiter(RateLimit(60, burst=1))
    assert take_all_or_none([(identities, "ana"), (addresses, "10.0.0.1")], now=0.0) == 0.0
    assert take_all_or_none([(identities, "ana"), (addresses, "10.0.0.1")], now=0.0) == 1.0
    assert [identities.take("ana", now=0.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(("per_minute", "burst"), [(-1, 1), (float("nan"), 1), (float("inf"), 1), (1, 0)])
def test_rates_that_make_no_sense_are_refused(per_minute: float, burst: int) -> None:
    with pytest.raises(ValueError):
        RateLimit(per_minute, burst)


@given(
    per_minute=st.floats(0.1, 600),
    burst=st.integers(1, 20),
    steps=st.lists(st.floats(0, 30), max_size=200),
)
def test_never_more_than_burst_and_rate_allow(per_minute: float, burst: int, steps: list[float]) -> None:
    limiter = KeyedRateLimiter(RateLimit(per_minute, burst))
    now, granted = 0.0, 0
    for step in steps:
        now += step
        granted += limiter.take("ana", now) == 0.0
    assert granted <= burst + now * per_minute / 60 + 1e-6


@given(st.lists(st.tuples(st.text(max_size=2), st.floats(0, 100)), max_size=300))
def test_the_table_stays_within_its_bound(calls: list[tuple[str, float]]) -> None:
    limiter = KeyedRateLimiter(RateLimit(per_minute=6, burst=2), max_keys=5)
    for key, now in calls:
        limiter.take(key, now)
        assert len(limiter) <= 5
