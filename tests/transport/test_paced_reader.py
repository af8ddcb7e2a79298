"""Messages in bursts: in order, with their end, and a peer that is not read while some wait."""

import asyncio

import pytest

from relay.testing import FakeClock
from relay.transport import read_limiter as pacing
from relay.transport.read_limiter import PacedReader
from relay.transport.websocket import WebSocketConnection


class Reader:
    """A paced reader on a socket of its own; `seen` is what came out of it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.socket = WebSocketConnection(1000)
        self.seen: list[object] = []
        self.paced = PacedReader(self.socket, lambda *end: self.seen.append(end), self.clock)
        self.paced.on_message = self._handle
        self.done = asyncio.Event()

    def _handle(self, message: bytes) -> None:
        self.seen.append(int(message))
        if self.seen[-1] == 99:
            self.done.set()

    def take(self, *numbers: int) -> None:
        for number in numbers:
            self.paced.feed(b"%d" % number)


@pytest.fixture(autouse=True)
def small_bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "BURST_MESSAGES", 3)
    monkeypatch.setattr(pacing, "BURST_PAUSE_S", 0.001)


async def test_messages_that_take_their_time_are_handled_at_once() -> None:
    reader = Reader()
    for number in range(10):
        reader.take(number)
        reader.clock.advance(0.0006)
    assert reader.seen == list(range(10))
    assert not reader.socket.is_reading_paused


async def test_a_flood_is_handled_in_bursts_in_its_order_and_the_peer_is_not_read_meanwhile() -> None:
    reader = Reader()
    reader.take(*range(8), 99)
    assert reader.seen == [0, 1, 2]
    assert reader.socket.is_reading_paused
    await reader.done.wait()
    assert reader.seen == [*range(8), 99]
    assert not reader.socket.is_reading_paused


async def test_after_a_long_message_the_next_one_waits_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "BURST_BYTES", 10)
    reader, loop = Reader(), asyncio.get_running_loop()
    began_s = loop.time()
    reader.paced.feed(b"0" * 200)
    reader.take(99)
    assert reader.seen == [0]
    assert reader.socket.is_reading_paused
    await reader.done.wait()
    assert loop.time() - began_s >= 0.02 - 0.001


async def test_what_comes_while_others_wait_waits_behind_them() -> None:
    reader = Reader()
    reader.take(0, 1, 2, 3)
    reader.clock.advance(1)
    reader.take(99)
    assert reader.seen == [0, 1, 2]
    await reader.done.wait()
    assert reader.seen == [0, 1, 2, 3, 99]


async def test_the_end_comes_behind_the_last_message() -> None:
    reader = Reader()
    reader.take(*range(5), 99)
    reader.paced.feed_close(1000, "bye")
    assert reader.seen == [0, 1, 2]
    await reader.done.wait()
    assert reader.seen == [*range(5), 99, (1000, "bye")]


async def test_without_a_flood_the_end_comes_at_once() -> None:
    reader = Reader()
    reader.take(0)
    reader.paced.feed_close(1006, "")
    assert reader.seen == [0, (1006, "")]


async def test_what_waits_is_forgotten_when_the_session_is_over() -> None:
    reader = Reader()
    reader.take(*range(5), 99)
    reader.paced.stop()
    await asyncio.sleep(0.005)  # longer than a turn
    assert reader.seen == [0, 1, 2]
