"""The input pipeline in this process, with a real recognizer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import orjson
import pytest
import pytest_asyncio

from audio.files import read_audio
from audio.g711 import alaw_encode, ulaw_encode
from audio.resample import resample
from relay.local_engine.speech.in_process_backend import InProcessRecognizer
from relay.local_engine.speech.input_pipeline import InputPipeline, TurnPaused, TurnStarted, TurnStopped
from relay.local_engine.speech.recognition_scheduler import RecognitionScheduler
from tests.local_engine.engine_harness import SAMPLES, TOOLS

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRAMMAR = orjson.dumps(TOOLS)
SERVER_VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
SENTENCE = read_audio(SAMPLES / "roll-two-dice.flac", 24_000)


MakePipeline = Callable[..., InputPipeline]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scheduler() -> AsyncIterator[RecognitionScheduler]:
    scheduler = RecognitionScheduler()
    yield scheduler
    await scheduler.close()


@pytest.fixture
def make_pipeline(scheduler: RecognitionScheduler) -> MakePipeline:
    def make(turn_detection: dict[str, Any] | None = SERVER_VAD, input_format: str = "audio/pcm") -> InputPipeline:
        pipeline = InputPipeline(InProcessRecognizer(scheduler))
        pipeline.configure(input_format, turn_detection, GRAMMAR)
        return pipeline

    return make


async def feed(pipeline: InputPipeline, audio: bytes, chunk_bytes: int = 4800) -> list[TurnStarted | TurnStopped]:
    events: list[TurnStarted | TurnStopped] = []
    for start in range(0, len(audio), chunk_bytes):
        for event in pipeline.feed(audio[start : start + chunk_bytes]):
            if isinstance(event, TurnPaused):
                await pipeline.query_endpoint()
            elif event is None:
                await asyncio.sleep(0)  # lets the recognizer work, as between the chunks of a microphone
            else:
                events.append(event)
    return events


async def transcript(pipeline: InputPipeline, clip: bytes | None = None) -> str | None:
    return await (pipeline.end_turn() if clip is None else pipeline.transcribe_clip(clip))


async def test_a_turn_in_the_stream(make_pipeline: MakePipeline):
    pipeline = make_pipeline()
    started, stopped = await feed(pipeline, bytes(48_000) + SENTENCE + bytes(48 * 700))
    assert isinstance(started, TurnStarted)
    assert isinstance(stopped, TurnStopped)
    assert 800 <= started.start_ms <= 1200  # the sample begins with 200 ms of silence, the prefix is 300 ms
    turn_end_ms = len(SENTENCE) / 48
    assert turn_end_ms - 100 <= stopped.end_ms - 1000 - 500 <= turn_end_ms + 100
    assert await transcript(pipeline) == "roll two dice"


@pytest.mark.parametrize("chunk_bytes", [1, 961, 4801, 1_000_000])
async def test_any_chunking_gives_the_same(make_pipeline: MakePipeline, chunk_bytes: int):
    audio = SENTENCE + bytes(48 * 700)
    whole, chunked = make_pipeline(), make_pipeline()
    assert await feed(whole, audio) == await feed(chunked, audio, chunk_bytes)
    assert await transcript(whole) == await transcript(chunked) == "roll two dice"


@pytest.mark.parametrize(("input_format", "encode"), [("audio/pcmu", ulaw_encode), ("audio/pcma", alaw_encode)])
async def test_telephone_formats(make_pipeline: MakePipeline, input_format: str, encode: Any):
    pipeline = make_pipeline(input_format=input_format)
    audio = encode(resample(SENTENCE + bytes(48 * 700), 24_000, 8_000))
    assert len(await feed(pipeline, audio, 160)) == 2
    assert await transcript(pipeline) == "roll two dice"


async def test_without_turn_detection_nothing_is_reported_but_all_is_heard(make_pipeline: MakePipeline):
    pipeline = make_pipeline(None)
    assert await feed(pipeline, bytes(48_000) + SENTENCE) == []
    assert await transcript(pipeline) == "roll two dice"
    assert await transcript(pipeline) == ""


async def test_a_pause_does_not_end_a_turn_that_is_the_clients(make_pipeline: MakePipeline):
    pipeline = make_pipeline(None)
    await feed(pipeline, SENTENCE + bytes(48 * 1500) + bytes(48_000))
    assert await transcript(pipeline) == "roll two dice"


async def test_clear_discards_the_turn(make_pipeline: MakePipeline):
    pipeline = make_pipeline()
    await feed(pipeline, SENTENCE)
    pipeline.clear()
    assert await feed(pipeline, bytes(48 * 1000)) == []
    assert await transcript(pipeline) == ""


async def test_positions_continue_over_turns(make_pipeline: MakePipeline):
    pipeline = make_pipeline()
    audio = SENTENCE + bytes(48 * 700)
    _, first_end = await feed(pipeline, audio)
    await transcript(pipeline)
    second_start, _ = await feed(pipeline, audio)
    assert isinstance(first_end, TurnStopped)
    assert isinstance(second_start, TurnStarted)
    assert second_start.start_ms >= first_end.end_ms


async def test_new_rules_in_the_middle_of_a_turn(make_pipeline: MakePipeline):
    pipeline = make_pipeline()
    assert len(await feed(pipeline, SENTENCE)) == 1
    pipeline.configure("audio/pcm", SERVER_VAD | {"silence_duration_ms": 200}, GRAMMAR)
    [stopped] = await feed(pipeline, bytes(48 * 300))
    assert isinstance(stopped, TurnStopped)
    assert await transcript(pipeline) == "roll two dice"


async def test_from_turn_detection_to_push_to_talk_in_the_middle_of_a_turn(make_pipeline: MakePipeline):
    pipeline = make_pipeline()
    await feed(pipeline, SENTENCE)
    pipeline.configure("audio/pcm", None, GRAMMAR)
    assert await feed(pipeline, bytes(48 * 900)) == []
    assert await transcript(pipeline) == "roll two dice"


async def test_a_clip_apart_from_the_stream(make_pipeline: MakePipeline):
    assert await transcript(make_pipeline(), SENTENCE) == "roll two dice"
    assert await transcript(make_pipeline(), b"\0") is None


SEMANTIC = {"type": "semantic_vad", "eagerness": "low"}


async def turn_end_ms(pipeline: InputPipeline, speech: bytes) -> int:
    """Return the end of a turn that starts with this speech."""
    [*_, stopped] = await feed(pipeline, speech + bytes(48 * 9000))
    assert isinstance(stopped, TurnStopped)
    pipeline.clear()
    return stopped.end_ms


async def test_a_semantic_vad_ends_a_whole_sentence_sooner_than_half_of_one(make_pipeline: MakePipeline):
    sentence = read_audio(SAMPLES / "time-in-tokyo.flac", 24_000)
    words_ms = await turn_end_ms(make_pipeline(SERVER_VAD), sentence) - 500
    half = sentence[: len(sentence) * 11 // 20 // 2 * 2]
    half_ms = await turn_end_ms(make_pipeline(SERVER_VAD), half) - 500
    assert await turn_end_ms(make_pipeline(SEMANTIC), sentence) - words_ms in range(500, 760)
    assert await turn_end_ms(make_pipeline(SEMANTIC), half) - half_ms in range(7800, 8200)


async def test_a_semantic_vad_treats_what_it_does_not_know_like_any_pause(make_pipeline: MakePipeline):
    story = np.frombuffer(read_audio(SAMPLES / "time-in-tokyo.flac", 24_000), "<i2")[::-1].tobytes()  # backwards
    before_ms = await turn_end_ms(make_pipeline(SERVER_VAD), story) - 500
    assert await turn_end_ms(make_pipeline(SEMANTIC), story) - before_ms in range(800, 1000)
