"""livekit-plugins-openai as an agent uses it: chat context, tools of its own beside the server's, speech, barge-in.

Runs in an environment of its own; what it is sent is judged at the relay's end.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import aiohttp
from livekit import rtc
from livekit.agents import llm
from livekit.plugins.openai.realtime import RealtimeModel

PCM = Path(os.environ["PCM"]).read_bytes()
TIMEOUT_S = 30.0
failures: list[str] = []


@llm.function_tool
async def switch_lamp() -> str:
    """Switch the lamp."""
    return "The lamp is on."


class Agent:
    """What an agent session does with a model's session: reads every generation, and answers calls."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.words: asyncio.Queue[str] = asyncio.Queue()
        self.calls: asyncio.Queue[Any] = asyncio.Queue()
        self.tasks: set[asyncio.Task[None]] = set()
        self.began = asyncio.Event()
        session.on("generation_created", self.generation)
        session.on("error", lambda error: failures.append(str(error)))

    def generation(self, created: Any) -> None:
        for reader in (self.messages(created), self.functions(created)):
            task = asyncio.create_task(reader)
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def messages(self, created: Any) -> None:
        async for message in created.message_stream:
            words = [word async for word in self.reading(message.text_stream)]
            self.words.put_nowait("".join(str(word) for word in words))

    async def reading(self, stream: Any) -> Any:
        async for word in stream:
            self.began.set()
            yield word

    async def functions(self, created: Any) -> None:
        async for call in created.function_stream:
            self.calls.put_nowait(call)

    async def hear(self, part: str) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while part not in await self.words.get():
                pass

    async def say(self, text: str) -> None:
        context = self.session.chat_ctx.copy()
        context.add_message(role="user", content=text)
        await self.session.update_chat_ctx(context)


async def main() -> None:
    async with aiohttp.ClientSession() as http:
        model = RealtimeModel(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], http_session=http)
        session = model.session()
        try:
            await talk(Agent(session))
        finally:
            await session.aclose()
            await model.aclose()
    assert not failures, failures


async def talk(agent: Agent) -> None:
    session = agent.session
    await session.update_instructions("Be brief.")
    await session.update_tools([switch_lamp])

    await agent.say("Roll two dice")
    await session.generate_reply()
    await agent.hear("rolled")

    await agent.say("switch lamp")
    await session.generate_reply()
    async with asyncio.timeout(TIMEOUT_S):
        call = await agent.calls.get()
    assert call.name == "switch_lamp"
    context = session.chat_ctx.copy()
    output = llm.FunctionCallOutput(call_id=call.call_id, name=call.name, output="The lamp is on.", is_error=False)
    context.items.append(output)
    await session.update_chat_ctx(context)
    await session.generate_reply()
    await agent.hear("lamp")

    await agent.say("Tell me a story")
    agent.began.clear()
    await session.generate_reply()
    async with asyncio.timeout(TIMEOUT_S):
        await agent.began.wait()
    for at in range(0, len(PCM), 4800):
        piece = PCM[at : at + 4800]
        session.push_audio(rtc.AudioFrame(piece, 24_000, 1, len(piece) // 2))
    await agent.hear("rolled")


asyncio.run(main())
