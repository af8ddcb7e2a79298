"""Who gets a session: places in all and for one address, and how often one may knock."""

from typing import Any

import pytest

from relay.admission import DEFAULT_HANDSHAKES_PER_MINUTE, DEFAULT_SESSIONS_PER_ADDRESS, Admission
from relay.errors import Full, TooOften
from tests.support.relay_server import settings_for
from tests.support.virtual_time import in_virtual_time, pass_time


def admission(**settings: Any) -> Admission:
    return Admission(settings_for(**settings))


def test_a_place_is_given_back_however_the_session_ends() -> None:
    door = admission(max_sessions=1)
    with pytest.raises(ZeroDivisionError), door.session("203.0.113.1"):
        raise ZeroDivisionError
    with (
        door.session("203.0.113.1"),
        pytest.raises(Full, match="All 1 sessions are taken"),
        door.session("203.0.113.2"),
    ):
        pass


def test_one_address_has_its_share() -> None:
    door = admission(max_sessions_per_address=2)
    with door.session("203.0.113.1"), door.session("203.0.113.1"):
        with pytest.raises(Full, match="has 2 sessions already"), door.session("203.0.113.1"):
            pass
        with door.session("203.0.113.2"):
            pass


def test_an_ipv6_customer_is_one_address() -> None:
    door = admission(max_sessions_per_address=1)
    with door.session("2001:db8:1:2::1"):
        with pytest.raises(Full), door.session("2001:db8:1:2:ffff::9"):
            pass
        with door.session("2001:db8:1:3::1"):
            pass
    with door.session("::ffff:203.0.113.1"), pytest.raises(Full), door.session("203.0.113.1"):
        pass


def holds(door: Admission, address: str, places: int) -> bool:
    """Whether `address` may have that many sessions at once."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        try:
            for _ in range(places):
                stack.enter_context(door.session(address))
        except Full:
            return False
    return True


def test_this_machine_stands_for_many_unless_it_is_set() -> None:
    more = DEFAULT_SESSIONS_PER_ADDRESS + 1
    assert holds(admission(), "127.0.0.1", more)
    assert not holds(admission(), "203.0.113.1", more)
    assert not holds(admission(max_sessions_per_address=3), "127.0.0.1", 4)
    assert holds(admission(max_sessions_per_address=0), "203.0.113.1", more)


@in_virtual_time
async def test_who_knocks_too_often_waits_and_is_told_how_long() -> None:
    door = admission()
    for _ in range(DEFAULT_HANDSHAKES_PER_MINUTE):
        door.knock("203.0.113.1")
    with pytest.raises(TooOften) as refused:
        door.knock("203.0.113.1")
    assert 0 < refused.value.retry_after_s <= 1
    door.knock("203.0.113.2")
    await pass_time(refused.value.retry_after_s)
    door.knock("203.0.113.1")


@in_virtual_time
async def test_all_together_have_a_bound_too() -> None:
    door = admission(max_sessions=300)
    for number in range(300):
        door.knock(f"10.0.{number // 250}.{number % 250}")
    with pytest.raises(TooOften):
        door.knock("10.9.9.9")


@in_virtual_time
async def test_an_address_that_is_none_is_counted_all_the_same() -> None:
    door = admission(max_handshakes_per_minute=1)
    door.knock("unix")
    with pytest.raises(TooOften):
        door.knock("unix")
