"""Recording at run time: a whole relay that records, and one recorder that is fed by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from relay.recording.format.records import JournalRecord
from relay.recording.replay.replayer import ReplayedSession
from relay.recording.service import RecordingService
from relay.recording.session_recorder import RealtimeSessionRecorder, SessionRecorder
from relay.recording.store.header import RealtimeSetup, SessionSetup
from relay.recording.store.layout import list_recordings
from relay.recording.store.reader import Recording
from relay.session.common.model import DeviceOptions, SessionConfig
from relay.session.common.policy import Principal
from relay.session.device import events as ev
from relay.testing import ScriptedSession, ScriptedUpstream
from tests.support.relay_server import DeviceClient, RunningRelay, running_relay
from tests.support.scripted_recordings import tone


@asynccontextmanager
async def recording_relay(
    root: Path, mode: str, **settings: Any
) -> AsyncIterator[tuple[RunningRelay, ScriptedUpstream]]:
    async with (
        ScriptedUpstream() as upstream,
        running_relay(upstream.url, recording_mode=mode, recording_dir=root, **settings) as relay,
    ):
        yield relay, upstream


@asynccontextmanager
async def device_session(
    relay: RunningRelay, upstream: ScriptedUpstream
) -> AsyncIterator[tuple[DeviceClient, ScriptedSession]]:
    async with await DeviceClient.connect(relay.ws()) as client:
        session = await upstream.accept()
        await session.configure()
        await client.expect("AIConnected")
        yield client, session


async def complete_turn(client: DeviceClient, session: ScriptedSession) -> None:
    await client.speak(tone(200, 16_000))
    await session.expect_audio(100 * 48)
    await session.emit(
        {"type": "input_audio_buffer.speech_started", "item_id": "item_u", "audio_start_ms": 0},
        {"type": "input_audio_buffer.speech_stopped", "item_id": "item_u", "audio_end_ms": 20},
        {"type": "input_audio_buffer.committed", "item_id": "item_u", "previous_item_id": None},
    )
    await session.respond("Hello there.", ms=300)
    await client.expect("audioEnd")


class RecordedSession:
    """A device's session without sockets, and its recorder."""

    def __init__(self, service: RecordingService, session_id: str = "rs_1", principal: Principal | None = None) -> None:
        self.now = 100.0
        self.session_id = session_id
        setup = SessionSetup(session_id, SessionConfig(), DeviceOptions(), principal or Principal(), self.now)
        self.rules = ReplayedSession(setup)
        recorder = service.open(setup, lambda: 1e6)
        assert recorder is not None
        self.recorder: SessionRecorder = recorder

    def feed(self, *inputs: ev.Event | bytes) -> None:
        """Feed events and audio from the client, 20 ms apart."""
        for happening in inputs:
            self.now += 0.02
            if isinstance(happening, bytes):
                self.rules.receive_input(len(happening))
                self.recorder.record_input(happening, self.now)
            else:
                self.recorder.record_event(happening, self.now, self.rules.handle(happening, self.now))


def realtime_recorder(service: RecordingService) -> RealtimeSessionRecorder:
    setup = SessionSetup.for_realtime("rs_1", (), RealtimeSetup(), Principal(), 9.0)
    recorder = service.open(setup, lambda: 11.0)
    assert isinstance(recorder, RealtimeSessionRecorder)
    return recorder


async def wait_until_written(service: RecordingService) -> None:
    """Wait until the submitted batches of a recording are on the disk."""
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    service.writer.submit_job(lambda: [loop.call_soon_threadsafe(done.set)][:0])  # type: ignore[arg-type, return-value]
    await done.wait()


def read_records(root: Path) -> list[JournalRecord]:
    """The records of the only recording."""
    (folder,) = list_recordings(root)
    return [entry.record for entry in Recording(folder).entries()]
