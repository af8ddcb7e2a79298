"""A call in, exactly one output out; whatever the tool does, the next call and the process go on."""

import asyncio
import concurrent.futures
import contextvars
import functools
import json
import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from relay import ToolContext, ToolError, tool
from relay.toolkit.registry import Audience, Tool, ToolRegistry
from relay.toolkit.running.runner import ToolCall, ToolOutcome, ToolRunner

CONTEXT = ToolContext(session_id="s1", identity="ann", language="en")
PATIENCE_S = 20


def runner_of(*functions: Callable[..., Any], **bounds: int) -> ToolRunner:
    return ToolRunner(ToolRegistry(Tool.from_function(one) for one in functions), **bounds)


async def call(
    runner: ToolRunner,
    name: str,
    arguments: str = "{}",
    call_id: str = "c1",
    context: ToolContext = CONTEXT,
    audience: Audience = "model",
) -> ToolOutcome:
    async with asyncio.timeout(PATIENCE_S):
        return await runner.run(ToolCall(call_id, name, arguments), context, audience=audience)


def error_of(result: ToolOutcome) -> str:
    body = json.loads(result.output)
    assert body["ok"] is False
    return str(body["error"])


def tools_running() -> int:
    return sum(task.get_name().startswith("tool ") for task in asyncio.all_tasks())


def join(name: str) -> None:
    """Waits for the threads of a tool; their results are on the loop's list by then."""
    for thread in threading.enumerate():
        if thread.name == f"tool {name}":
            thread.join(PATIENCE_S)


def add(a: int, b: Annotated[int, Field(le=100)] = 1) -> dict[str, int]:
    """Add two numbers."""
    return {"sum": a + b}


async def greet(name: str, context: ToolContext) -> str:
    """Greet someone."""
    return f"Hello {name}, {context.identity} calls ({context.session_id}, {context.call_id})"


async def test_a_blocking_tool() -> None:
    result = await call(runner_of(add), "add", '{"a": 2, "b": "3"}')
    assert result == ToolOutcome('{"sum": 5}', "done", ms=result.ms, arguments={"a": 2, "b": "3"})
    assert 0 <= result.ms < 10_000


async def test_an_async_tool_with_the_context_of_its_call() -> None:
    result = await call(runner_of(greet), "greet", '{"name": "Bob"}', call_id="c7")
    assert (result.output, result.status) == ("Hello Bob, ann calls (s1, c7)", "done")


async def test_what_never_reaches_the_tool() -> None:
    runner = runner_of(add, greet)
    unknown = await call(runner, "subtract")
    assert json.loads(unknown.output) == {
        "ok": False,
        "error": "unknown_tool",
        "message": 'There is no tool "subtract". The tools are: add, greet.',
        "retryable": False,
    }
    assert (unknown.status, unknown.arguments) == ("failed", None)
    bad_json = await call(runner, "add", '{"a": ')
    assert (error_of(bad_json), bad_json.status) == ("invalid_json", "failed")
    misfit = await call(runner, "add", '{"a": "x", "b": 101}')
    assert error_of(misfit) == "invalid_arguments"
    assert misfit.arguments is None
    assert json.loads(misfit.output)["message"] == (
        '"a" must be a valid integer, unable to parse string as an integer (got "x"). '
        '"b" must be less than or equal to 100 (got 101).'
    )


async def test_a_tool_does_not_exist_for_those_it_is_not_exposed_to() -> None:
    @tool(expose={"http"})
    def wipe() -> str:
        return "wiped"

    runner = runner_of(wipe, add)
    hidden = await call(runner, "wipe")
    assert error_of(hidden) == "unknown_tool"
    assert "wipe" not in json.loads(hidden.output)["message"].replace('"wipe"', "")
    assert (await call(runner, "wipe", audience="http")).output == '"wiped"'  # JSON there


class Oops(BaseException):
    """What no `except Exception` catches."""


ALL_KINDS = [
    ValueError("no such thing"),
    SystemExit("bye"),
    KeyboardInterrupt("ctrl-c"),
    GeneratorExit("closed"),
    StopIteration("no more"),
    StopAsyncIteration("no more"),
    Oops("base"),
    BaseExceptionGroup("group", [Oops("inner")]),
    RecursionError("deep"),
    MemoryError("full"),
    TimeoutError("its own"),
    concurrent.futures.CancelledError("its own"),
]


@pytest.mark.parametrize("error", ALL_KINDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_whatever_a_tool_raises_is_one_failed_output(error: BaseException, kind: str) -> None:
    def sync_tool() -> None:
        raise error

    async def async_tool() -> None:
        raise error

    runner = runner_of(sync_tool, async_tool, add)
    result = await call(runner, f"{kind}_tool")
    assert (error_of(result), result.status) == ("exception", "failed")
    message = json.loads(result.output)["message"]
    if not isinstance(error, StopIteration | StopAsyncIteration):  # Python turns these two into others
        assert message == f"{type(error).__name__}: {error}"
    assert "Traceback" not in result.output
    assert (await call(runner, "add", '{"a": 1}')).output == '{"sum": 2}'


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_tool_that_raises_cancelled_by_itself(kind: str) -> None:
    def sync_tool() -> None:
        raise asyncio.CancelledError

    async def async_tool() -> None:
        raise asyncio.CancelledError

    result = await call(runner_of(sync_tool, async_tool), f"{kind}_tool")
    assert (error_of(result), result.status) in [("cancelled", "cancelled"), ("exception", "failed")]


async def test_a_tool_error_is_told_in_its_own_words() -> None:
    def look_up(city: str) -> None:
        raise ToolError(f"I do not know {city}.")

    result = await call(runner_of(look_up), "look_up", '{"city": "Atlantis"}')
    assert (error_of(result), result.status) == ("refused", "failed")
    assert json.loads(result.output)["message"] == "I do not know Atlantis."
    assert result.arguments == {"city": "Atlantis"}


async def test_a_validator_that_ends_the_process_does_not() -> None:
    def leave(value: int) -> int:
        sys.exit(3)

    def f(x: Annotated[int, AfterValidator(leave)]) -> None: ...

    assert error_of(await call(runner_of(f), "f", '{"x": 1}')) == "exception"


async def test_a_result_that_is_no_json_and_one_that_is_too_large() -> None:
    def thing() -> object:
        return object()

    async def book() -> list[str]:
        return ["x" * 100] * 1_000

    runner = runner_of(thing, book)
    bad = await call(runner, "thing")
    assert (error_of(bad), bad.status) == ("unserialisable", "failed")
    large = await call(runner, "book")
    assert large.status == "done"
    assert len(large.output.encode()) <= 16_384
    assert large.output.endswith("[truncated: the result has 104000 bytes, the limit is 16384]")


async def test_blocking_tools_run_elsewhere_with_the_callers_context_variables() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    user.set("ann")

    def where() -> Any:
        return [threading.current_thread() is threading.main_thread(), user.get()]

    async def where_async() -> Any:
        return [threading.current_thread() is threading.main_thread(), user.get()]

    runner = runner_of(where, where_async)
    assert (await call(runner, "where")).output == '[false, "ann"]'
    assert (await call(runner, "where_async")).output == '[true, "ann"]'


async def test_a_plain_function_that_returns_a_coroutine_is_awaited_on_the_loop() -> None:
    def log_calls(function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    result = await call(runner_of(log_calls(greet)), "greet", '{"name": "Bob"}')
    assert result.output.startswith("Hello Bob")


async def test_progress_arrives_before_the_result_and_never_after_it() -> None:
    heard: list[str] = []
    late: list[ToolContext] = []

    def bake(context: ToolContext) -> str:
        context.progress("in the oven")
        late.append(context)
        return "a cake"

    async def bake_async(context: ToolContext) -> str:
        context.progress("in the other oven")
        return "another cake"

    runner = runner_of(bake, bake_async)
    context = ToolContext(session_id="s1", on_progress=heard.append)
    for name in ("bake", "bake_async"):
        result = await call(runner, name, context=context)
        heard.append(result.output)
    late[0].progress("still here")
    await asyncio.sleep(0)
    assert heard == ["in the oven", "a cake", "in the other oven", "another cake"]


async def test_a_slow_async_tool_times_out_and_is_cancelled() -> None:
    ended = asyncio.Event()

    @tool(timeout_s=0.02)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    runner = runner_of(slow)
    result = await call(runner, "slow")
    assert json.loads(result.output) == {
        "ok": False,
        "error": "timeout",
        "message": "The tool did not answer within 0.02 s.",
        "retryable": True,
    }
    assert result.status == "timeout"
    assert result.ms >= 20
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()


async def test_a_tool_that_swallows_its_cancellation_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    @tool(timeout_s=0.02)
    async def stubborn() -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    runner = runner_of(stubborn, add, max_tasks=2)
    assert (await call(runner, "stubborn")).status == "timeout"
    assert (await call(runner, "stubborn")).status == "timeout"
    assert tools_running() == 2
    assert error_of(await call(runner, "add", '{"a": 1}')) == "busy"
    async with asyncio.timeout(PATIENCE_S):
        await runner.close(0.02)
    assert "tool stubborn ignores its cancellation and was abandoned" in caplog.text
    release.set()


async def test_fifty_hung_blocking_tools_stop_nobody_else() -> None:
    release = threading.Event()

    @tool(timeout_s=0.05)
    def hang() -> bool:
        return release.wait(PATIENCE_S)

    runner = runner_of(hang, add, greet, max_threads=8)
    results = await asyncio.gather(*[call(runner, "hang", call_id=f"c{n}") for n in range(50)])
    assert sorted(error_of(one) for one in results) == ["busy"] * 42 + ["timeout"] * 8
    assert all(json.loads(one.output)["retryable"] for one in results)
    assert runner.threads_in_use == 8

    assert (await call(runner, "greet", '{"name": "Bob"}')).status == "done"
    busy = await call(runner, "add", '{"a": 1}')
    assert (error_of(busy), busy.status) == ("busy", "failed")
    assert await asyncio.to_thread(lambda: "the loop's own threads are free") != ""

    release.set()
    join("hang")
    assert runner.threads_in_use == 0
    assert (await call(runner, "add", '{"a": 1}')).output == '{"sum": 2}'


async def test_a_late_result_is_dropped_with_all_that_belongs_to_it(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    @tool(timeout_s=0.02)
    def late() -> Any:
        release.wait(PATIENCE_S)
        return greet("Bob", CONTEXT)  # never awaited: Python would warn, and warnings are errors here

    caplog.set_level(logging.INFO, logger="relay.toolkit.running")
    runner = runner_of(late)
    assert (await call(runner, "late")).status == "timeout"
    release.set()
    join("late")
    await runner.close(PATIENCE_S)
    await asyncio.sleep(0)
    assert "tool late returned late, its result was discarded" in caplog.text


async def test_cancel_ends_one_call_or_all_of_a_session() -> None:
    started = asyncio.Semaphore(0)

    async def wait() -> None:
        started.release()
        await asyncio.Event().wait()

    runner = runner_of(wait)
    other = ToolContext(session_id="s2")
    calls = [
        asyncio.ensure_future(call(runner, "wait", call_id="c1")),
        asyncio.ensure_future(call(runner, "wait", call_id="c2")),
        asyncio.ensure_future(call(runner, "wait", call_id="c3")),
        asyncio.ensure_future(call(runner, "wait", call_id="c1", context=other)),
    ]
    for _ in calls:
        await started.acquire()
    assert runner.cancel("s1", "c2") == 1
    assert (error_of(await calls[1]), (await calls[1]).status) == ("cancelled", "cancelled")
    assert [one.done() for one in calls] == [False, True, False, False]
    assert runner.cancel("s1") == 2
    assert runner.cancel("s1", "c2") == 0
    assert {(await calls[0]).status, (await calls[2]).status} == {"cancelled"}
    assert not calls[3].done()
    await runner.close(PATIENCE_S)
    assert error_of(await calls[3]) == "shutdown"
    assert tools_running() == 0


async def test_a_call_id_is_not_run_twice_at_a_time() -> None:
    started, release = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        started.set()
        await release.wait()
        return "done"

    runner = runner_of(wait)
    first = asyncio.ensure_future(call(runner, "wait"))
    await started.wait()
    assert error_of(await call(runner, "wait")) == "duplicate_call"
    release.set()
    assert (await first).output == "done"
    assert (await call(runner, "wait")).output == "done"


async def test_the_callers_own_cancellation_ends_the_tool_and_goes_on_upwards() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    runner = runner_of(wait)
    running = asyncio.ensure_future(call(runner, "wait"))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()


async def test_close_answers_what_runs_refuses_what_comes_and_waits_for_the_clean_up() -> None:
    started, cleaned = asyncio.Event(), []
    release, in_thread = threading.Event(), threading.Event()

    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    def hang() -> None:
        in_thread.set()
        release.wait(PATIENCE_S)

    runner = runner_of(wait, hang)
    calls = [
        asyncio.ensure_future(call(runner, "wait", call_id="c1")),
        asyncio.ensure_future(call(runner, "hang", call_id="c2")),
    ]
    await started.wait()
    await asyncio.to_thread(in_thread.wait, PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        await runner.close(0.05)
    assert cleaned == ["up"]
    for one in calls:
        assert (error_of(await one), (await one).status) == ("shutdown", "cancelled")
    assert error_of(await call(runner, "wait")) == "shutdown"
    assert runner.threads_in_use == 1
    release.set()
    async with asyncio.timeout(PATIENCE_S):
        await runner.close(PATIENCE_S)
    join("hang")
    assert runner.threads_in_use == 0


def test_bounds_too_small_to_hold_a_failure_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1024"):
        runner_of(add, max_result_bytes=100)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["a", "b"]), inner),
    max_leaves=10,
).map(json.dumps)


async def add_async(a: int, b: Annotated[int, Field(le=100)] = 1) -> dict[str, int]:
    return add(a, b)


async def echo(a: Any = None, b: Any = None) -> Any:
    return [a, b]


PATIENT = ToolRegistry(Tool.from_function(one) for one in (add_async, echo))


@settings(deadline=None)
@given(
    arguments=ANY_JSON | st.text(st.characters()) | st.just('{"a": 1, "b": "\\ud800"}'),
    name=st.sampled_from(["add_async", "echo"]) | st.text(),
)
async def test_any_text_as_arguments_gives_exactly_one_output(arguments: str, name: str) -> None:
    result = await call(ToolRunner(PATIENT), name, arguments)
    assert result.status in ("done", "failed")
    assert len(result.output.encode()) <= 16_384
    assert (result.arguments is None) == (result.status == "failed")
    if result.status == "failed":
        assert error_of(result) in ("unknown_tool", "invalid_json", "invalid_arguments")


PROGRAM = """
    import asyncio, sys, threading
    from relay import ToolContext, tool
    from relay.toolkit.registry import Tool, ToolRegistry
    from relay.toolkit.running.runner import ToolCall, ToolRunner

    @tool(timeout_s=0.05)
    def hung() -> None:
        threading.Event().wait()

    @tool(timeout_s=0.05)
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        runner = ToolRunner(ToolRegistry(Tool.from_function(one) for one in (hung, stubborn)))
        for name in ("hung", "stubborn"):
            result = await runner.run(ToolCall(name, name, ""), ToolContext(session_id="s1"))
            print(name, result.status)
        await runner.close(0.05)

    asyncio.run(main())
    print("end")
"""


def test_a_process_with_hung_tools_comes_to_its_end() -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        capture_output=True,
        text=True,
        timeout=60,  # without daemon threads it would never end
        check=False,
    )
    assert run.stdout.split("\n") == ["hung timeout", "stubborn timeout", "end", ""]
    assert run.returncode == 0
