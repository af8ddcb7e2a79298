"""Ears and voice in processes of their own, over real sockets: they do what they do in this one, and may die."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from audio.files import read_audio
from relay.local_engine.server import create_engine_app
from relay.local_engine.speech.backend import SpeechBackendLost
from relay.local_engine.speech.input_pipeline import InputPipeline, TurnPaused, TurnStarted, TurnStopped
from relay.local_engine.speech.tts import SpeechSynthesizer
from relay.local_engine.workers import MAX_MESSAGE_BYTES, encode_message, pool, read_message
from relay.local_engine.workers.pool import ProcessBackend, WorkerProcess
from tests.local_engine.engine_stage import SAMPLES, TOOLS, connected, serving, types_of

HEARING = {"audio": {"input": {"transcription": {"model": "local"}}}}
OUTPUT = {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "alloy", "speed": 1.0}
SENTENCE = read_audio(SAMPLES / "roll-two-dice.flac", 24_000)
SENTENCE_16 = read_audio(SAMPLES / "roll-two-dice.flac", 16_000)
FAILED = "conversation.item.input_audio_transcription.failed"


@pytest.fixture
async def senses() -> AsyncIterator[ProcessBackend]:
    made = ProcessBackend(1)
    yield made
    await made.close()


@asynccontextmanager
async def engine_with_workers() -> AsyncIterator[tuple[int, ProcessBackend]]:
    app = create_engine_app(pace=None, workers=1)
    async with serving(app) as port:
        senses = next(value for value in app.values() if hasattr(value, "senses")).senses
        yield port, senses


def kill(worker: WorkerProcess) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)


async def test_words_in_a_worker_are_what_own_words_are(senses: ProcessBackend):
    ears = InputPipeline(senses.new_recognizer(), start_ms=5000)
    ears.configure("audio/pcm", {"type": "semantic_vad", "eagerness": "low"}, orjson.dumps(TOOLS))
    events = []
    for event in ears.feed(bytes(48 * 320) + SENTENCE + bytes(48 * 9000)):
        if isinstance(event, TurnPaused):
            await ears.query_endpoint()
        elif event is not None:
            events.append(event)
    started, stopped = events
    assert isinstance(started, TurnStarted)
    assert isinstance(stopped, TurnStopped)
    assert 5000 <= started.start_ms <= 5600
    assert stopped.end_ms > started.start_ms + 1000
    assert await ears.end_turn() == "roll two dice"
    assert await ears.transcribe_clip(SENTENCE) == "roll two dice"
    ears.close()


async def test_a_voice_in_a_worker_says_the_same(senses: ProcessBackend):
    assert await senses.synthesize("Hello there.", OUTPUT) == SpeechSynthesizer().synthesize("Hello there.", OUTPUT)


async def test_a_request_that_fails_costs_nothing_but_itself(senses: ProcessBackend):
    with pytest.raises(RuntimeError, match="KeyError"):
        await senses.synthesize("Hello.", {"format": {}})
    assert await senses.synthesize("Hello.", OUTPUT)


async def test_a_listener_whose_process_ends_finds_the_next_one(senses: ProcessBackend):
    listener = senses.new_recognizer()
    listener.configure(orjson.dumps(TOOLS))
    listener.start_turn(is_narrowband=False)
    listener.feed(SENTENCE_16)
    assert await listener.query_completeness(0) != "unfinished"
    kill(senses.workers[0])
    with pytest.raises(SpeechBackendLost):
        await listener.transcribe_clip(SENTENCE_16 * 30, is_narrowband=False)
    listener.feed(SENTENCE_16)
    with pytest.raises(SpeechBackendLost):
        await listener.end_turn()
    assert await listener.end_turn() == ""
    listener.start_turn(is_narrowband=False)
    listener.feed(SENTENCE_16)
    assert await listener.end_turn() == "roll two dice"
    listener.close()
    assert senses.workers[0].n_sessions == 0


async def test_a_listener_forgets_what_is_dropped(senses: ProcessBackend):
    listener = senses.new_recognizer()
    listener.configure(orjson.dumps(TOOLS))
    listener.start_turn(is_narrowband=False)
    listener.feed(SENTENCE_16)
    listener.discard_turn()
    assert await listener.end_turn() == ""
    listener.close()
    listener.close()


async def test_a_worker_that_reads_nothing_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pool, "MAX_UNREAD_BYTES", 1_000_000)
    worker = WorkerProcess("stuck", ("/bin/sleep", "1000"))
    waiting = worker.request({"do": "end", "session": "s"})
    for _ in range(100):
        if waiting.done():
            break
        worker.notify({"do": "feed", "session": "s"}, bytes(100_000))
        await asyncio.sleep(0.01)
    with pytest.raises(SpeechBackendLost):
        await waiting
    assert worker.generation == 1
    await worker.stop()


async def test_a_turn_with_workers():
    async with engine_with_workers() as (port, _), connected(port, tools=TOOLS, **HEARING) as wire:
        await wire.play_sample("roll-two-dice")
        completed = await wire.wait_for("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "roll two dice"
        assert (await wire.wait_for("response.done"))["response"]["output"][0]["name"] == "roll_dice"


async def test_ears_that_die_in_mid_turn_cost_that_turn():
    async with engine_with_workers() as (port, senses), connected(port, tools=TOOLS, **HEARING) as wire:
        await wire.append(SENTENCE[: len(SENTENCE) // 2])
        started = await wire.wait_for("input_audio_buffer.speech_started")
        kill(senses.workers[0])
        await wire.append(bytes(48 * 900))
        stopped = await wire.wait_for("input_audio_buffer.speech_stopped")
        assert stopped["item_id"] == started["item_id"]
        failed = await wire.wait_for(FAILED)
        assert (failed["item_id"], failed["error"]["code"]) == (started["item_id"], "transcription_failed")
        created = await wire.wait_for("response.created")
        assert (await wire.wait_for("response.done"))["response"]["id"] == created["response"]["id"]
        await wire.play_sample("time-in-tokyo")
        # What was left of the lost turn may have become a turn of its own, which comes first.
        while (await wire.wait_for("response.done"))["response"]["output"][0].get("name") != "current_time":
            pass


async def test_a_voice_that_dies_costs_one_answer():
    async with engine_with_workers() as (port, senses), connected(port) as wire:
        await wire.play_sample("tell-a-story")
        await wire.wait_for("response.output_audio.delta")
        kill(senses.workers[-1])
        done = (await wire.wait_for("response.done"))["response"]
        assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "voice_failed")
        assert types_of(wire.events)[-1] == "response.done"
        await wire.send("response.create")
        assert (await wire.wait_for("response.done"))["response"]["status"] == "completed"


async def test_workers_end_with_the_engine():
    async with engine_with_workers() as (port, senses):
        async with connected(port) as wire:
            await wire.append(bytes(4800))
            await wire.send("response.create")
            await wire.wait_for("response.done")
        pids = [worker.pid for worker in senses.workers]
        assert None not in pids
    assert [worker.pid for worker in senses.workers] == [None, None]


async def test_a_worker_that_cannot_start_is_an_answer_too():
    worker = WorkerProcess("broken", ("/bin/false",))
    for _ in range(2):
        with pytest.raises(SpeechBackendLost):
            await worker.request({"do": "speak"})
    await worker.stop()


async def test_messages_have_a_bound():
    reader = asyncio.StreamReader()
    reader.feed_data(encode_message({"n": 1}, b"abc"))
    assert await read_message(reader) == ({"n": 1}, b"abc")
    reader.feed_data((2).to_bytes(4, "little") + MAX_MESSAGE_BYTES.to_bytes(4, "little"))
    with pytest.raises(ValueError, match="bytes"):
        await read_message(reader)
