"""Who gets a session: places in all and for one address, and how often one may knock."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from websockets.asyncio.client import connect

from relay.app.session_limiter import (
    DEFAULT_HANDSHAKES_PER_MINUTE,
    DEFAULT_SESSIONS_PER_ADDRESS,
    HANDSHAKES_PER_SECOND,
    SessionLimiter,
)
from relay.errors import CapacityExceeded, RateLimited
from relay.runtime.realtime import RealtimeRuntime
from relay.testing import ScriptedUpstream
from tests.support.raw_websocket import RawClient, upgrade_request
from tests.support.relay_server import running_relay, settings_for
from tests.support.virtual_time import advance_time, in_virtual_time


def admission(**settings: Any) -> SessionLimiter:
    return SessionLimiter(settings_for(**settings))


def test_a_place_is_given_back_however_the_session_ends() -> None:
    limiter = admission(limits_max_sessions=1)
    with pytest.raises(ZeroDivisionError), limiter.acquire_session("203.0.113.1"):
        raise ZeroDivisionError
    with (
        limiter.acquire_session("203.0.113.1"),
        pytest.raises(CapacityExceeded, match="All 1 sessions are in use"),
        limiter.acquire_session("203.0.113.2"),
    ):
        pass


def test_one_address_has_its_share() -> None:
    limiter = admission(limits_max_sessions_per_address=2)
    with limiter.acquire_session("203.0.113.1"), limiter.acquire_session("203.0.113.1"):
        with pytest.raises(CapacityExceeded, match="already has 2 sessions"), limiter.acquire_session("203.0.113.1"):
            pass
        with limiter.acquire_session("203.0.113.2"):
            pass


def test_an_ipv6_customer_is_one_address() -> None:
    limiter = admission(limits_max_sessions_per_address=1)
    with limiter.acquire_session("2001:db8:1:2::1"):
        with pytest.raises(CapacityExceeded), limiter.acquire_session("2001:db8:1:2:ffff::9"):
            pass
        with limiter.acquire_session("2001:db8:1:3::1"):
            pass
    with (
        limiter.acquire_session("::ffff:203.0.113.1"),
        pytest.raises(CapacityExceeded),
        limiter.acquire_session("203.0.113.1"),
    ):
        pass


def holds(limiter: SessionLimiter, address: str, places: int) -> bool:
    """Whether `address` may have that many sessions at once."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        try:
            for _ in range(places):
                stack.enter_context(limiter.acquire_session(address))
        except CapacityExceeded:
            return False
    return True


def test_this_machine_stands_for_many_unless_it_is_set() -> None:
    more = DEFAULT_SESSIONS_PER_ADDRESS + 1
    assert holds(admission(), "127.0.0.1", more)
    assert not holds(admission(), "203.0.113.1", more)
    assert not holds(admission(limits_max_sessions_per_address=3), "127.0.0.1", 4)
    assert holds(admission(limits_max_sessions_per_address=0), "203.0.113.1", more)


@in_virtual_time
async def test_who_knocks_too_often_waits_and_is_told_how_long() -> None:
    limiter = admission()
    for _ in range(DEFAULT_HANDSHAKES_PER_MINUTE):
        limiter.check_rate("203.0.113.1")
    with pytest.raises(RateLimited) as refused:
        limiter.check_rate("203.0.113.1")
    assert 0 < refused.value.retry_after_s <= 1
    limiter.check_rate("203.0.113.2")
    await advance_time(refused.value.retry_after_s)
    limiter.check_rate("203.0.113.1")


@in_virtual_time
async def test_all_together_have_a_bound_too() -> None:
    limiter = admission(limits_max_sessions=300)
    for number in range(300):
        limiter.check_rate(f"10.0.{number // 250}.{number % 250}")
    with pytest.raises(RateLimited):
        limiter.check_rate("10.9.9.9")


@in_virtual_time
async def test_who_is_over_its_own_limit_takes_nothing_from_the_others() -> None:
    limiter = admission(limits_max_sessions=1, limits_max_handshakes_per_minute=1)
    limiter.check_rate("203.0.113.1")
    for _ in range(1000):
        with pytest.raises(RateLimited):
            limiter.check_rate("203.0.113.1")
    for number in range(HANDSHAKES_PER_SECOND - 1):
        limiter.check_rate(f"198.51.100.{number}")
    with pytest.raises(RateLimited):
        limiter.check_rate("198.51.100.250")


def test_who_has_its_share_is_told_so_even_when_all_places_are_taken() -> None:
    limiter = admission(limits_max_sessions=1, limits_max_sessions_per_address=1)
    text = "This address already has 1 sessions"
    with (
        limiter.acquire_session("203.0.113.1"),
        pytest.raises(CapacityExceeded, match=text),
        limiter.acquire_session("203.0.113.1"),
    ):
        pass


@in_virtual_time
async def test_an_address_that_is_none_is_counted_all_the_same() -> None:
    limiter = admission(limits_max_handshakes_per_minute=1)
    limiter.check_rate("unix")
    with pytest.raises(RateLimited):
        limiter.check_rate("unix")


@pytest.mark.parametrize(
    "turn", [SessionLimiter.wait_session_turn, SessionLimiter.wait_request_turn], ids=["sessions", "requests"]
)
async def test_they_begin_one_by_one_and_sessions_that_talk_come_in_between(
    turn: Callable[[SessionLimiter], Awaitable[None]],
) -> None:
    limiter, loop, began = admission(), asyncio.get_running_loop(), list[tuple[int, int]]()
    n_round = 0

    def next_round() -> None:
        nonlocal n_round
        n_round += 1
        if len(began) < 4:
            loop.call_soon(next_round)

    async def begin(number: int) -> None:
        await turn(limiter)
        began.append((number, n_round))

    tasks = [asyncio.create_task(begin(number)) for number in range(5)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    next_round()
    await asyncio.wait(tasks)
    assert [number for number, _ in began] == [0, 1, 3, 4]
    first = began[0][1]
    assert [when - first for _, when in began] == [0, 1, 3, 4], "who left had a turn, too, and nobody is held up by it"
    async with asyncio.timeout(1):
        await turn(limiter)


async def test_who_is_refused_takes_nobodys_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, turn = 0, SessionLimiter.wait_session_turn

    async def counted(limiter: SessionLimiter) -> None:
        nonlocal turns
        turns += 1
        await turn(limiter)

    monkeypatch.setattr(SessionLimiter, "wait_session_turn", counted)
    async with (
        ScriptedUpstream() as upstream,
        running_relay(
            upstream.url, limits_max_sessions=1, access_api_keys="a-long-enough-key", server_host="0.0.0.0"
        ) as relay,
        ClientSession() as http,
    ):
        keyed = {"Authorization": "Bearer a-long-enough-key"}
        for path, headers, status in (
            ("/?rate=24000", {}, 401),
            ("/?rate=1", keyed, 400),
            ("/v1/realtime", {}, 401),
            ("/v1/realtime?call_id=1", keyed, 501),
        ):
            with pytest.raises(WSServerHandshakeError) as refused:
                await http.ws_connect(relay.http(path), headers=headers)
            assert refused.value.status == status
        assert turns == 0
        async with http.ws_connect(relay.http("/?rate=24000"), headers=keyed):
            assert turns == 1
            with pytest.raises(WSServerHandshakeError):
                await http.ws_connect(relay.http("/?rate=24000"), headers=keyed)
            assert turns == 1, "there is no place to wait for"


async def test_who_leaves_before_the_dial_costs_nothing_at_the_models_end(monkeypatch: pytest.MonkeyPatch) -> None:
    here, over, dial_first = asyncio.Event(), asyncio.Event(), RealtimeRuntime.connect_upstream_first

    async def late(live: RealtimeRuntime, client_is_gone: Callable[[], bool]) -> None:
        if not here.is_set():
            here.set()
            while not client_is_gone():  # noqa: ASYNC110  # no event says so
                await asyncio.sleep(0.005)
        try:
            await dial_first(live, client_is_gone)
        finally:
            over.set()

    monkeypatch.setattr(RealtimeRuntime, "connect_upstream_first", late)
    async with ScriptedUpstream() as upstream, running_relay(upstream.url) as relay:
        client = await RawClient.open(relay.port)
        client.writer.write(upgrade_request("/v1/realtime?model=m"))
        await here.wait()
        client.writer.transport.abort()
        await over.wait()
        async with connect(relay.ws("/v1/realtime?model=m")):
            await upstream.accept()
            assert upstream.handshakes == 1
