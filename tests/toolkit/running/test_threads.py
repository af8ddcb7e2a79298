"""Slots, taken and given back; no queue."""

import asyncio
import contextvars
import threading

import pytest

from relay.toolkit.running.threads import DaemonThreads

PATIENCE_S = 20


def join(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(PATIENCE_S)


async def test_a_function_runs_in_a_daemon_thread_with_the_callers_context() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    user.set("ann")
    future = DaemonThreads(1).submit(lambda: (threading.current_thread(), user.get()), "look_up")
    assert future is not None
    thread, name = await future
    assert thread.daemon
    assert thread.name == "tool look_up"
    assert name == "ann"


async def test_a_slot_is_kept_until_the_function_returns() -> None:
    threads, release = DaemonThreads(2), threading.Event()
    waiting = [threads.submit(lambda: release.wait(PATIENCE_S), "wait") for _ in range(2)]
    assert threads.submit(lambda: True, "third") is None
    assert threads.slots_in_use == 2
    release.set()
    for future in waiting:
        assert future is not None
        assert await future is True
    assert threads.slots_in_use == 0
    last = threads.submit(lambda: "free again", "fourth")
    assert last is not None
    assert await last == "free again"


async def test_a_cancelled_future_drops_the_value_and_still_frees_the_slot() -> None:
    threads, release = DaemonThreads(1), threading.Event()
    future = threads.submit(lambda: release.wait(PATIENCE_S), "late")
    assert future is not None
    future.cancel()
    assert threads.slots_in_use == 1
    release.set()
    join("tool late")
    assert threads.slots_in_use == 0
    last = threads.submit(lambda: "free again", "last")
    assert last is not None
    assert await last == "free again"
    assert future.cancelled()


def test_a_function_that_outlives_its_loop_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    threads, release = DaemonThreads(1), threading.Event()

    async def leave_it() -> None:
        assert threads.submit(lambda: release.wait(PATIENCE_S), "outlives") is not None

    caplog.set_level("DEBUG", logger="relay.toolkit.running.threads")
    asyncio.run(leave_it())
    release.set()
    join("tool outlives")
    assert threads.slots_in_use == 0
    assert "a tool returned after the end of the event loop" in caplog.text


async def test_where_no_thread_can_be_started_the_slot_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = DaemonThreads(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert threads.submit(lambda: 1, "never") is None
    assert threads.slots_in_use == 0
    future = threads.submit(lambda: 1, "now")
    assert future is not None
    assert await future == 1


def test_at_least_one_slot() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        DaemonThreads(0)
