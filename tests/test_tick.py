"""Gathering wake-ups: on with enough sessions, off with fewer, and nothing is lost or starved by it."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession
from websockets.asyncio.client import connect

from relay import tool
from relay.testing import FakeClock, ScriptedUpstream
from relay.tick import AFTERWARDS_S, BUSY_SESSIONS, LOOK_S, Tick
from tests.support.realtime_client import registry_of
from tests.support.relay_server import DeviceClient, running_relay
from tests.support.voice_stage import talking


async def rounds_of_reading(tick_ms: float, sessions: int) -> int:
    """How often the loop wakes for 200 datagrams that a thread sends, one every 0.2 ms."""
    loop, woken, all_in = asyncio.get_running_loop(), 0, asyncio.Event()
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.setblocking(False)
    got = 0

    def read() -> None:
        nonlocal woken, got
        woken += 1
        while True:
            try:
                receiver.recv(16)
            except BlockingIOError:
                break
            got += 1
        if got == 200:
            all_in.set()

    def send() -> None:
        import time

        for _ in range(200):
            sender.send(b"frame")
            time.sleep(0.0002)

    tick = Tick(tick_ms)
    tick.sessions(sessions)
    loop.add_reader(receiver, read)
    try:
        await asyncio.gather(asyncio.to_thread(send), all_in.wait())
    finally:
        tick.sessions(0)
        loop.remove_reader(receiver)
        receiver.close()
        sender.close()
    return woken


async def test_frames_are_gathered_by_the_tick() -> None:
    gathered = await rounds_of_reading(5, BUSY_SESSIONS)
    assert gathered < 60, "some 50 ms and more of frames, looked at every 5 ms"


@pytest.mark.parametrize(("tick_ms", "sessions"), [(0, BUSY_SESSIONS), (5, BUSY_SESSIONS - 1)])
async def test_few_sessions_or_no_tick_gather_nothing(tick_ms: float, sessions: int) -> None:
    tick = Tick(tick_ms)
    tick.sessions(sessions)
    assert not tick.is_on


async def test_sessions_come_talk_and_go_under_a_tick() -> None:
    async with ScriptedUpstream() as upstream, running_relay(upstream.url, tick_ms=5) as relay:
        clients = []
        for _ in range(BUSY_SESSIONS):
            clients.append(await DeviceClient.connect(relay.ws("/?rate=24000")))
            session = await upstream.accept()
            await session.configure()
            await clients[-1].expect("AIConnected")
        assert relay.state.tick.is_on
        async with connect(relay.ws("/v1/realtime?model=m")):
            assert not relay.state.tick.is_on, "nobody waits while somebody is there who cannot"
        async with asyncio.timeout(5):
            while not relay.state.tick.is_on:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0)
        await session.respond("Hello there.", ms=300)
        assert (await clients[-1].expect("AIResponseEnd"))["finalText"] == "Hello there."
        assert len(await clients[-1].expect_audio(300 * 48)) == 300 * 48
        for client in clients:
            await client.connection.close()
            await client.wait_closed()
        async with asyncio.timeout(5):
            await relay.state.all_gone.wait()
        assert not relay.state.tick.is_on


def tick_of_an_idle_loop(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeClock, Tick, list[float]]:
    """A tick that is on, the clock it goes by, and how long it has slept."""
    clock, slept = FakeClock(100.0), list[float]()
    monkeypatch.setattr(
        "relay.tick.time", SimpleNamespace(monotonic=clock, sleep=slept.append, thread_time=lambda: 0.0)
    )
    tick = Tick(5)
    tick.sessions(BUSY_SESSIONS)
    return clock, tick, slept


async def test_a_loop_without_time_to_spare_does_not_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, tick, slept = tick_of_an_idle_loop(monkeypatch)
    for work_s in (0.006, 0.02, 0.001, 0.005):
        await asyncio.sleep(0)  # one round
        clock.advance(work_s)
    await asyncio.sleep(0)
    tick.sessions(0)
    assert slept == [pytest.approx(0.004)], "only after the round of 1 ms; the first began long ago"


async def test_what_takes_many_rounds_keeps_the_loop_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, tick, slept = tick_of_an_idle_loop(monkeypatch)

    async def sleeps() -> bool:
        """Whether a round is slowed down, once it has been looked."""
        slept.clear()
        clock.advance(0.001)
        async with asyncio.timeout(5):
            await asyncio.sleep(AFTERWARDS_S * 1.2)
        return slept != []

    assert await sleeps()
    with tick.awake():
        with tick.awake():
            assert not await sleeps()
        clock.advance(2 * AFTERWARDS_S)
        assert not await sleeps(), "one has ended, the other has not"
    assert not await sleeps(), "what came of it is not over yet"
    clock.advance(AFTERWARDS_S)
    assert await sleeps()
    tick.sessions(0)


async def test_a_beginning_a_request_and_a_tool_keep_the_loop_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_awake, awake = 0, Tick.awake

    def noted(tick: Tick) -> AbstractContextManager[None]:
        nonlocal kept_awake
        kept_awake += 1
        return awake(tick)

    monkeypatch.setattr(Tick, "awake", noted)

    @tool
    async def look() -> str:
        """Looks."""
        assert kept_awake == 4
        return "seen"

    async with ScriptedUpstream() as upstream, running_relay(upstream.url, registry_of(look)) as relay:
        async with ClientSession() as http, http.get(relay.http("/healthz")):
            assert kept_awake == 1
        client = await DeviceClient.connect(relay.ws("/?rate=24000"))
        session = await upstream.accept()
        assert kept_awake == 3, "for its turn to begin, and for the dial"
        await session.configure()
        await client.expect("AIConnected")
        await session.call(("call_1", "look", {}))
        assert "seen" in (await session.expect("conversation.item.create"))["item"]["output"]
        assert kept_awake == 4, "the WebSocket of a session is no request that is over soon"
        await client.connection.close()
        await client.wait_closed()
    kept_awake = 0
    async with talking() as (_, _, voices, _):
        await voices.accept()
        assert kept_awake == 3, "for the dial of a voice, too"


def test_a_busy_loop_is_left_alone_until_it_is_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, worked, planned = FakeClock(100.0), FakeClock(7.0), list[Callable[[], None]]()

    class Loop:
        def call_soon(self, what: Callable[[], None]) -> None:
            planned.append(what)

        def call_later(self, delay_s: float, what: Callable[[], None]) -> None:
            assert delay_s == LOOK_S
            planned.append(what)

    monkeypatch.setattr("relay.tick.time", SimpleNamespace(monotonic=clock, sleep=id, thread_time=worked))
    monkeypatch.setattr("relay.tick.asyncio", SimpleNamespace(get_running_loop=Loop))
    tick = Tick(5)
    tick.sessions(BUSY_SESSIONS)

    def gathers(share: float) -> bool:
        """Whether the loop is slowed down after a while of being that busy."""
        for _ in range(3):
            clock.advance(LOOK_S)
            worked.advance(LOOK_S * share)
            planned.pop()()
        return planned[-1] == tick._round

    assert gathers(0.1)
    assert gathers(0.45), "calm enough to go on"
    assert not gathers(0.6)
    assert not gathers(0.45), "not calm enough to begin"
    assert gathers(0.3)
