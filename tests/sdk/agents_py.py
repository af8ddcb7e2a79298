"""openai-agents as its users write it: typed and spoken turns, a tool of the client's beside the server's, barge-in.

Runs in an environment of its own. Every event of the server goes to standard output, one JSON object a line.
"""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents import function_tool
from agents.realtime import RealtimeAgent, RealtimeRunner

PCM = Path(os.environ["PCM"]).read_bytes()
switched: list[int] = []


@function_tool
def switch_lamp() -> str:
    """Switch the lamp."""
    switched.append(1)
    return "The lamp is on."


@function_tool
def roll_two_dice() -> str:
    """Roll two dice."""
    return json.dumps({"summary": "I rolled 3 and 4."})


TOOLS = [switch_lamp, *([roll_two_dice] if "ALONE" in os.environ else [])]
"""Where there is no relay, dice are the application's own business."""


class Watch:
    """Passes on what the server said, and waits for it."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def run(self) -> None:
        async for event in self.session:
            if event.type == "error":
                raise RuntimeError(f"the SDK reports {event.error}")
            if event.type == "raw_model_event" and event.data.type == "raw_server_event":
                print(json.dumps(event.data.data), flush=True)
                self.events.put_nowait(event.data.data)

    async def expect(self, kind: str, fits: Callable[[dict[str, Any]], bool] = lambda event: True) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while True:
                event = await self.events.get()
                if event["type"] == kind and fits(event):
                    return event


async def main() -> None:
    agent = RealtimeAgent(name="Tester", instructions="Be brief.", tools=TOOLS)
    runner = RealtimeRunner(agent)
    config: Any = {"url": os.environ["WS_URL"], "api_key": os.environ["API_KEY"]}
    async with await runner.run(model_config=config) as session:
        watch = Watch(session)
        watching = asyncio.create_task(watch.run())
        try:
            await talk(session, watch)
        finally:
            if watching.done():
                watching.result()
            watching.cancel()


async def talk(session: Any, watch: Watch) -> None:
    await session.send_message("Roll two dice")
    await watch.expect("response.output_audio_transcript.done", lambda event: "rolled" in event["transcript"])
    await watch.expect("response.done")

    await session.send_message("switch lamp")
    await watch.expect("response.output_audio_transcript.done", lambda event: "lamp" in event["transcript"])
    await watch.expect("response.done")
    assert switched == [1], "the client's own tool runs in the client, once"

    await speak(session)
    await watch.expect("input_audio_buffer.speech_started")
    await watch.expect("response.output_audio.delta")
    await watch.expect("response.done")

    await session.send_message("Tell me a story")
    await watch.expect("response.output_audio.delta")
    await speak(session)
    await watch.expect("input_audio_buffer.speech_started")
    await watch.expect("response.done", lambda event: event["response"]["status"] == "cancelled")
    await watch.expect("response.output_audio_transcript.done", lambda event: "rolled" in event["transcript"])
    await watch.expect("response.done")


async def speak(session: Any) -> None:
    for at in range(0, len(PCM), 4800):
        await session.send_audio(PCM[at : at + 4800])


asyncio.run(main())
