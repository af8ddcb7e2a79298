"""Long events in a recording: searched for credentials when the session is over, so that no other session waits."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from relay.recording.format.write import (
    MAX_LIVE_REDACTED_BYTES,
    event_line,
    event_object,
    is_unredacted,
    live_line,
    redact_deferred,
    redacted_line,
)
from relay.recording.postprocess import finalize
from relay.recording.replay.verify import verify
from relay.recording.store.layout import JOURNAL_FILE, list_recordings
from relay.recording.store.reader import Recording, decode_line
from relay.session.device.events import TextDelta
from relay.session.realtime.events import ForwardToClient, RealtimeClientEvent, RealtimeServerEvent, SendToUpstream
from tests.recording.test_realtime import append, talking
from tests.support.scripted_recordings import tone

CREDENTIAL = "sk-abcdefgh12345678"
PROSE = "some words, and more of them. " * 500
LONG = f"{PROSE}{CREDENTIAL} {PROSE}"
ITEM = {"type": "conversation.item.create", "item": {"type": "message", "content": [{"text": LONG}]}}
DONE = {"type": "response.done", "response": {"output": [{"content": [{"text": LONG}]}]}}


@pytest.mark.parametrize(
    ("event", "commands"),
    [
        (RealtimeClientEvent(ITEM), (SendToUpstream(ITEM),)),
        (RealtimeClientEvent(ITEM), (SendToUpstream({**ITEM, "event_id": "relay_1"}),)),
        (
            RealtimeClientEvent({**append(tone(400)), "note": LONG}),
            (SendToUpstream({**append(tone(400)), "note": LONG}),),
        ),
        (RealtimeServerEvent(json.dumps(DONE).encode(), DONE), (ForwardToClient(json.dumps(DONE).encode()),)),
        (RealtimeServerEvent(json.dumps(DONE).encode(), DONE), ()),
        (RealtimeServerEvent(b'{"type":"x"}', {"type": "x"}), (ForwardToClient(json.dumps(DONE).encode()),)),
        (RealtimeServerEvent(b"no JSON " + LONG.encode(), {}), None),
    ],
    ids=["said", "said, and changed", "audio", "told", "told to nobody", "kept back", "no JSON"],
)
def test_a_long_line_that_is_redacted_later_is_the_one_that_is_cleaned_at_once(event: Any, commands: Any) -> None:
    line, samples = event_object(event, 1.5, commands, "ValueError: x")
    deferred, redacted = live_line(line), redacted_line(line)
    assert is_unredacted(deferred)
    assert redact_deferred(deferred) == redacted
    assert samples == (tone(400) if b"audio_buffer" in redacted else b"")
    assert decode_line(deferred, 2) == decode_line(redacted, 2)
    assert CREDENTIAL.encode() not in redacted


def test_a_long_line_of_a_devices_session_too() -> None:
    event = TextDelta("resp_1", "item_1", 0, LONG, True)
    quick = live_line(event_object(event, 1.5, ())[0])
    assert redact_deferred(quick) == event_line(event, 1.5, ())


def test_a_short_line_is_cleaned_at_once() -> None:
    event = TextDelta("resp_1", "item_1", 0, CREDENTIAL, True)
    assert live_line(event_object(event, 1.5, ())[0]) == event_line(event, 1.5, ())
    assert len(event_line(event, 1.5, ())) < MAX_LIVE_REDACTED_BYTES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of long events that is not finalized."""
    root = tmp_path_factory.mktemp("long")

    async def record() -> None:
        async with talking(root) as (client, session):
            await client.send(type="session.update", session={"type": "realtime", "instructions": LONG})
            await session.expect("session.update")
            await session.emit({"type": "session.updated", "session": {"type": "realtime", "instructions": LONG}})
            await client.send(type="conversation.item.create", item={
                "type": "message", "role": "user", "content": [{"type": "input_text", "text": LONG}]})  # fmt: skip
            await session.expect("conversation.item.create")
            await client.send(**append(tone(2000)))
            await session.expect_audio(len(tone(2000)))
            await session.emit({"type": "conversation.item.retrieved", "event_id": "e", "item": {
                "id": "i", "type": "message", "content": [append(tone(2000)), {"text": LONG}]}})  # fmt: skip
            await client.expect("conversation.item.retrieved")

    asyncio.run(record())
    (folder,) = list_recordings(root)
    return folder


def test_before_it_is_finished_a_recording_can_be_read_and_shows_no_credential(folder: Path) -> None:
    entries = list(Recording(folder).entries())
    assert LONG[:1000] in str(entries)
    assert CREDENTIAL not in str(entries)
    assert verify(Recording(folder)).is_identical


def test_a_finished_recording_holds_no_credential_and_runs_as_before(folder: Path) -> None:
    before = [entry.record for entry in Recording(folder).entries()]
    finalize(folder, force=True)
    raw = (folder / JOURNAL_FILE).read_bytes()
    assert not any(map(is_unredacted, raw.splitlines()))
    assert CREDENTIAL.encode() not in raw
    assert (folder / JOURNAL_FILE).stat().st_mode & 0o777 == 0o600
    assert [entry.record for entry in Recording(folder).entries()] == before
    assert verify(Recording(folder)).is_identical
    assert not list(folder.glob(".*")), "nothing is left over"
