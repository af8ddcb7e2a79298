"""Client tools that fail, hang, or return what cannot be sent; and a relay that calls too many."""

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from relay.client import GoodbyeEvent, ToolCallEvent, ToolError, connect
from relay.client.connection import MAX_UNANSWERED_CALLS
from relay.client.tools import MAX_OUTPUT_BYTES, FunctionTool, _threads, run_tool
from tests.support.scripted_relay import ScriptedConnection, scripted_relay


async def become_ready(device: ScriptedConnection) -> None:
    await device.begin()
    await device.until(lambda: device.received("hello"))
    form = {"format": "pcm16", "rate": 24000}
    options = {"voice": "marin", "turn": "manual", "maxAheadMs": 1000, "duplex": "full", "language": None, "tools": []}
    await device.send("ready", input=form, output=form, **options)


async def run(function: Callable[..., Any], timeout_ms: int = 5000) -> tuple[Any, str]:
    return await run_tool(function, ToolCallEvent(call_id="c1", name="f", timeout_ms=timeout_ms))


class AsyncTool:
    async def __call__(self) -> str:
        return "done"


async def test_whatever_is_awaitable_is_awaited() -> None:
    assert await run(AsyncTool()) == ("done", "")
    assert await run(lambda: AsyncTool()()) == ("done", "")


async def test_a_tool_that_waits_for_a_cancelled_task_has_failed() -> None:
    async def wait() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    assert await run(wait) == (None, "f failed: CancelledError")


async def test_a_tool_that_exits_does_not_end_the_program() -> None:
    async def leave() -> None:
        sys.exit(1)

    assert await run(leave) == (None, "f failed: SystemExit")
    assert await run(sys.exit) == (None, "f failed: SystemExit")


async def test_what_cannot_be_sent_is_an_error() -> None:
    def fail() -> None:
        raise ToolError("lamp \udcff")

    assert await run(fail) == (None, "lamp ?")
    assert (await run(lambda: "\udcff"))[1] == "f failed: TypeError"
    recursive: list[Any] = []
    recursive.append(recursive)
    assert (await run(lambda: recursive))[1].startswith("f failed: ")
    assert await run(lambda: "x" * MAX_OUTPUT_BYTES) == (None, "f failed: its result is longer than 60 KiB")
    assert (await run(lambda: "x" * (MAX_OUTPUT_BYTES - 2)))[1] == ""


async def test_hung_tools_delay_no_other_and_their_threads_are_bounded() -> None:
    released = threading.Event()
    try:
        hung = await asyncio.gather(*(run(released.wait, timeout_ms=300) for _ in range(40)))
        assert {error for _, error in hung} == {"f failed: TimeoutError"}
        assert await run(lambda: 1) == (1, "")
        assert await asyncio.to_thread(lambda: 2) == 2
        errors = {error for _, error in await asyncio.gather(*(run(released.wait, 300) for _ in range(40)))}
        assert errors == {"f failed: TimeoutError", "Too many calls at once; try again after the others."}
    finally:
        released.set()
    for _ in range(500):
        if _threads.slots_in_use == 0:
            break
        await asyncio.sleep(0.01)
    assert _threads.slots_in_use == 0


async def test_a_program_ends_although_a_tool_hangs() -> None:
    program = (
        "import asyncio, time; from relay.client.tools import run_tool; from relay.client import ToolCallEvent\n"
        "print(asyncio.run(run_tool(lambda: time.sleep(60), ToolCallEvent(name='f', timeout_ms=100))))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    assert output.decode() == "(None, 'f failed: TimeoutError')\n"


async def test_a_tool_that_refuses_to_be_cancelled_does_not_hold_the_program() -> None:
    released = asyncio.Event()

    async def refuse() -> None:
        while not released.is_set():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    async def script(device: ScriptedConnection) -> None:
        await become_ready(device)
        await device.send("toolCall", callId="c1", name="f", arguments={}, timeoutMs=60_000)
        await device.send("goodbye", reason="done")

    async with asyncio.timeout(10), scripted_relay(script) as harness:
        async with connect(harness.url, tools=[FunctionTool("f", refuse)]) as client:
            async for event in client:
                if isinstance(event, GoodbyeEvent):
                    break
        released.set()
        [task] = client._calls
        task.cancel()
        await asyncio.wait([task])


async def test_calls_of_a_relay_that_reads_no_answer_are_bounded() -> None:
    left = asyncio.Event()

    async def script(device: ScriptedConnection) -> None:
        await become_ready(device)
        device.socket.transport.pause_reading()
        for number in range(2000):
            await device.send("toolCall", callId=f"c{number}", name="f", arguments={}, timeoutMs=60_000)
            if left.is_set():
                break
        await left.wait()

    async def answer() -> str:
        return "x" * (MAX_OUTPUT_BYTES - 100)

    async with (
        scripted_relay(script) as harness,
        connect(harness.url, tools=[FunctionTool("f", answer)]) as client,
    ):
        with suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                async for _ in client:
                    assert len(client._calls) <= MAX_UNANSWERED_CALLS
        assert len(client._calls) == MAX_UNANSWERED_CALLS
        left.set()
