"""Recordings of an external TTS voice: audio, text and alignment are stored, replayed, exported and redacted."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio.formats import AudioFormat
from relay.recording.derive.ascii_timeline import render
from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.format.records import TtsAudioRecord
from relay.recording.postprocess import finalize
from relay.recording.redact.bundle import write_bundle
from relay.recording.redact.rules import parse_redaction
from relay.recording.replay.verify import verify
from relay.recording.store.reader import Recording
from relay.session.common.media_types import TtsAudioDelta
from relay.session.common.model import DeviceOptions
from tests.support.scripted_recordings import make_recording, tts_audio, tts_conversation

FIRST, SECOND = tts_audio("One two three four. ", 2000), tts_audio("Call 030 1234567. ", 1800)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_recording(tmp_path, tts_conversation(), voice_id="voice-1")


def test_the_voice_stands_in_a_file_of_its_own_and_runs_identically(folder: Path) -> None:
    assert (folder / "voice.pcm").stat().st_size == len(FIRST.samples) + len(SECOND.samples)
    assert not (folder / "upstream.pcm").exists(), "the model did not speak"
    outcome = verify(Recording(folder))
    assert outcome.difference is None
    assert outcome.sent_bytes == len(FIRST.samples) + len(SECOND.samples)


def spoken(folder: Path) -> list[TtsAudioDelta]:
    return [
        TtsAudioDelta(entry.record.context_id, bytes(entry.samples), entry.record.alignment)
        for entry in Recording(folder).entries()
        if isinstance(entry.record, TtsAudioRecord)
    ]


def test_the_voice_comes_back_as_it_was(folder: Path) -> None:
    assert spoken(folder) == [FIRST, SECOND]


def test_one_other_sample_of_the_voice_is_found(folder: Path) -> None:
    with (folder / "voice.pcm").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x55\x55")
    difference = verify(Recording(folder)).difference
    assert difference is not None
    assert difference.time_s == 5001.8


def test_a_client_of_another_rate_is_sent_the_same_again(tmp_path: Path) -> None:
    wide = AudioFormat("pcm16", 48_000)
    folder = make_recording(
        tmp_path, _at_24k(), voice_id="voice-1", options=DeviceOptions(AudioFormat("pcm16", 16_000), wide)
    )
    assert (folder / "sent.pcm").stat().st_size > 3000 * wide.bytes_per_ms
    assert verify(Recording(folder)).difference is None


def _at_24k() -> list:  # the voice has no 48 kHz: it is asked for 24
    texts = {FIRST: ("One two three four. ", 2000), SECOND: ("Call 030 1234567. ", 1800)}
    return [
        (at, tts_audio(*texts[event], rate_hz=24_000) if event in texts else event) for at, event in tts_conversation()
    ]


def test_show_says_who_spoke_what_was_heard_and_whose_delay_it_was(folder: Path) -> None:
    text = "\n".join(render(build_timeline(Recording(folder)).timeline, 100))
    assert " · elevenlabs:voice-1" in text
    assert "One two ✂ after 1.0 s; unheard: three four. Call 030 1234567." in text
    assert "first text from the model +300 ms, first audio from the voice +100 ms" in text
    assert "(the model: p50 300 ms, p95 300 ms; the voice: p50 100 ms, p95 100 ms" in text


def test_the_heard_track_holds_the_voice_as_far_as_it_was_heard(folder: Path) -> None:
    finalize(folder)
    samples, rate = soundfile.read(folder / "assistant.flac", dtype="int16")
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 500)
    assert rate == 16_000
    assert 990 <= (loud[-1] - loud[0]) / 16 <= 1010, "ms, from its first sound to the barge-in"


def test_a_voice_that_is_not_whole_on_the_disk_is_cut_off(folder: Path) -> None:
    with (folder / "voice.pcm").open("r+b") as file:
        file.truncate(len(FIRST.samples) + 10)
    repaired = finalize(folder)
    assert repaired.torn_lines > 1
    assert verify(Recording(folder)).difference is None
    assert spoken(folder) == [FIRST]


def bundled(folder: Path, tmp_path: Path, *spans: str) -> Path:
    write_bundle(folder, tmp_path / "bundle.zip", parse_redaction((), (), spans))
    zipfile.ZipFile(tmp_path / "bundle.zip").extractall(tmp_path / "opened")
    return tmp_path / "opened" / folder.name


def test_what_a_pattern_takes_out_of_the_words_the_times_do_not_spell(folder: Path, tmp_path: Path) -> None:
    copy = bundled(folder, tmp_path)
    journal = (copy / "journal.jsonl").read_text()
    assert "1234567" not in journal
    assert '"chars"' not in journal
    assert (copy / "voice.pcm").read_bytes() == (folder / "voice.pcm").read_bytes()
    assert verify(Recording(copy)).difference is None


def test_a_silenced_span_takes_the_voice_with_it(folder: Path, tmp_path: Path) -> None:
    copy = bundled(folder, tmp_path, "2-2.5")
    assert not any((copy / "voice.pcm").read_bytes())
    journal = (copy / "journal.jsonl").read_text()
    assert "One two" not in journal
    assert '"chars"' not in journal
    assert verify(Recording(copy)).difference is None


def test_where_nothing_is_to_be_taken_out_the_times_stay(tmp_path: Path) -> None:
    events = [(at, event) for at, event in tts_conversation() if "1234567" not in str(event) and event != SECOND]
    copy = bundled(make_recording(tmp_path, events, voice_id="voice-1"), tmp_path)
    assert (copy / "journal.jsonl").read_text().count('"chars"') == 1
