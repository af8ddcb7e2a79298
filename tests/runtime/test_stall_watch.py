"""A client that does not read is reported after a while, or at once if too much is unsent."""

from relay.runtime.timers import MAX_STALL_S, MAX_UNSENT_BYTES, StallWatch
from tests.support.playout_harness import FakeSocket
from tests.support.virtual_time import advance_time, in_virtual_time


class Watched:
    """A stall watch, its socket, and its reports."""

    def __init__(self) -> None:
        self.socket = FakeSocket()
        self.reports: list[int] = []
        self.watch = StallWatch(self.socket, self.reports.append)  # type: ignore[arg-type]


@in_virtual_time
async def test_a_full_socket_is_reported_after_a_while_with_what_is_unsent_by_then() -> None:
    watched = Watched()
    watched.watch.set_writable(False)
    watched.socket.unsent_bytes = 70_000
    await advance_time(MAX_STALL_S - 0.1)
    assert watched.reports == []
    await advance_time(0.2)
    assert watched.reports == [70_000]


@in_virtual_time
async def test_a_client_that_reads_again_in_time_is_not_reported() -> None:
    watched = Watched()
    watched.watch.set_writable(False)
    await advance_time(MAX_STALL_S - 0.1)
    watched.watch.set_writable(True)
    await advance_time(0.2)
    watched.watch.set_writable(False)
    await advance_time(MAX_STALL_S - 0.1)
    assert watched.reports == []
    await advance_time(0.2)
    assert len(watched.reports) == 1


@in_virtual_time
async def test_repeated_writability_reports_do_not_extend_the_timer() -> None:
    watched = Watched()
    watched.watch.set_writable(False)
    await advance_time(MAX_STALL_S - 0.1)
    watched.watch.set_writable(False)
    await advance_time(0.2)
    assert len(watched.reports) == 1


@in_virtual_time
async def test_too_much_unsent_is_reported_at_once() -> None:
    watched = Watched()
    watched.socket.unsent_bytes = MAX_UNSENT_BYTES
    watched.watch.check_unsent()
    assert watched.reports == []
    watched.socket.unsent_bytes += 1
    watched.watch.check_unsent()
    assert watched.reports == [MAX_UNSENT_BYTES + 1]


@in_virtual_time
async def test_a_stopped_watch_reports_nothing() -> None:
    watched = Watched()
    watched.watch.set_writable(False)
    watched.watch.stop()
    await advance_time(2 * MAX_STALL_S)
    assert watched.reports == []
