"""Who may buy how much: for each identity, and for each address of those without one."""

import pytest

from relay.app.session_limiter import PaidRouteQuota
from relay.errors import RateLimited
from relay.session.common.rate_limit import address_key


def test_one_key_uses_up_its_own_quota_from_wherever_it_comes() -> None:
    spending = PaidRouteQuota(mints_per_minute=1)
    spending.charge("mint", "key-1", "10.0.0.1", now=0.0)
    with pytest.raises(RateLimited, match=r"1 a minute.*RELAY_MINTS_PER_MINUTE.*in 60 s") as refused:
        spending.charge("mint", "key-1", "10.0.0.2", now=0.0)
    assert (refused.value.http_status, refused.value.retry_after_s) == (429, 60.0)
    spending.charge("mint", "key-1", "10.0.0.1", now=60.0)


def test_another_key_and_callers_without_one_buy_on_at_the_same_address() -> None:
    spending = PaidRouteQuota(mints_per_minute=1)
    for identity in ("key-1", "key-2", "anonymous"):
        spending.charge("mint", identity, "10.0.0.1", now=0.0)
    with pytest.raises(RateLimited):
        spending.charge("mint", "anonymous", "10.0.0.1", now=0.0)


def test_callers_without_a_key_share_no_identity() -> None:
    spending = PaidRouteQuota(mints_per_minute=1)
    spending.charge("mint", "anonymous", "10.0.0.1", now=0.0)
    spending.charge("mint", "anonymous", "10.0.0.2", now=0.0)


def test_secrets_and_speech_are_counted_apart_and_zero_is_no_limit() -> None:
    spending = PaidRouteQuota(mints_per_minute=1, speech_per_minute=0)
    spending.charge("mint", "key-1", "10.0.0.1", now=0.0)
    for _ in range(500):
        spending.charge("speech", "key-1", "10.0.0.1", now=0.0)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "unknown"),
        ("somewhere", "unknown"),
    ],
)
def test_a_subscribers_addresses_are_one(address: str | None, key: str) -> None:
    assert address_key(address) == key
