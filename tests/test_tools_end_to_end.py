"""Tools through a whole relay with its local engine: what they may do to a conversation, and what they may not."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from relay import ClientResult, ToolContext, tool
from relay.app.context import TOOLS
from relay.toolkit.registry import Tool, ToolRegistry
from relay.toolkit.running.runner import ToolCall
from tests.support.relay_server import DeviceClient, Obj, RunningRelay, running_relay

PATIENCE_S = 20.0


@asynccontextmanager
async def relay_with(*functions: Callable[..., Any]) -> AsyncIterator[RunningRelay]:
    async with running_relay(None, ToolRegistry(Tool.from_function(one) for one in functions)) as relay:
        yield relay


@asynccontextmanager
async def talking(relay: RunningRelay) -> AsyncIterator[DeviceClient]:
    async with await DeviceClient.connect(relay.ws("/?rate=24000")) as client:
        await client.send(type="hello", v=1, maxAheadMs=None)
        await client.expect("AIConnected")
        yield client


async def tool_ended(client: DeviceClient, name: str) -> Obj:
    while True:
        told = await client.expect("tool", PATIENCE_S)
        if told["name"] == name and told["status"] not in ("started", "progress"):
            return told


async def turn_ended(client: DeviceClient) -> Obj:
    while True:
        told = await client.expect("AIResponseEnd", PATIENCE_S)
        if not told["more"]:
            return told


@tool(examples=["open the door"], expose={"model", "client"})
def open_door() -> dict[str, str]:
    return {"summary": "The door is open."}


async def test_two_tools_at_once_are_answered_together() -> None:
    both = threading.Barrier(2)

    @tool(examples=["close the window"], expose={"model", "client"})
    def close_window() -> dict[str, str]:
        both.wait(PATIENCE_S)
        return {"summary": "The window is closed."}

    @tool(examples=["lock the gate"], expose={"model", "client"})
    def lock_gate() -> dict[str, str]:
        both.wait(PATIENCE_S)
        return {"summary": "The gate is locked."}

    async with relay_with(close_window, lock_gate) as relay, talking(relay) as client:
        await client.send(type="text", text="close the window and lock the gate")
        said = (await turn_ended(client))["finalText"]
        assert "window is closed" in said
        assert "gate is locked" in said


async def test_a_slow_tool_while_the_user_interrupts() -> None:
    begun = asyncio.Event()
    release = asyncio.Event()
    ended = asyncio.Event()

    @tool(examples=["search the archive"], timeout_s=PATIENCE_S)
    async def search_archive(context: ToolContext) -> str:
        begun.set()
        context.progress("looking")
        await release.wait()
        return "found"

    @tool(examples=["watch the oven"], timeout_s=PATIENCE_S, cancel_on_interrupt=True)
    async def watch_oven() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with relay_with(search_archive, watch_oven, open_door) as relay, talking(relay) as client:
        await client.send(type="text", text="search the archive")
        await begun.wait()
        assert (await client.expect("tool"))["status"] == "started"
        assert (await client.expect("tool"))["text"] == "looking"
        await client.send(type="interrupt")
        await turn_ended(client)
        await client.send(type="text", text="open the door")
        assert "door is open" in (await turn_ended(client))["finalText"]
        release.set()
        assert (await tool_ended(client, "search_archive"))["status"] == "done"

        begun.clear()
        await client.send(type="text", text="watch the oven")
        await begun.wait()
        await client.send(type="interrupt")
        assert (await tool_ended(client, "watch_oven"))["status"] == "cancelled"
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()


async def test_whatever_a_tool_does_the_session_goes_on() -> None:
    release = threading.Event()

    @tool(examples=["break the vase"])
    def break_vase() -> None:
        raise ValueError("it was glued")

    @tool(examples=["wait for the bus"], timeout_s=0.2)
    def wait_bus() -> bool:
        return release.wait(PATIENCE_S)

    @tool(examples=["read the library"], expose={"model", "client"})
    def read_library() -> str:
        return "x" * 10_000_000

    @tool(examples=["hand over the keys"])
    def hand_keys() -> object:
        return threading.Lock()

    @tool(examples=["draw the map"])
    def draw_map() -> ClientResult:
        return ClientResult({"points": [1, 2]}, note="The map is on the screen.")

    tools = (break_vase, wait_bus, read_library, hand_keys, draw_map, open_door)
    async with relay_with(*tools) as relay, talking(relay) as client:
        for sentence, name, status in (
            ("break the vase", "break_vase", "failed"),
            ("wait for the bus", "wait_bus", "timeout"),
            ("read the library", "read_library", "done"),
            ("hand over the keys", "hand_keys", "failed"),
            ("draw the map", "draw_map", "done"),
            ("open the door", "open_door", "done"),
        ):
            await client.send(type="text", text=sentence)
            told = await tool_ended(client, name)
            assert told["status"] == status
            if name == "read_library":
                assert len(told["output"]) < 20_000
            if name == "draw_map":
                assert told["output"] == {"points": [1, 2]}
            await client.send(type="interrupt")  # no need to hear it out
        release.set()
        assert relay.sessions.active


async def test_a_tool_ends_the_session_once_its_answer_was_heard() -> None:
    @tool(examples=["hang up now"])
    def hang_up(context: ToolContext) -> dict[str, str]:
        context.end_session("the user hung up")
        return {"summary": "Goodbye."}

    async with relay_with(hang_up) as relay, talking(relay) as client:
        await client.send(type="text", text="hang up now")
        end = await client.expect("audioEnd", PATIENCE_S)
        await client.send(type="playback", itemId=end["itemId"], playedMs=end["totalMs"])
        assert (await client.expect("goodbye", PATIENCE_S))["reason"] == "the user hung up"
        assert await client.wait_closed() == (1000, "the user hung up")


async def test_fifty_hung_tools_and_a_new_session_is_answered_at_once() -> None:
    release = threading.Event()
    hanging = threading.Semaphore(0)

    def hang() -> bool:
        hanging.release()
        return release.wait(PATIENCE_S)

    async with relay_with(hang, open_door) as relay:
        runner = relay.app[TOOLS].runner
        calls = [
            asyncio.create_task(runner.run(ToolCall(f"c{n}", "hang", "{}"), ToolContext(session_id="other")))
            for n in range(50)
        ]
        await asyncio.to_thread(lambda: [hanging.acquire(timeout=PATIENCE_S) for _ in range(50)])
        assert runner.threads_in_use == 50
        async with talking(relay) as client:
            await client.send(type="text", text="open the door")
            assert "door is open" in (await turn_ended(client))["finalText"]
        release.set()
        assert {result.status for result in await asyncio.gather(*calls)} == {"done"}
