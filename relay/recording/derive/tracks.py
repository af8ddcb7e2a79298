"""What is made of a recording: both sides as FLAC on one clock, their outline for the viewer, and a transcript."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson
import soundfile
from numpy.typing import NDArray

from audio.formats import AudioFormat
from audio.transcode import decode
from relay.escaping import escape_controls, escape_json
from relay.recording.derive.timeline import Timeline
from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.derive.track_layout import Track
from relay.recording.store.layout import (
    ASSISTANT_TRACK_FILE,
    CLIENT_AUDIO_FILE,
    JOURNAL_FILE,
    PEAKS_FILE,
    TIMELINE_FILE,
    TRANSCRIPT_FILE,
    USER_TRACK_FILE,
    RecordingError,
    atomic_private_file,
    open_file,
    write_private,
)
from relay.recording.store.reader import Recording

PEAKS_PER_S = 50
MAX_TRACK_S = 7 * 86_400
"""A longer silence would fill the disk: times in a journal that was damaged may be anything."""
_BLOCK_SAMPLES = 1 << 16

Samples = NDArray[np.int16]


def write_derived_files(folder: Path) -> Timeline:
    """Make all derived files of a recording. Raises RecordingError, or OSError where they can't be written."""
    with tempfile.TemporaryFile(dir=folder) as heard, ExitStack() as stack:
        found = build_timeline(Recording(folder), heard)
        heard.flush()
        seconds = found.timeline.duration_ms / 1000
        if seconds > MAX_TRACK_S:
            raise RecordingError(
                f"{folder / JOURNAL_FILE}: it lasts {seconds:.0f} s; tracks are made of at most {MAX_TRACK_S}"
            )
        client = stack.enter_context(open_file(folder, CLIENT_AUDIO_FILE)) if found.user.segments else None
        user = _write_track(folder / USER_TRACK_FILE, found.user, client, seconds)
        assistant = _write_track(folder / ASSISTANT_TRACK_FILE, found.assistant, heard, seconds)
        write_private(folder / PEAKS_FILE, user + assistant)
        write_private(folder / TRANSCRIPT_FILE, transcript(found.timeline).encode(errors="replace"))
        outline = {"per_second": PEAKS_PER_S, "user": len(user) // 2, "assistant": len(assistant) // 2}
        told = asdict(found.timeline) | {"format": 1, "peaks": outline}
        outline_json = escape_json(orjson.dumps(told, default=str).decode())
        write_private(folder / TIMELINE_FILE, outline_json.encode())  # last: where it is, the others are
    return found.timeline


def _write_track(path: Path, runs: Track, source: BinaryIO | None, seconds: float) -> bytes:
    """Write one side as FLAC; returns its outline: for every fiftieth of a second the least and the greatest sample."""
    outline = _Outline(runs.audio_format.rate_hz // PEAKS_PER_S)
    with (
        atomic_private_file(path) as handle,
        soundfile.SoundFile(handle, "w", runs.audio_format.rate_hz, 1, "PCM_16", format="FLAC") as file,
    ):
        for samples in _samples(runs, source, round(seconds * runs.audio_format.rate_hz)):
            file.write(samples)
            outline.add(samples)
    return outline.finish()


def _samples(runs: Track, source: BinaryIO | None, total: int) -> Iterator[Samples]:
    """The whole side in blocks: its runs where they belong, silence elsewhere."""
    sound, at = runs.audio_format, 0
    for run in runs.segments:
        start = max(round(run.start_s * sound.rate_hz), at)
        yield from _silence(start - at)
        at = start
        for block in _read(sound, source, run.offset, run.n_bytes):
            at += len(block)
            yield block
    yield from _silence(total - at)


def _silence(n_samples: int) -> Iterator[Samples]:
    for start in range(0, n_samples, _BLOCK_SAMPLES):
        yield np.zeros(min(_BLOCK_SAMPLES, n_samples - start), np.int16)


def _read(sound: AudioFormat, source: BinaryIO | None, offset: int, n_bytes: int) -> Iterator[Samples]:
    if source is None:
        return
    source.seek(offset)
    while n_bytes > 0:
        raw = source.read(min(n_bytes, _BLOCK_SAMPLES * sound.bytes_per_sample))
        if not raw:
            return
        n_bytes -= len(raw)
        yield np.frombuffer(decode(raw, sound), "<i2")


class _Outline:
    def __init__(self, step: int) -> None:
        self._step = step
        self._rest: Samples = np.zeros(0, np.int16)
        self._parts: list[bytes] = []

    def add(self, samples: Samples) -> None:
        samples = np.concatenate((self._rest, samples))
        whole = len(samples) // self._step * self._step
        self._rest = samples[whole:]
        if whole:
            rows = samples[:whole].reshape(-1, self._step)
            # Eight bits are more than a screen shows; rounding away from zero keeps quiet sound visible.
            both = np.stack((rows.min(axis=1) // 256, -(-rows.max(axis=1).astype(np.int32) // 256)), axis=1)
            self._parts.append(np.clip(both, -128, 127).astype(np.int8).tobytes())

    def finish(self) -> bytes:
        if len(self._rest):
            self.add(np.zeros(self._step - len(self._rest), np.int16))
        return b"".join(self._parts)


MIN_CUE_MS = 500.0


def transcript(timeline: Timeline) -> str:
    """The conversation as WebVTT (https://www.w3.org/TR/webvtt1/): one cue for each turn."""
    cues = sorted(_cues(timeline), key=lambda cue: cue[0])
    parts = ["WEBVTT", f"NOTE\nSession {_text(timeline.session_id)}, {timeline.started}"]
    parts += [
        f"{number}\n{_time(start)} --> {_time(max(end, start + MIN_CUE_MS))}\n<v {who}>{_text(text)}"
        for number, (start, end, who, text) in enumerate(cues, 1)
    ]
    return "\n\n".join(parts) + "\n"


def _cues(timeline: Timeline) -> Iterator[tuple[float, float, str, str]]:
    for speech in timeline.speech:
        if speech.text.strip():
            end_ms = speech.start_ms if speech.end_ms is None else speech.end_ms
            yield speech.start_ms, end_ms, "User", speech.text
    for item in timeline.heard:
        text = item.text if item.heard_text is None else item.heard_text
        if text.strip():
            yield item.start_ms, item.end_ms, "Assistant", text + ("" if item.heard_text is None else " —")


def _time(ms: float) -> str:
    whole = round(ms)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}.{whole % 1000:03}"


def _text(text: str) -> str:
    # A blank line or an arrow would end the cue; a control character would reach whoever reads the file in a terminal.
    text = escape_controls(" ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
