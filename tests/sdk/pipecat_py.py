"""pipecat-ai as a bot uses it: a context with a tool of its own beside the server's, speech, barge-in.

Runs in an environment of its own; what it is sent is judged at the relay's end.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame, LLMRunFrame, TTSTextFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

PCM = Path(os.environ["PCM"]).read_bytes()
TIMEOUT_S = 30.0
switched: list[int] = []


class Ear(FrameProcessor):
    """Keeps the assistant's words."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.news = asyncio.Condition()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSTextFrame):
            async with self.news:
                self.text += frame.text
                self.news.notify_all()
        await self.push_frame(frame, direction)

    async def hear(self, part: str) -> None:
        async with asyncio.timeout(TIMEOUT_S), self.news:
            await self.news.wait_for(lambda: part in self.text)
            self.text = ""


async def switch_lamp(params: Any) -> None:
    switched.append(1)
    await params.result_callback({"summary": "The lamp is on."})


async def main() -> None:
    service = OpenAIRealtimeLLMService(api_key=os.environ["API_KEY"], base_url=os.environ["WS_URL"])
    service.register_function("switch_lamp", switch_lamp)
    lamp = FunctionSchema(name="switch_lamp", description="Switch the lamp.", properties={}, required=[])
    context = LLMContext(
        [{"role": "user", "content": "Roll two dice and switch lamp"}], ToolsSchema(standard_tools=[lamp])
    )
    aggregators = LLMContextAggregatorPair(context)
    ear = Ear()
    pipeline = Pipeline([aggregators.user(), service, ear, aggregators.assistant()])
    params = PipelineParams(audio_in_sample_rate=24_000, audio_out_sample_rate=24_000)
    worker = PipelineWorker(pipeline, params=params, cancel_on_idle_timeout=False)
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def on_started(_: Any, __: Any) -> None:
        started.set()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(TIMEOUT_S):
        await started.wait()
    try:
        await talk(worker, ear)
    finally:
        await worker.queue_frame(EndFrame())
        await running


async def talk(worker: Any, ear: Ear) -> None:
    await worker.queue_frame(LLMRunFrame())
    await ear.hear("lamp")
    assert switched == [1], "its own tool runs in the bot, once, beside the server's"
    for at in range(0, len(PCM), 4800):
        await worker.queue_frame(InputAudioRawFrame(PCM[at : at + 4800], 24_000, 1))
    await ear.hear("rolled")


asyncio.run(main())
