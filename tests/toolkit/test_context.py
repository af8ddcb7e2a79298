"""Progress goes from any thread to one callback on the loop's thread, bounded."""

import asyncio
import dataclasses
import threading

import pytest

from relay.toolkit.context import MAX_PROGRESS_CHARS, MAX_PROGRESS_REPORTS, ProgressReporter, ToolContext


async def one_turn() -> None:
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


def test_a_context_is_frozen_and_progress_without_a_listener_goes_nowhere() -> None:
    context = ToolContext(session_id="s1")
    context.progress("halfway")
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.session_id = "s2"  # type: ignore[misc]
    with pytest.raises(TypeError):
        context.metadata["a"] = 1  # type: ignore[index]


async def test_a_report_from_a_thread_arrives_on_the_loops_thread() -> None:
    heard: list[tuple[str, str]] = []
    relay = ProgressReporter(lambda text: heard.append((text, threading.current_thread().name)))
    thread = threading.Thread(target=relay.report, args=("halfway",))
    thread.start()
    thread.join()
    assert heard == []
    await one_turn()
    assert heard == [("halfway", threading.current_thread().name)]


async def test_of_several_reports_in_one_turn_the_latest_is_told() -> None:
    heard: list[str] = []
    relay = ProgressReporter(heard.append)
    for text in ("one", "two", "three"):
        relay.report(text)
    await one_turn()
    relay.report("four")
    await one_turn()
    assert heard == ["three", "four"]


async def test_a_long_text_is_cut_and_after_many_reports_no_more_are_told() -> None:
    heard: list[str] = []
    relay = ProgressReporter(heard.append)
    for number in range(MAX_PROGRESS_REPORTS + 50):
        relay.report(f"{number} " + "x" * 10_000)
        await one_turn()
    assert len(heard) == MAX_PROGRESS_REPORTS
    assert {len(text) for text in heard} == {MAX_PROGRESS_CHARS}


async def test_after_close_nothing_is_told_not_even_what_was_under_way() -> None:
    heard: list[str] = []
    relay = ProgressReporter(heard.append)
    relay.report("before")
    relay.close()
    relay.report("after")
    await one_turn()
    assert heard == []


async def test_a_listener_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(text: str) -> None:
        raise RuntimeError("the session is gone")

    ProgressReporter(fail).report("halfway")
    await one_turn()
    assert "the listener for a tool's progress failed" in caplog.text
    assert "the session is gone" in caplog.text


def test_a_report_after_the_end_of_the_loop_is_dropped() -> None:
    heard: list[str] = []

    async def open_relay() -> ProgressReporter:
        return ProgressReporter(heard.append)

    asyncio.run(open_relay()).report("too late")
    assert heard == []
