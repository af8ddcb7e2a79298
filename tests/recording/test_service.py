"""All recordings of one relay: which sessions are recorded, and what becomes of recordings that have ended."""

import asyncio
from pathlib import Path

import pytest

from relay.recording.postprocess import is_finalized
from relay.recording.replay.verify import verify
from relay.recording.service import RecordingService
from relay.recording.store.header import SessionSetup
from relay.recording.store.layout import list_recordings
from relay.recording.store.reader import Recording
from relay.session.common.model import DeviceOptions, SessionConfig
from relay.session.common.policy import Policy, Principal
from tests.support.recorded_session import complete_turn, device_session, recording_relay
from tests.support.scripted_recordings import make_recording, tone


async def test_a_session_is_recorded_finished_and_runs_identically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = asyncio.Event()
    finish_recordings = RecordingService.finalize_recordings

    async def finish(service: RecordingService) -> None:
        ended = bool(list_recordings(tmp_path))  # there is a round at the start as well
        await finish_recordings(service)
        if ended:
            finished.set()

    monkeypatch.setattr(RecordingService, "finalize_recordings", finish)
    async with recording_relay(tmp_path, "on") as (relay, upstream):
        async with device_session(relay, upstream) as (client, session):
            await complete_turn(client, session)
            sent_audio = bytes(client.audio)
        await asyncio.wait_for(finished.wait(), 20)
    (folder,) = list_recordings(tmp_path)
    assert is_finalized(folder)
    assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o600"}
    assert (folder / "client.pcm").read_bytes() == tone(200, 16_000)
    assert (folder / "sent.pcm").read_bytes() == sent_audio
    recording = Recording(folder)
    result = verify(recording)
    assert (result.difference, result.notes, result.sent_bytes) == (None, [], len(sent_audio))
    assert recording.header.setup.session_id in folder.name
    assert recording.has_end


async def test_off_means_that_nothing_is_there(tmp_path: Path) -> None:
    async with (
        recording_relay(tmp_path / "r", "off") as (relay, upstream),
        device_session(relay, upstream) as (client, session),
    ):
        await complete_turn(client, session)
    assert not (tmp_path / "r").exists()


async def test_a_policy_has_its_own_word(tmp_path: Path) -> None:
    never, always = RecordingService(tmp_path, "on"), RecordingService(tmp_path, "off")
    begin = ("rs_1", SessionConfig(), DeviceOptions())
    assert never.open(SessionSetup(*begin, Principal(policy=Policy(record="off")), 0.0), lambda: 0.0) is None
    assert always.open(SessionSetup(*begin, Principal(), 0.0), lambda: 0.0) is None
    assert always.open(SessionSetup(*begin, Principal(policy=Policy(record="on")), 0.0), lambda: 0.0) is not None
    await never.stop()
    await always.stop()


async def test_what_the_retention_lets_go_is_one_line_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = make_recording(tmp_path, session_id="rs_a"), make_recording(tmp_path, session_id="rs_b")
    caplog.set_level("INFO", "relay.recordings")
    service = RecordingService(tmp_path, "on", max_mb=0.0001)
    service.start()
    async with asyncio.timeout(10):
        while "recording deleted: " not in caplog.text:  # noqa: ASYNC110  # a process of its own does it
            await asyncio.sleep(0.01)
    await service.stop()
    assert f"recording deleted: recording={old.name} reason=total over 0.0001 MB" in caplog.text
    assert not old.exists()
    assert new.exists()
