"""A session's ears in this process, with a real recogniser behind them."""

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
from relay.local_engine.speech.input_pipeline import InputPipeline, TurnPaused, TurnStarted, TurnStopped
from relay.local_engine.speech.recognition_scheduler import InProcessRecognizer, RecognitionScheduler
from tests.local_engine.engine_stage import SAMPLES, TOOLS

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRAMMAR = orjson.dumps(TOOLS)
SERVER_VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500}
SENTENCE = read_audio(SAMPLES / "roll-two-dice.flac", 24_000)


Make = Callable[..., InputPipeline]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recognition() -> AsyncIterator[RecognitionScheduler]:
    made = RecognitionScheduler()
    yield made
    await made.close()


@pytest.fixture
def ears(recognition: RecognitionScheduler) -> Make:
    def make(turn_detection: dict[str, Any] | None = SERVER_VAD, input_format: str = "audio/pcm") -> InputPipeline:
        made = InputPipeline(InProcessRecognizer(recognition))
        made.configure(input_format, turn_detection, GRAMMAR)
        return made

    return make


async def hear(listener: InputPipeline, audio: bytes, chunk_bytes: int = 4800) -> list[TurnStarted | TurnStopped]:
    events: list[TurnStarted | TurnStopped] = []
    for start in range(0, len(audio), chunk_bytes):
        for event in listener.feed(audio[start : start + chunk_bytes]):
            if isinstance(event, TurnPaused):
                await listener.query_endpoint()
            elif event is None:
                await asyncio.sleep(0)  # the recogniser's chance, as between the chunks of a microphone
            else:
                events.append(event)
    return events


async def words(listener: InputPipeline, clip: bytes | None = None) -> str | None:
    return await (listener.end_turn() if clip is None else listener.transcribe_clip(clip))


async def test_a_turn_in_the_stream(ears: Make):
    listener = ears()
    started, stopped = await hear(listener, bytes(48_000) + SENTENCE + bytes(48 * 700))
    assert isinstance(started, TurnStarted)
    assert isinstance(stopped, TurnStopped)
    assert 800 <= started.start_ms <= 1200  # the sample begins with 200 ms of silence, the prefix is 300 ms
    length_ms = len(SENTENCE) / 48
    assert length_ms - 100 <= stopped.end_ms - 1000 - 500 <= length_ms + 100
    assert await words(listener) == "roll two dice"


@pytest.mark.parametrize("chunk_bytes", [1, 961, 4801, 1_000_000])
async def test_any_chunking_gives_the_same(ears: Make, chunk_bytes: int):
    audio = SENTENCE + bytes(48 * 700)
    whole, chunked = ears(), ears()
    assert await hear(whole, audio) == await hear(chunked, audio, chunk_bytes)
    assert await words(whole) == await words(chunked) == "roll two dice"


@pytest.mark.parametrize(("input_format", "encode"), [("audio/pcmu", ulaw_encode), ("audio/pcma", alaw_encode)])
async def test_telephone_formats(ears: Make, input_format: str, encode: Any):
    listener = ears(input_format=input_format)
    audio = encode(resample(SENTENCE + bytes(48 * 700), 24_000, 8_000))
    assert len(await hear(listener, audio, 160)) == 2
    assert await words(listener) == "roll two dice"


async def test_without_turn_detection_nothing_is_reported_but_all_is_heard(ears: Make):
    listener = ears(None)
    assert await hear(listener, bytes(48_000) + SENTENCE) == []
    assert await words(listener) == "roll two dice"
    assert await words(listener) == ""


async def test_a_pause_does_not_end_a_turn_that_is_the_clients(ears: Make):
    listener = ears(None)
    await hear(listener, SENTENCE + bytes(48 * 1500) + bytes(48_000))
    assert await words(listener) == "roll two dice"


async def test_forgetting(ears: Make):
    listener = ears()
    await hear(listener, SENTENCE)
    listener.clear()
    assert await hear(listener, bytes(48 * 1000)) == []
    assert await words(listener) == ""


async def test_times_go_on_over_turns(ears: Make):
    listener = ears()
    audio = SENTENCE + bytes(48 * 700)
    _, first_end = await hear(listener, audio)
    await words(listener)
    second_start, _ = await hear(listener, audio)
    assert isinstance(first_end, TurnStopped)
    assert isinstance(second_start, TurnStarted)
    assert second_start.start_ms >= first_end.end_ms


async def test_new_rules_in_the_middle_of_a_turn(ears: Make):
    listener = ears()
    assert len(await hear(listener, SENTENCE)) == 1
    listener.configure("audio/pcm", SERVER_VAD | {"silence_duration_ms": 200}, GRAMMAR)
    [stopped] = await hear(listener, bytes(48 * 300))
    assert isinstance(stopped, TurnStopped)
    assert await words(listener) == "roll two dice"


async def test_from_turn_detection_to_push_to_talk_in_the_middle_of_a_turn(ears: Make):
    listener = ears()
    await hear(listener, SENTENCE)
    listener.configure("audio/pcm", None, GRAMMAR)
    assert await hear(listener, bytes(48 * 900)) == []
    assert await words(listener) == "roll two dice"


async def test_a_clip_apart_from_the_stream(ears: Make):
    assert await words(ears(), SENTENCE) == "roll two dice"
    assert await words(ears(), b"\0") is None


SEMANTIC = {"type": "semantic_vad", "eagerness": "low"}


async def length_ms(listener: InputPipeline, said: bytes) -> int:
    """Where the turn ends that so much speech begins."""
    [*_, stopped] = await hear(listener, said + bytes(48 * 9000))
    assert isinstance(stopped, TurnStopped)
    listener.clear()
    return stopped.end_ms


async def test_a_semantic_vad_ends_a_whole_sentence_sooner_than_half_of_one(ears: Make):
    sentence = read_audio(SAMPLES / "time-in-tokyo.flac", 24_000)
    words_ms = await length_ms(ears(SERVER_VAD), sentence) - 500
    half = sentence[: len(sentence) * 11 // 20 // 2 * 2]
    half_ms = await length_ms(ears(SERVER_VAD), half) - 500
    assert await length_ms(ears(SEMANTIC), sentence) - words_ms in range(500, 760)
    assert await length_ms(ears(SEMANTIC), half) - half_ms in range(7800, 8200)


async def test_a_semantic_vad_treats_what_it_does_not_know_like_any_pause(ears: Make):
    story = np.frombuffer(read_audio(SAMPLES / "time-in-tokyo.flac", 24_000), "<i2")[::-1].tobytes()  # backwards
    before_ms = await length_ms(ears(SERVER_VAD), story) - 500
    assert await length_ms(ears(SEMANTIC), story) - before_ms in range(800, 1000)
