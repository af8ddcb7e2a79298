"""Half duplex: the microphone opens when the client has played everything and the room is silent."""

from relay.runtime.timers import ECHO_TAIL_MS, PlayoutEndTimer
from tests.support.virtual_time import advance_time, in_virtual_time


class Client:
    """A client with `unplayed_ms` still to play, and the number of callbacks."""

    def __init__(self) -> None:
        self.unplayed_ms: float | None = 0.0
        self.reports = 0
        self.wait = PlayoutEndTimer(lambda: self.unplayed_ms, self.report)

    def report(self) -> None:
        self.reports += 1


@in_virtual_time
async def test_it_is_reported_once_after_the_audio_and_its_echo() -> None:
    client = Client()
    client.wait.start(500)
    await advance_time((500 + ECHO_TAIL_MS) / 1000 - 0.01)
    assert client.reports == 0
    await advance_time(0.02)
    assert client.reports == 1
    await advance_time(10)
    assert client.reports == 1


@in_virtual_time
async def test_the_timer_waits_for_a_client_that_plays_late() -> None:
    client = Client()
    client.wait.start(500)
    client.unplayed_ms = 300
    await advance_time(0.75)
    assert client.reports == 0
    client.unplayed_ms = 0
    await advance_time((300 + ECHO_TAIL_MS) / 1000)
    assert client.reports == 1


@in_virtual_time
async def test_queued_audio_postpones_the_report_until_its_end() -> None:
    client = Client()
    client.wait.start(100)
    client.unplayed_ms = None
    await advance_time(5)
    assert client.reports == 0
    client.unplayed_ms = 0
    client.wait.start(0)
    await advance_time(ECHO_TAIL_MS / 1000 + 0.01)
    assert client.reports == 1


@in_virtual_time
async def test_a_new_start_replaces_the_one_before() -> None:
    client = Client()
    client.wait.start(100)
    client.wait.start(1000)
    await advance_time(1.0)
    assert client.reports == 0
    await advance_time(0.3)
    assert client.reports == 1


@in_virtual_time
async def test_a_stopped_timer_reports_nothing() -> None:
    client = Client()
    client.wait.start(100)
    client.wait.stop()
    await advance_time(5)
    assert client.reports == 0
