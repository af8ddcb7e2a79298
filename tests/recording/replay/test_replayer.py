"""A journal through the rules again: the same, and where it is not, the line and what led to it."""

from dataclasses import replace

import pytest

from relay.protocols.openai.proxy import FrontCodec
from relay.recording.format.lines import Frame, Happened, InputAudio, OutputAudio, Sent, SpeechAudio
from relay.recording.format.write import event_line, output_frame_line
from relay.recording.replay.replayer import Difference, Replayer
from relay.recording.store.header import Beginning, RealtimeStart
from relay.recording.store.reader import Entry, read_line
from relay.session.common.media_types import AudioDelta, RawDelta
from relay.session.common.model import Alignment, DeviceOptions, SessionConfig, TtsOptions
from relay.session.common.policy import Principal
from relay.session.device import events as ev
from relay.session.device import turn_metrics
from relay.session.device.lifecycle import Lifecycle
from relay.session.device.session import DeviceSession
from relay.session.device.turns import TurnController
from relay.session.realtime.events import PassDown, UpstreamSaid
from tests.support.scripted_recordings import (
    SIXTEEN,
    T0,
    Event,
    ScriptedRecording,
    conversation,
    microphone,
    voiced_conversation,
)

BEGINNING = Beginning("rs_1", SessionConfig(), DeviceOptions(SIXTEEN, SIXTEEN), Principal(), T0)
VOICED = Beginning(
    "rs_1", SessionConfig(voice="elevenlabs:v"), DeviceOptions(SIXTEEN, SIXTEEN, has_external_voice=True), Principal(),
    T0, TtsOptions(),
)  # fmt: skip


def journal(events: list[Event], beginning: Beginning = BEGINNING) -> list[Entry]:
    recording = ScriptedRecording(beginning)
    for after_s, happening in events:
        recording.add(happening, T0 + after_s)
    lines = [line for raw in bytes(recording.journal).splitlines() for line in read_line(raw, 2)]
    return [Entry(number, line) for number, line in enumerate((one for one in lines if not isinstance(one, Sent)), 1)]


def first_difference(beginning: Beginning, entries: list[Entry]) -> Difference | None:
    replayer = Replayer(beginning)
    return next(filter(None, map(replayer.step, entries)), None)


def test_the_same_rules_do_the_same() -> None:
    assert first_difference(BEGINNING, journal(conversation())) is None
    assert first_difference(VOICED, journal(voiced_conversation(), VOICED)) is None


def test_another_rule_is_found_with_the_lines_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = journal(conversation())
    # Then the deadline reports what the acknowledgement reported before.
    monkeypatch.setattr(turn_metrics, "ACK_WAIT_S", 0.1)
    monkeypatch.setattr(TurnController, "acknowledge_playback", lambda *_: "ok")
    found = first_difference(BEGINNING, entries)
    assert isinstance(found, Difference)
    assert "playback" in found.what
    assert any("send_latency" in str(one) for one in found.recorded)
    assert not any("send_latency" in str(one) for one in found.today)
    assert [near.number for near in found.before] == [found.number - 3, found.number - 2, found.number - 1]


def test_a_recording_that_lacks_a_later_figure_is_the_same() -> None:
    answer = [
        (3.8, ev.ResponseCreated("resp_2", "relay_4")),
        (3.8, ev.OutputAudioStarted("resp_2", "item_b", 0)),
        (3.85, ev.FirstAudioSent("item_b")),
        (4.9, ev.DeadlineReached()),
    ]
    entries = journal([*(event for event in conversation() if event[0] < 4), *answer])
    at, line = next((at, entry.line) for at, entry in enumerate(entries) if "barge_in_ms" in str(entry.line))
    assert isinstance(line, Happened)
    [reported] = line.do or ()

    def replayed(command: dict[str, object]) -> Difference | None:
        changed = replace(entries[at], line=replace(line, do=[command]))
        return first_difference(BEGINNING, [*entries[:at], changed, *entries[at + 1 :]])

    assert replayed(reported) is None
    assert replayed({name: value for name, value in reported.items() if name != "barge_in_ms"}) is None
    assert replayed(reported | {"barge_in_ms": 1}) is not None
    assert replayed({name: value for name, value in reported.items() if name != "first_byte_ms"}) is not None


def test_another_setting_is_a_difference_too() -> None:
    other = replace(BEGINNING, config=SessionConfig(voice="cedar"))
    found = first_difference(other, journal(conversation()))
    assert found is not None
    assert found.number == 2
    assert "cedar" in str(found.today)


def test_a_failure_of_ours_is_expected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    (failed,) = read_line(event_line(ev.DeadlineReached(), T0, None, "KeyError: 'x'"), 2)
    found = Replayer(BEGINNING).step(Entry(1, failed))
    assert found is not None
    assert "raised KeyError" in str(found.recorded[0])

    def fail(*_: object) -> None:
        raise KeyError("y")

    monkeypatch.setattr(Lifecycle, "tick", fail)
    assert Replayer(BEGINNING).step(Entry(1, failed)) is None
    found = Replayer(BEGINNING).step(Entry(1, Happened(T0, ev.DeadlineReached())))
    assert found is not None
    assert "raised KeyError" in str(found.today[0])


def with_discarded(entries: list[Entry], kind: type[OutputAudio | SpeechAudio]) -> tuple[list[Entry], int]:
    """The same journal, but for one piece of audio that went no further, and its number."""
    at = next(place for place, entry in enumerate(entries) if isinstance(entry.line, kind))
    line = entries[at].line
    assert isinstance(line, OutputAudio | SpeechAudio)
    return [*entries[:at], replace(entries[at], line=replace(line, discarded=True)), *entries[at + 1 :]], at + 1


def test_audio_that_was_discarded_and_is_not_today_is_a_difference() -> None:
    entries, number = with_discarded(journal(conversation()), OutputAudio)
    found = first_difference(BEGINNING, entries)
    assert found is not None
    assert (found.number, found.what) == (number, "audio of item_a, 48000 bytes")
    assert (found.recorded, found.today) == (["the audio is discarded"], ["the audio goes on"])
    entries, number = with_discarded(journal(voiced_conversation(), VOICED), SpeechAudio)
    found = first_difference(VOICED, entries)
    assert found is not None
    assert (found.number, found.what) == (number, "audio of the voice's relay_3, 64000 bytes")


def test_a_rule_that_lets_given_up_audio_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    late = (3.2, next(happening for _, happening in conversation() if isinstance(happening, AudioDelta)))
    entries = journal(sorted([*conversation(), late], key=lambda event: event[0]))  # after the barge-in
    assert [entry.line.discarded for entry in entries if isinstance(entry.line, OutputAudio)] == [False, False, True]
    assert first_difference(BEGINNING, entries) is None
    monkeypatch.setattr(DeviceSession, "discarded_responses", ())
    monkeypatch.setattr(DeviceSession, "started_parts", {("item_a", 0)})
    found = first_difference(BEGINNING, entries)
    assert found is not None
    assert (found.recorded, found.today) == (["the audio is discarded"], ["the audio goes on"])


def test_audio_that_waited_too_long_is_dropped_again() -> None:
    greeting: list[Event] = [(12.1, ev.UpstreamOpened()), (12.2, ev.SessionCreated()), (12.3, ev.SessionUpdated())]
    entries = journal([*((n / 10, microphone(100)) for n in range(120)), *greeting, (12.4, microphone(100))])
    replayer = Replayer(BEGINNING)
    assert not any(map(replayer.step, entries))
    assert replayer.session.ledger.input_bytes == sum(
        entry.line.n_bytes for entry in entries if isinstance(entry.line, InputAudio)
    )
    assert replayer.session.ledger.dropped_input_bytes == 2000 * 32
    assert "2000 ms" in str([entry.line for entry in entries])  # which the client is told


def test_deltas_of_a_realtime_session_are_counted_and_not_given_to_the_rules() -> None:
    replayer = Replayer(replace(BEGINNING, realtime=RealtimeStart()))
    frame = Frame('{"type":"response.output_audio.delta","delta":"', '"}')
    assert replayer.step(Entry(1, OutputAudio(T0 + 1, 4800, frame=frame), bytes(4800))) is None
    assert (replayer.session.ledger.output_bytes, replayer.session.ledger.last_output_at) == (4800, T0 + 1)
    text = UpstreamSaid(b'{"type":"response.output_audio_transcript.delta","delta":"Hi."}', {})
    assert replayer.step(Entry(2, Happened(T0 + 2, text, ("=",)))) is None
    assert (replayer.session.ledger.output_bytes, replayer.session.ledger.last_output_at) == (4800, T0 + 2)
    assert replayer.commands == (PassDown(text.raw),)


@pytest.mark.parametrize("delta", ['"QUFB\\/w=="', '"no base64"'])
def test_a_delta_whose_audio_could_not_be_cut_out_counts_as_it_did(delta: str) -> None:
    raw = b'{"type":"response.output_audio.delta","item_id":"item_1","delta":%b}' % delta.encode()
    (frame,) = FrontCodec().decode_upstream(raw)
    assert isinstance(frame, RawDelta)
    line, samples = output_frame_line(1.0, frame)
    assert not samples
    replayer = Replayer(Beginning.of_realtime("rs_1", (), RealtimeStart(), Principal(), 0.0))
    assert replayer.step(Entry(1, *read_line(line, 2))) is None
    assert replayer.session.ledger.output_bytes == frame.n_bytes > 0


def test_speech_at_which_our_rules_raise_is_a_difference() -> None:
    entries = journal(voiced_conversation(), VOICED)
    index = next(index for index, entry in enumerate(entries) if isinstance(entry.line, SpeechAudio))
    line = entries[index].line
    assert isinstance(line, SpeechAudio)
    entries[index] = replace(entries[index], line=replace(line, alignment=Alignment(("O",), (2**63,), (1,))))
    found = first_difference(VOICED, entries)
    assert found is not None
    assert found.number == entries[index].number
    assert "raised OverflowError" in found.today[0]
