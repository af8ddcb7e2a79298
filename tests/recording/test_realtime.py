"""Sessions of Realtime clients: recorded by the frame, drawn as a conversation, replayed three ways, bundled."""

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pybase64
import pytest
from openai import AsyncOpenAI

from audio.files import read_audio
from relay import load_tools, tool
from relay.recording.derive.ascii_timeline import render
from relay.recording.derive.timeline import Timeline
from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.live_replay.replay_client import replay_against
from relay.recording.live_replay.replay_server import ReplayServer
from relay.recording.postprocess import finalize
from relay.recording.redact.bundle import write_bundle
from relay.recording.redact.rules import parse_redaction
from relay.recording.replay.replayer import Difference
from relay.recording.replay.verify import verify
from relay.recording.store.layout import list_recordings
from relay.recording.store.reader import Recording
from relay.session.realtime.response_queue import ResponseQueue
from relay.testing import ScriptedSession, ScriptedUpstream
from tests.support.conversations import SAMPLES
from tests.support.realtime_client import RealtimeClient, realtime_client, tool_registry
from tests.support.relay_server import running_relay
from tests.support.scripted_recordings import tone

LAMP = {"type": "function", "name": "lamp", "description": "Switches the lamp.", "parameters": {"type": "object"}}


@tool
def clock() -> dict[str, str]:
    """Tells the time."""
    return {"time": "noon"}


@asynccontextmanager
async def talking(root: Path, mode: str = "on") -> AsyncIterator[tuple[RealtimeClient, ScriptedSession]]:
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url, tool_registry(clock), recording_mode=mode, recording_dir=root) as relay,
        realtime_client(relay) as client,
    ):
        session = await upstream.accept()
        await session.configure()
        await client.expect("session.created")
        yield client, session


def append(pcm: bytes, **more: Any) -> dict[str, Any]:
    return {"type": "input_audio_buffer.append", "audio": pybase64.b64encode(pcm).decode(), **more}


async def a_conversation(client: RealtimeClient, session: ScriptedSession) -> None:
    """A spoken turn with a hidden tool and one of the client's, an answer that is cut, and a typed turn."""
    await client.send(type="session.update", session={"type": "realtime", "tools": [LAMP], "instructions": "Be kind."})
    await session.expect("session.update")
    await session.emit({"type": "session.updated", "session": {"type": "realtime"}})
    samples = tone(400)
    await client.send(**append(samples[:9600]))  # as most clients write it
    await client.connection.send(json.dumps({"event_id": "e1", **append(samples[9600:14400])}))
    await client.connection.send(json.dumps({"audio": append(samples[14400:])["audio"], "type": append(b"")["type"]}))
    await session.expect_audio(len(samples))
    await session.emit(
        {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0},
        {"type": "input_audio_buffer.speech_stopped", "item_id": "item_u", "audio_end_ms": 300},
        {"type": "input_audio_buffer.committed", "item_id": "item_u", "previous_item_id": None},
        {"type": "conversation.item.input_audio_transcription.completed", "item_id": "item_u", "content_index": 0,
         "transcript": "light, and what time is it? I am ann@example.com"},
    )  # fmt: skip
    await session.call(("call_1", "clock", {}), ("call_2", "lamp", {"on": True}), response_id="resp_1")
    await client.expect("response.done")
    output = {"type": "function_call_output", "call_id": "call_2", "output": "it is on"}
    await client.send(type="conversation.item.create", item=output)
    await client.send(type="response.create")
    await session.expect("response.create")
    await session.respond("It is noon, and the light is on.", ms=1000, response_id="resp_2", item_id="item_a")
    await client.expect("response.done")
    await client.send(type="conversation.item.truncate", item_id="item_a", content_index=0, audio_end_ms=500)
    await session.expect("conversation.item.truncate")
    text = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "thank you"}]}
    await client.send(type="conversation.item.create", item=text)
    await client.send(type="response.create")
    await session.expect("response.create")
    await session.respond("Welcome.", ms=200, response_id="resp_3", item_id="item_b")
    await client.expect("response.done")
    await session.emit_raw('{"type": "brand.new", "n": 1e3,  "key": "sk-abcdefgh1234"}')
    await client.expect("brand.new")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("realtime")


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    """One recorded conversation for all that is done with it."""

    async def record() -> None:
        async with talking(root) as (client, session):
            await a_conversation(client, session)

    asyncio.run(record())
    (folder,) = list_recordings(root)
    return folder


def timeline_of(folder: Path) -> Timeline:
    return build_timeline(Recording(folder)).timeline


def test_what_was_recorded_runs_identically_and_holds_all_sound(folder: Path) -> None:
    outcome = verify(Recording(folder))
    assert (outcome.difference, outcome.notes, outcome.sent_bytes) == (None, [], 1200 * 48)
    assert (folder / "client.pcm").read_bytes() == tone(400)
    assert (folder / "upstream.pcm").stat().st_size == 1200 * 48
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}
    journal = (folder / "journal.jsonl").read_text()
    assert "sk-abcdefgh1234" not in journal
    assert len(max(journal.splitlines(), key=len)) < 4000  # no sound in it


def test_a_changed_rule_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ResponseQueue, "on_tool_finished", lambda *_: None)
    difference = verify(Recording(folder)).difference
    assert isinstance(difference, Difference)
    assert difference.description.startswith("tool_call_finished(")
    assert difference.recorded[0]["t"] == "send_to_upstream"


def test_it_is_drawn_as_a_conversation(folder: Path) -> None:
    timeline = timeline_of(folder)
    assert [speech.text[:5] for speech in timeline.speech] == ["light", "thank"]
    assert sorted((run.name, run.status, run.output) for run in timeline.tools) == [
        ("clock", "done", '{"time": "noon"}'), ("lamp", "done", "it is on")
    ]  # fmt: skip
    assert [(item.item_id, item.cut_ms) for item in timeline.heard] == [("item_a", 500), ("item_b", None)]
    assert len(timeline.latencies) == 2
    assert timeline.latencies[0].speech_stopped_ms is not None
    drawn = "\n".join(render(timeline))
    assert "✂ after 0.5 s" in drawn
    assert "pcm16 24000 Hz in" in drawn
    assert "tracks" in finalize(folder).summary
    assert "light, and what time" in (folder / "transcript.vtt").read_text()


def test_a_bundle_runs_identically_too(folder: Path, tmp_path: Path) -> None:
    report = write_bundle(folder, tmp_path / "b.zip", parse_redaction(["instructions"], ["light"], ["0-0.9"]))
    assert any("e-mail addresses" in line for line in report)
    assert "identical" in report[-1]
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        archive.extractall(tmp_path)
    copy = tmp_path / folder.name
    assert verify(Recording(copy)).difference is None
    journal = (copy / "journal.jsonl").read_text()
    assert "ann@example.com" not in journal
    assert "light" not in journal
    assert "Be kind" not in journal


async def test_as_the_model_and_as_the_client(folder: Path, tmp_path: Path) -> None:
    reports: list[str] = []
    async with (
        ReplayServer(folder, 0, None, reports.append) as upstream,
        running_relay(upstream.url, tool_registry(clock)) as relay,
    ):
        comparison = await replay_against(folder, relay.ws(), 8.0, tmp_path)
    assert comparison.differences(["user", "assistant", "tools"]) == []
    assert not any(": divergence at " in line for line in reports), reports


async def test_with_consent_nothing_is_written_before_it(tmp_path: Path) -> None:
    async with talking(tmp_path, "consent") as (client, session):
        await client.send(**append(tone(20)))
        await session.expect_audio(960)
        await client.send(type="relay.consent", granted="yes")
        assert (await client.expect("error"))["error"]["param"] == "granted"
        await client.send(type="relay.consent", granted=True)
        await client.send(**append(tone(40)))
        await session.expect_audio(1920)
        assert "relay.consent" not in session.types()
    (folder,) = list_recordings(tmp_path)
    assert (folder / "client.pcm").stat().st_size == 1920
    assert not Recording(folder).header.from_start


async def test_consent_from_the_start_and_taken_back(tmp_path: Path) -> None:
    async with talking(tmp_path, "consent") as (client, session):
        await client.send(type="relay.consent", granted=True)
        await client.send(**append(tone(40)))
        await session.expect_audio(1920)
    (folder,) = list_recordings(tmp_path)
    assert verify(Recording(folder)).is_identical
    async with talking(tmp_path, "on") as (client, session):
        await client.send(**append(tone(40)))
        await session.expect_audio(1920)
        await client.send(type="relay.consent", granted=False)
        await client.send(type="input_audio_buffer.commit")
        await session.expect("input_audio_buffer.commit")
    assert list_recordings(tmp_path) == [folder]


async def test_an_answer_before_the_session_is_configured_is_replayed_and_drawn(tmp_path: Path) -> None:
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url, tool_registry(clock), recording_mode="on", recording_dir=tmp_path) as relay,
        realtime_client(relay) as client,
    ):
        session = await upstream.accept()
        await session.emit({"type": "session.created", "session": {"type": "realtime"}})
        await session.expect("session.update")
        await session.respond("Welcome.", ms=100)
        await session.emit({"type": "session.updated", "session": {"type": "realtime"}})
        await client.expect("response.done")
    (folder,) = list_recordings(tmp_path)
    assert verify(Recording(folder)).is_identical
    assert [answer.status for answer in timeline_of(folder).answers] == ["completed"]


async def test_a_dial_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    async with running_relay("ws://127.0.0.1:9/", recording_mode="on", recording_dir=tmp_path) as relay:
        with pytest.raises(Exception, match=r"502|504"):
            async with realtime_client(relay):
                pass
    assert list_recordings(tmp_path) == []


@pytest.mark.long
async def test_the_official_client_with_the_local_engine(tmp_path: Path) -> None:
    pcm = await asyncio.to_thread(read_audio, SAMPLES / "dice-and-time.flac", 24_000)
    async with running_relay(None, load_tools("tools"), recording_mode="on", recording_dir=tmp_path) as relay:
        sdk = AsyncOpenAI(api_key="any", base_url=relay.http("/v1"))
        async with sdk.realtime.connect(model="m") as connection:
            for start in range(0, len(pcm) + 48_000, 4800):
                chunk = pcm[start : start + 4800] or bytes(4800)
                await connection.input_audio_buffer.append(audio=pybase64.b64encode(chunk).decode())
            async for event in connection:
                if event.type == "response.done" and event.response.output:
                    break
        await sdk.close()
    (folder,) = list_recordings(tmp_path)
    assert verify(Recording(folder)).difference is None
    timeline = timeline_of(folder)
    assert sorted(run.name for run in timeline.tools) == ["current_time", "roll_dice"]
    assert timeline.heard
    assert len(timeline.latencies) == 1
