"""A journal through the rules again: the same, and where it is not, the line and what led to it."""

from dataclasses import replace

import pytest

from relay.protocols.openai.proxy import ProxyCodec
from relay.recording.format.records import (
    AudioEnvelope,
    EventRecord,
    InputAudioRecord,
    OutputAudioRecord,
    SentAudioRecord,
    TtsAudioRecord,
)
from relay.recording.format.write import event_line, output_event_line
from relay.recording.replay.replayer import Difference, Replayer
from relay.recording.store.header import RealtimeSetup, SessionSetup
from relay.recording.store.reader import JournalEntry, decode_line
from relay.session.common.media_types import AudioDelta, RawDelta
from relay.session.common.model import Alignment, DeviceOptions, SessionConfig, TtsOptions
from relay.session.common.policy import Principal
from relay.session.device import events as ev
from relay.session.device import turn_metrics
from relay.session.device.lifecycle import Lifecycle
from relay.session.device.session import DeviceSession
from relay.session.device.turns import TurnController
from relay.session.realtime.events import ForwardToClient, RealtimeServerEvent
from tests.support.scripted_recordings import (
    PCM16_16K,
    STARTED_AT_S,
    ScriptedRecording,
    TimedInput,
    conversation,
    microphone_audio,
    tts_conversation,
)

BEGINNING = SessionSetup("rs_1", SessionConfig(), DeviceOptions(PCM16_16K, PCM16_16K), Principal(), STARTED_AT_S)
VOICED = SessionSetup(
    "rs_1",
    SessionConfig(voice="elevenlabs:v"),
    DeviceOptions(PCM16_16K, PCM16_16K, has_external_voice=True),
    Principal(),
    STARTED_AT_S,
    TtsOptions(),
)


def journal(events: list[TimedInput], setup: SessionSetup = BEGINNING) -> list[JournalEntry]:
    recording = ScriptedRecording(setup)
    for after_s, happening in events:
        recording.add(happening, STARTED_AT_S + after_s)
    lines = [line for raw in bytes(recording.journal).splitlines() for line in decode_line(raw, 2)]
    return [
        JournalEntry(number, line)
        for number, line in enumerate((record for record in lines if not isinstance(record, SentAudioRecord)), 1)
    ]


def first_difference(setup: SessionSetup, entries: list[JournalEntry]) -> Difference | None:
    replayer = Replayer(setup)
    return next(filter(None, map(replayer.step, entries)), None)


def test_the_same_rules_do_the_same() -> None:
    assert first_difference(BEGINNING, journal(conversation())) is None
    assert first_difference(VOICED, journal(tts_conversation(), VOICED)) is None


def test_another_rule_is_found_with_the_lines_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = journal(conversation())
    # Then the deadline reports what the acknowledgement reported before.
    monkeypatch.setattr(turn_metrics, "ACK_WAIT_S", 0.1)
    monkeypatch.setattr(TurnController, "acknowledge_playback", lambda *_: "ok")
    difference = first_difference(BEGINNING, entries)
    assert isinstance(difference, Difference)
    assert "playback" in difference.description
    assert any("send_latency" in str(command) for command in difference.recorded)
    assert not any("send_latency" in str(command) for command in difference.replayed)
    assert [near.number for near in difference.preceding] == [
        difference.number - 3,
        difference.number - 2,
        difference.number - 1,
    ]


def test_a_recording_that_lacks_a_later_figure_is_the_same() -> None:
    answer = [
        (3.8, ev.ResponseCreated("resp_2", "relay_4")),
        (3.8, ev.OutputAudioStarted("resp_2", "item_b", 0)),
        (3.85, ev.FirstAudioSent("item_b")),
        (4.9, ev.DeadlineReached()),
    ]
    entries = journal([*(event for event in conversation() if event[0] < 4), *answer])
    at, line = next((at, entry.record) for at, entry in enumerate(entries) if "barge_in_ms" in str(entry.record))
    assert isinstance(line, EventRecord)
    [reported] = line.stored_commands or ()

    def replayed(command: dict[str, object]) -> Difference | None:
        changed = replace(entries[at], record=replace(line, stored_commands=[command]))
        return first_difference(BEGINNING, [*entries[:at], changed, *entries[at + 1 :]])

    assert replayed(reported) is None
    assert replayed({name: value for name, value in reported.items() if name != "barge_in_ms"}) is None
    assert replayed(reported | {"barge_in_ms": 1}) is not None
    assert replayed({name: value for name, value in reported.items() if name != "first_byte_ms"}) is not None


def test_another_setting_is_a_difference_too() -> None:
    changed_setup = replace(BEGINNING, config=SessionConfig(voice="cedar"))
    difference = first_difference(changed_setup, journal(conversation()))
    assert difference is not None
    assert difference.number == 2
    assert "cedar" in str(difference.replayed)


def test_a_failure_of_ours_is_expected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    (failed,) = decode_line(event_line(ev.DeadlineReached(), STARTED_AT_S, None, "KeyError: 'x'"), 2)
    difference = Replayer(BEGINNING).step(JournalEntry(1, failed))
    assert difference is not None
    assert "raised KeyError" in str(difference.recorded[0])

    def fail(*_: object) -> None:
        raise KeyError("y")

    monkeypatch.setattr(Lifecycle, "tick", fail)
    assert Replayer(BEGINNING).step(JournalEntry(1, failed)) is None
    difference = Replayer(BEGINNING).step(JournalEntry(1, EventRecord(STARTED_AT_S, ev.DeadlineReached())))
    assert difference is not None
    assert "raised KeyError" in str(difference.replayed[0])


def with_discarded(
    entries: list[JournalEntry], kind: type[OutputAudioRecord | TtsAudioRecord]
) -> tuple[list[JournalEntry], int]:
    """The same journal with one discarded audio record, and its number."""
    at = next(place for place, entry in enumerate(entries) if isinstance(entry.record, kind))
    line = entries[at].record
    assert isinstance(line, OutputAudioRecord | TtsAudioRecord)
    return [*entries[:at], replace(entries[at], record=replace(line, discarded=True)), *entries[at + 1 :]], at + 1


def test_audio_that_was_discarded_and_is_not_today_is_a_difference() -> None:
    entries, number = with_discarded(journal(conversation()), OutputAudioRecord)
    difference = first_difference(BEGINNING, entries)
    assert difference is not None
    assert (difference.number, difference.description) == (number, "audio of item_a, 48000 bytes")
    assert (difference.recorded, difference.replayed) == (["the audio is discarded"], ["the audio is accepted"])
    entries, number = with_discarded(journal(tts_conversation(), VOICED), TtsAudioRecord)
    difference = first_difference(VOICED, entries)
    assert difference is not None
    assert (difference.number, difference.description) == (number, "TTS audio of relay_3, 64000 bytes")


def test_a_rule_that_lets_given_up_audio_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    late = (3.2, next(happening for _, happening in conversation() if isinstance(happening, AudioDelta)))
    entries = journal(sorted([*conversation(), late], key=lambda event: event[0]))  # after the barge-in
    assert [entry.record.discarded for entry in entries if isinstance(entry.record, OutputAudioRecord)] == [
        False,
        False,
        True,
    ]
    assert first_difference(BEGINNING, entries) is None
    monkeypatch.setattr(DeviceSession, "discarded_responses", ())
    monkeypatch.setattr(DeviceSession, "started_parts", {("item_a", 0)})
    difference = first_difference(BEGINNING, entries)
    assert difference is not None
    assert (difference.recorded, difference.replayed) == (["the audio is discarded"], ["the audio is accepted"])


def test_audio_that_waited_too_long_is_dropped_again() -> None:
    greeting: list[TimedInput] = [(12.1, ev.UpstreamOpened()), (12.2, ev.SessionCreated()), (12.3, ev.SessionUpdated())]
    entries = journal(
        [*((n / 10, microphone_audio(100)) for n in range(120)), *greeting, (12.4, microphone_audio(100))]
    )
    replayer = Replayer(BEGINNING)
    assert not any(map(replayer.step, entries))
    assert replayer.session.ledger.input_bytes == sum(
        entry.record.n_bytes for entry in entries if isinstance(entry.record, InputAudioRecord)
    )
    assert replayer.session.ledger.dropped_input_bytes == 2000 * 32
    assert "2000 ms" in str([entry.record for entry in entries])  # which the client is told


def test_deltas_of_a_realtime_session_are_counted_and_not_given_to_the_rules() -> None:
    replayer = Replayer(replace(BEGINNING, realtime=RealtimeSetup()))
    frame = AudioEnvelope('{"type":"response.output_audio.delta","delta":"', '"}')
    assert (
        replayer.step(JournalEntry(1, OutputAudioRecord(STARTED_AT_S + 1, 4800, envelope=frame), bytes(4800))) is None
    )
    assert (replayer.session.ledger.output_bytes, replayer.session.ledger.last_output_at) == (4800, STARTED_AT_S + 1)
    text = RealtimeServerEvent(b'{"type":"response.output_audio_transcript.delta","delta":"Hi."}', {})
    assert replayer.step(JournalEntry(2, EventRecord(STARTED_AT_S + 2, text, ("=",)))) is None
    assert (replayer.session.ledger.output_bytes, replayer.session.ledger.last_output_at) == (4800, STARTED_AT_S + 2)
    assert replayer.commands == (ForwardToClient(text.raw),)


@pytest.mark.parametrize("delta", ['"QUFB\\/w=="', '"no base64"'])
def test_a_delta_whose_audio_could_not_be_cut_out_counts_as_it_did(delta: str) -> None:
    raw = b'{"type":"response.output_audio.delta","item_id":"item_1","delta":%b}' % delta.encode()
    (frame,) = ProxyCodec().decode_upstream(raw)
    assert isinstance(frame, RawDelta)
    line, samples = output_event_line(1.0, frame)
    assert not samples
    replayer = Replayer(SessionSetup.for_realtime("rs_1", (), RealtimeSetup(), Principal(), 0.0))
    assert replayer.step(JournalEntry(1, *decode_line(line, 2))) is None
    assert replayer.session.ledger.output_bytes == frame.n_bytes > 0


def test_speech_at_which_our_rules_raise_is_a_difference() -> None:
    entries = journal(tts_conversation(), VOICED)
    index = next(index for index, entry in enumerate(entries) if isinstance(entry.record, TtsAudioRecord))
    line = entries[index].record
    assert isinstance(line, TtsAudioRecord)
    entries[index] = replace(entries[index], record=replace(line, alignment=Alignment(("O",), (2**63,), (1,))))
    difference = first_difference(VOICED, entries)
    assert difference is not None
    assert difference.number == entries[index].number
    assert "raised OverflowError" in difference.replayed[0]
