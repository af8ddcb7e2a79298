"""Recognition and synthesis in worker processes: the same results as in this process, and crashes."""

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
from relay.local_engine.workers import worker_process
from relay.local_engine.workers.messages import MAX_MESSAGE_BYTES, encode_message, read_message
from relay.local_engine.workers.process_backend import ProcessBackend
from relay.local_engine.workers.worker_process import WorkerProcess
from tests.local_engine.engine_harness import SAMPLES, TOOLS, connected, serving, types_of

HEARING = {"audio": {"input": {"transcription": {"model": "local"}}}}
OUTPUT = {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "alloy", "speed": 1.0}
SENTENCE = read_audio(SAMPLES / "roll-two-dice.flac", 24_000)
SENTENCE_16 = read_audio(SAMPLES / "roll-two-dice.flac", 16_000)
FAILED = "conversation.item.input_audio_transcription.failed"


@pytest.fixture
async def backend() -> AsyncIterator[ProcessBackend]:
    backend = ProcessBackend(1)
    yield backend
    await backend.close()


@asynccontextmanager
async def engine_with_workers() -> AsyncIterator[tuple[int, ProcessBackend]]:
    app = create_engine_app(pace=None, workers=1)
    async with serving(app) as port:
        backend = next(value for value in app.values() if hasattr(value, "speech_backend")).speech_backend
        yield port, backend


def kill(worker: WorkerProcess) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)


async def test_recognition_in_a_worker(backend: ProcessBackend):
    pipeline = InputPipeline(backend.new_recognizer(), start_ms=5000)
    pipeline.configure("audio/pcm", {"type": "semantic_vad", "eagerness": "low"}, orjson.dumps(TOOLS))
    events = []
    for event in pipeline.feed(bytes(48 * 320) + SENTENCE + bytes(48 * 9000)):
        if isinstance(event, TurnPaused):
            await pipeline.query_endpoint()
        elif event is not None:
            events.append(event)
    started, stopped = events
    assert isinstance(started, TurnStarted)
    assert isinstance(stopped, TurnStopped)
    assert 5000 <= started.start_ms <= 5600
    assert stopped.end_ms > started.start_ms + 1000
    assert await pipeline.end_turn() == "roll two dice"
    assert await pipeline.transcribe_clip(SENTENCE) == "roll two dice"
    pipeline.close()


async def test_synthesis_in_a_worker_is_identical(backend: ProcessBackend):
    assert await backend.synthesize("Hello there.", OUTPUT) == SpeechSynthesizer().synthesize("Hello there.", OUTPUT)


async def test_a_failed_request_does_not_affect_the_next(backend: ProcessBackend):
    with pytest.raises(RuntimeError, match="KeyError"):
        await backend.synthesize("Hello.", {"format": {}})
    assert await backend.synthesize("Hello.", OUTPUT)


async def test_a_recognizer_survives_the_end_of_its_worker(backend: ProcessBackend):
    recognizer = backend.new_recognizer()
    recognizer.configure(orjson.dumps(TOOLS))
    recognizer.start_turn(is_narrowband=False)
    recognizer.feed(SENTENCE_16)
    assert await recognizer.query_completeness(0) != "unfinished"
    kill(backend.workers[0])
    with pytest.raises(SpeechBackendLost):
        await recognizer.transcribe_clip(SENTENCE_16 * 30, is_narrowband=False)
    recognizer.feed(SENTENCE_16)
    with pytest.raises(SpeechBackendLost):
        await recognizer.end_turn()
    assert await recognizer.end_turn() == ""
    recognizer.start_turn(is_narrowband=False)
    recognizer.feed(SENTENCE_16)
    assert await recognizer.end_turn() == "roll two dice"
    recognizer.close()
    assert backend.workers[0].n_sessions == 0


async def test_a_discarded_turn_has_no_transcript(backend: ProcessBackend):
    recognizer = backend.new_recognizer()
    recognizer.configure(orjson.dumps(TOOLS))
    recognizer.start_turn(is_narrowband=False)
    recognizer.feed(SENTENCE_16)
    recognizer.discard_turn()
    assert await recognizer.end_turn() == ""
    recognizer.close()
    recognizer.close()


async def test_a_worker_that_reads_nothing_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker_process, "MAX_UNREAD_BYTES", 1_000_000)
    worker = WorkerProcess("stuck", ("/bin/sleep", "1000"))
    response = worker.request({"do": "end_turn", "session": "s"})
    for _ in range(100):
        if response.done():
            break
        worker.notify({"do": "feed", "session": "s"}, bytes(100_000))
        await asyncio.sleep(0.01)
    with pytest.raises(SpeechBackendLost):
        await response
    assert worker.generation == 1
    await worker.stop()


async def test_a_turn_with_workers():
    async with engine_with_workers() as (port, _), connected(port, tools=TOOLS, **HEARING) as client:
        await client.play_sample("roll-two-dice")
        completed = await client.wait_for("conversation.item.input_audio_transcription.completed")
        assert completed["transcript"] == "roll two dice"
        assert (await client.wait_for("response.done"))["response"]["output"][0]["name"] == "roll_dice"


async def test_the_crash_of_a_recognizer_costs_one_turn():
    async with engine_with_workers() as (port, backend), connected(port, tools=TOOLS, **HEARING) as client:
        await client.append(SENTENCE[: len(SENTENCE) // 2])
        started = await client.wait_for("input_audio_buffer.speech_started")
        kill(backend.workers[0])
        await client.append(bytes(48 * 900))
        stopped = await client.wait_for("input_audio_buffer.speech_stopped")
        assert stopped["item_id"] == started["item_id"]
        failed = await client.wait_for(FAILED)
        assert (failed["item_id"], failed["error"]["code"]) == (started["item_id"], "transcription_failed")
        created = await client.wait_for("response.created")
        assert (await client.wait_for("response.done"))["response"]["id"] == created["response"]["id"]
        await client.play_sample("time-in-tokyo")
        # The rest of the lost turn may have become a turn of its own, which comes first.
        while (await client.wait_for("response.done"))["response"]["output"][0].get("name") != "current_time":
            pass


async def test_the_crash_of_the_synthesizer_costs_one_response():
    async with engine_with_workers() as (port, backend), connected(port) as client:
        await client.play_sample("tell-a-story")
        await client.wait_for("response.output_audio.delta")
        kill(backend.workers[-1])
        done = (await client.wait_for("response.done"))["response"]
        assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "voice_failed")
        assert types_of(client.events)[-1] == "response.done"
        await client.send("response.create")
        assert (await client.wait_for("response.done"))["response"]["status"] == "completed"


async def test_workers_end_with_the_engine():
    async with engine_with_workers() as (port, backend):
        async with connected(port) as client:
            await client.append(bytes(4800))
            await client.send("response.create")
            await client.wait_for("response.done")
        pids = [worker.pid for worker in backend.workers]
        assert None not in pids
    assert [worker.pid for worker in backend.workers] == [None, None]


async def test_a_worker_that_cannot_start_fails_the_request():
    worker = WorkerProcess("broken", ("/bin/false",))
    for _ in range(2):
        with pytest.raises(SpeechBackendLost):
            await worker.request({"do": "synthesize"})
    await worker.stop()


async def test_messages_have_a_bound():
    reader = asyncio.StreamReader()
    reader.feed_data(encode_message({"n": 1}, b"abc"))
    assert await read_message(reader) == ({"n": 1}, b"abc")
    reader.feed_data((2).to_bytes(4, "little") + MAX_MESSAGE_BYTES.to_bytes(4, "little"))
    with pytest.raises(ValueError, match="bytes"):
        await read_message(reader)
