"""Consent: what is buffered before it, and what is deleted when it is revoked."""

from pathlib import Path

import pytest

from audio.formats import PCMU
from relay.recording.format.records import EndRecord, EventRecord
from relay.recording.replay.verify import verify
from relay.recording.service import RecordingService
from relay.recording.session_recorder import MAX_PRE_CONSENT_EVENTS, ConsentGate
from relay.recording.store.layout import is_being_recorded, list_recordings
from relay.recording.store.reader import Recording
from relay.session.common.media_types import AudioDelta
from relay.session.device import events as ev
from relay.session.realtime.events import CONSENT_EVENT_TYPE, ForwardToClient, RealtimeClientEvent, RealtimeServerEvent
from tests.support.recorded_session import (
    RecordedSession,
    complete_turn,
    device_session,
    read_records,
    realtime_recorder,
    recording_relay,
    wait_until_written,
)
from tests.support.scripted_recordings import microphone_audio

# -- the gate ---------------------------------------------------------------------------------------------------------


def test_the_greeting_waits_for_consent_and_is_recorded_with_it() -> None:
    gate = ConsentGate(is_open=False)
    opened, created = ev.UpstreamOpened(), ev.SessionCreated()
    assert not gate.opens_with(opened, 1.0, ())
    assert not gate.opens_with(created, 2.0, ())
    assert gate.opens_with(ev.Consent(True), 3.0, ())
    assert gate.is_open
    assert gate.from_start
    assert gate.take_pre_consent_events() == [(opened, 1.0, ()), (created, 2.0, ())]


@pytest.mark.parametrize("event", [ev.UserText("hello"), ev.Consent(False)])
def test_what_anybody_said_before_consent_is_left_out_and_the_greeting_with_it(event: ev.Event) -> None:
    gate = ConsentGate(is_open=False)
    gate.opens_with(ev.UpstreamOpened(), 1.0, ())
    assert not gate.opens_with(event, 2.0, ())
    assert gate.opens_with(ev.Consent(True), 3.0, ())
    assert not gate.from_start
    assert gate.take_pre_consent_events() == []


def test_a_greeting_without_end_is_left_out() -> None:
    gate = ConsentGate(is_open=False)
    for number in range(MAX_PRE_CONSENT_EVENTS + 1):
        gate.opens_with(ev.DeadlineReached(), float(number), ())
    assert not gate.from_start


def test_a_realtime_client_s_consent_is_an_event_of_its_own() -> None:
    gate = ConsentGate(is_open=False)
    created = RealtimeServerEvent(b'{"type":"session.created"}', {"type": "session.created"})
    assert not gate.opens_with(created, 1.0, (ForwardToClient(created.raw),))
    assert not gate.opens_with(RealtimeClientEvent({"type": CONSENT_EVENT_TYPE, "granted": "yes"}), 2.0, ())
    assert gate.opens_with(RealtimeClientEvent({"type": CONSENT_EVENT_TYPE, "granted": True}), 3.0, ())
    assert not gate.is_revoked_by(RealtimeClientEvent({"type": "session.update", "granted": False}))
    assert gate.is_revoked_by(RealtimeClientEvent({"type": CONSENT_EVENT_TYPE, "granted": False}))


# -- sessions ---------------------------------------------------------------------------------------------------------


async def test_with_consent_nothing_is_written_before_it(tmp_path: Path) -> None:
    async with recording_relay(tmp_path, "consent") as (relay, upstream):
        async with device_session(relay, upstream) as (client, session):
            await complete_turn(client, session)
        async with device_session(relay, upstream) as (client, session):
            await complete_turn(client, session)
            await client.send(type="consent", granted=True)
            await client.send(type="text", text="this may be kept")
            await session.expect("conversation.item.create")
    (folder,) = list_recordings(tmp_path)
    assert b"Hello there." not in (folder / "journal.jsonl").read_bytes()
    assert not (folder / "client.pcm").exists()
    recording = Recording(folder)
    first = next(recording.entries())
    assert isinstance(first.record, EventRecord)
    assert first.record.event == ev.Consent(True)
    assert not recording.header.from_start
    with pytest.raises(Exception, match="begins in the middle of its session"):
        verify(recording)


async def test_consent_in_hello_records_from_the_start(tmp_path: Path) -> None:
    async with (
        recording_relay(tmp_path, "consent") as (relay, upstream),
        device_session(relay, upstream) as (client, session),
    ):
        await client.send(type="hello", v=1, consent=True)
        await client.expect("ready")
        await complete_turn(client, session)
    (folder,) = list_recordings(tmp_path)
    assert verify(Recording(folder)).is_identical
    assert Recording(folder).header.from_start


async def test_consent_that_is_taken_back_deletes_what_was_recorded(tmp_path: Path) -> None:
    async with (
        recording_relay(tmp_path, "on") as (relay, upstream),
        device_session(relay, upstream) as (client, session),
    ):
        await complete_turn(client, session)
        await client.send(type="consent", granted=False)
        await client.send(type="text", text="not to be kept")
        await session.expect("conversation.item.create")
    assert list_recordings(tmp_path) == []


async def test_a_recording_that_waits_for_consent_keeps_no_audio(tmp_path: Path) -> None:
    service = RecordingService(tmp_path, "consent")
    session = RecordedSession(service)
    session.feed(ev.UpstreamOpened(), microphone_audio(20))
    session.recorder.record_output(AudioDelta("resp_1", "item_1", 0, b""), bytes(960), 100.1, discarded=False)
    session.recorder.record_tts_audio("context_1", bytes(960), 100.1, discarded=True)
    session.recorder.record_sent_audio(bytes(960), 100.1)
    session.recorder.flush()
    session.feed(ev.Consent(True))
    service.close(session.session_id)
    session.feed(microphone_audio(20))
    await service.stop()
    consent, end = read_records(tmp_path)
    assert isinstance(consent, EventRecord)
    assert consent.event == ev.Consent(True)
    assert isinstance(end, EndRecord)
    (folder,) = list_recordings(tmp_path)
    assert not list(folder.glob("*.pcm"))
    assert not Recording(folder).header.from_start


async def test_consent_can_be_taken_back_after_the_bound_was_reached(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = RecordingService(tmp_path, "on", recording_max_mb=0.1)
    session = RecordedSession(service)
    session.feed(*[microphone_audio(1000)] * 20)
    assert "reason=limit of 0.1 MB reached" in caplog.text
    session.feed(ev.Consent(False))
    service.close(session.session_id)
    await service.stop()
    assert list_recordings(tmp_path) == []


async def test_consent_can_be_taken_back_after_the_recorder_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the recording is neither finalized nor pruned."""

    def broken(*_: object) -> bytes:
        raise ValueError("a fault of the recorder's")

    service = RecordingService(tmp_path, "on")
    session = RecordedSession(service)
    session.feed(ev.UpstreamOpened())
    session.recorder.flush()
    monkeypatch.setattr("relay.recording.batch_builder.live_line", broken)
    session.feed(ev.SessionCreated())
    session.recorder.flush()
    await wait_until_written(service)
    (folder,) = list_recordings(tmp_path)
    assert is_being_recorded(folder)
    session.feed(ev.Consent(False))
    service.close(session.session_id)
    await service.stop()
    assert list_recordings(tmp_path) == []


async def test_a_realtime_client_can_take_its_consent_back(tmp_path: Path) -> None:
    service = RecordingService(tmp_path, "on")
    recorder = realtime_recorder(service)
    recorder.record_event(RealtimeClientEvent({"type": "input_audio_buffer.clear"}), 10.0, ())
    recorder.flush()
    recorder.record_event(RealtimeClientEvent({"type": CONSENT_EVENT_TYPE, "granted": False}), 10.1, ())
    recorder.record_event(RealtimeClientEvent({"type": "input_audio_buffer.clear"}), 10.2, ())
    service.close("rs_1")
    await service.stop()
    assert list_recordings(tmp_path) == []


async def test_consent_that_comes_late_leaves_the_formats_of_an_earlier_hello(tmp_path: Path) -> None:
    service = RecordingService(tmp_path, "consent")
    session = RecordedSession(service)
    session.feed(
        ev.UpstreamOpened(),
        ev.SessionCreated(),
        ev.SessionUpdated(),
        ev.Hello(("input", "output"), input=PCMU, output=PCMU),
    )
    session.feed(bytes(160), ev.Consent(True), bytes(160))
    service.close(session.session_id)
    await wait_until_written(service)
    (folder,) = list_recordings(tmp_path)
    header = Recording(folder).header
    assert not header.from_start
    assert (header.setup.options.input, header.setup.options.output) == (PCMU, PCMU)
