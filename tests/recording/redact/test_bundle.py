"""Bundles for bug reports: redacted content is in none of the bytes, and the bundle replays identically."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.format.records import EventRecord
from relay.recording.redact.bundle import write_bundle
from relay.recording.redact.rules import parse_redaction
from relay.recording.replay.verify import verify
from relay.recording.store.layout import RecordingError
from relay.recording.store.reader import Recording
from relay.session.device import events as ev
from relay.session.tools.dispatcher import ToolDispatcher
from tests.support.format1 import make_format_1
from tests.support.scripted_recordings import conversation, make_recording, tts_conversation


def unpacked(archive: Path, to: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(to)
    return next(to.iterdir())


def test_addresses_fields_and_patterns_go_and_the_rest_runs_identically(tmp_path: Path) -> None:
    folder = make_recording(tmp_path / "recordings")
    report = write_bundle(folder, tmp_path / "b.zip", parse_redaction(["instructions"], ["(?i)noon"], []))
    copy = unpacked(tmp_path / "b.zip", tmp_path / "copy")
    everything = b"".join(path.read_bytes() for path in copy.iterdir())
    for secret in (b"ann@example.com", b"Be brief", b"noon", b"key-0123456789ab"):
        assert secret not in everything
    assert b"what time is it in Rome" in everything
    assert "  e-mail addresses: 1" in report
    assert "  field instructions: 1" in report
    assert verify(Recording(copy)).is_identical
    assert (copy / "upstream.pcm").read_bytes() == (folder / "upstream.pcm").read_bytes()
    assert oct((tmp_path / "b.zip").stat().st_mode & 0o777) == "0o600"


def test_what_matches_nothing_is_one_line_of_the_report(tmp_path: Path) -> None:
    redaction = parse_redaction(["nowhere"], ["never"], [])
    report = write_bundle(make_recording(tmp_path / "recordings"), tmp_path / "b.zip", redaction)
    assert [line for line in report if "nowhere" in line] == ["  field nowhere: no match"]
    assert [line for line in report if "pattern 1" in line] == ["  pattern 1: no match"]
    assert [line for line in report if ": 0" in line] == []


def test_a_silenced_span_takes_sound_and_words_of_what_was_said_in_it(tmp_path: Path) -> None:
    folder = make_recording(tmp_path / "recordings")
    write_bundle(folder, tmp_path / "b.zip", parse_redaction([], [], ["2.2-2.5"]))
    copy = unpacked(tmp_path / "b.zip", tmp_path / "copy")
    assert verify(Recording(copy)).is_identical
    assert not any((copy / "upstream.pcm").read_bytes())
    assert not any((copy / "sent.pcm").read_bytes())
    assert b"noon in Rome" not in (copy / "journal.jsonl").read_bytes()
    timeline = build_timeline(Recording(copy)).timeline
    assert [speech.text for speech in timeline.speech][1] == "stop"
    assert timeline.heard[0].text == "[…]"


def test_a_recording_that_differs_keeps_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_recording(tmp_path / "recordings")
    monkeypatch.setattr(ToolDispatcher, "finish", lambda *_: None)
    report = write_bundle(folder, tmp_path / "b.zip", parse_redaction([], [], []))
    copy = unpacked(tmp_path / "b.zip", tmp_path / "copy")
    assert "current rules return other commands" in report[-1]
    monkeypatch.undo()
    assert b"ann@example.com" not in (copy / "journal.jsonl").read_bytes()
    assert b"create_item" in (copy / "journal.jsonl").read_bytes()


def test_bad_wishes_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="--silence 'x'"):
        parse_redaction([], [], ["x"])
    with pytest.raises(RecordingError, match="not a valid regular expression"):
        parse_redaction([], ["("], [])
    (tmp_path / "b.zip").touch()
    with pytest.raises(RecordingError, match="already exists"):
        write_bundle(make_recording(tmp_path / "r"), tmp_path / "b.zip", parse_redaction([], [], []))


def test_what_comes_in_pieces_is_found_as_well(tmp_path: Path) -> None:
    def in_pieces() -> Iterator[tuple[float, ev.Event]]:
        for at, event in conversation():
            if isinstance(event, ev.TextDelta):
                for piece in ("Call 030 1", "23", "4567 or ann@exam", "ple.com", " at noon."):
                    yield at, event._replace(text=piece)
            else:
                yield at, event

    folder = make_recording(tmp_path / "recordings", in_pieces())
    write_bundle(folder, tmp_path / "b.zip", parse_redaction([], [], []))
    copy = unpacked(tmp_path / "b.zip", tmp_path / "copy")
    recording = Recording(copy)
    events = [entry.record.event for entry in recording.entries() if isinstance(entry.record, EventRecord)]
    deltas = [event.text for event in events if isinstance(event, ev.TextDelta)]
    assert deltas == ["Call […]", "", " or […]", "", " at noon."]
    assert b"4567" not in (copy / "journal.jsonl").read_bytes()
    assert verify(Recording(copy)).is_identical


def test_pieces_and_matches_that_overlap() -> None:
    redaction = parse_redaction([], ["b[^b]*d", "cde", "x*"], [])
    assert redaction.redact_split_text(["ab", "c", "", "defg", "bd"]) == ["a[…]", "", "", "fg", "[…]"]
    assert redaction.removed_counts["pattern 1"] == 2
    assert redaction.redact_split_text([]) == []


@pytest.mark.parametrize("voice_id", [None, "voice-1"])
def test_a_recording_of_format_1_is_shown_and_bundled_as_one_of_format_2(voice_id: str | None, tmp_path: Path) -> None:
    events = conversation() if voice_id is None else tts_conversation()
    ours = make_recording(tmp_path / "recordings", events, voice_id=voice_id)
    former = make_format_1(make_recording(tmp_path / "former", events, voice_id=voice_id))
    assert build_timeline(Recording(former)).timeline == build_timeline(Recording(ours)).timeline
    options = ["instructions"], ["(?i)noon"], ["2.2-2.5"]
    report = write_bundle(former, tmp_path / "f.zip", parse_redaction(*options))
    assert report == write_bundle(ours, tmp_path / "b.zip", parse_redaction(*options))
    copy, copy_of_former = unpacked(tmp_path / "b.zip", tmp_path / "b"), unpacked(tmp_path / "f.zip", tmp_path / "f")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in copy_of_former.iterdir()
    }


def test_a_recording_of_format_1_that_differs_keeps_its_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = make_format_1(make_recording(tmp_path / "recordings"))
    monkeypatch.setattr(ToolDispatcher, "finish", lambda *_: None)
    assert (
        "current rules return other commands at line"
        in write_bundle(former, tmp_path / "b.zip", parse_redaction([], [], []))[-1]
    )
    monkeypatch.undo()
    copy = unpacked(tmp_path / "b.zip", tmp_path / "copy")
    assert b"create_item" in (copy / "journal.jsonl").read_bytes()
    outcome = verify(Recording(copy))
    assert outcome.is_identical
    assert "its commands are not compared" in outcome.notes[-1]
