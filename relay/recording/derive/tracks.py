"""Write the derived files: both tracks as FLAC, their waveform for the viewer, timeline and transcript."""

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
from relay.escaping import escape_json
from relay.recording.derive.timeline import Timeline
from relay.recording.derive.timeline_builder import build_timeline
from relay.recording.derive.track_layout import Track
from relay.recording.derive.webvtt import render_webvtt
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
"""The limit of a track: the times in a damaged journal could otherwise fill the disk with silence."""
_BLOCK_SAMPLES = 1 << 16

Samples = NDArray[np.int16]


def write_derived_files(folder: Path) -> Timeline:
    """Write all derived files of a recording. Raises RecordingError, OSError."""
    with tempfile.TemporaryFile(dir=folder) as playout_file, ExitStack() as stack:
        result = build_timeline(Recording(folder), playout_file)
        playout_file.flush()
        seconds = result.timeline.duration_ms / 1000
        if seconds > MAX_TRACK_S:
            raise RecordingError(
                f"{folder / JOURNAL_FILE}: the recording lasts {seconds:.0f} s; a track has at most {MAX_TRACK_S} s"
            )
        client = stack.enter_context(open_file(folder, CLIENT_AUDIO_FILE)) if result.user.segments else None
        user = _write_track(folder / USER_TRACK_FILE, result.user, client, seconds)
        assistant = _write_track(folder / ASSISTANT_TRACK_FILE, result.assistant, playout_file, seconds)
        write_private(folder / PEAKS_FILE, user + assistant)
        write_private(folder / TRANSCRIPT_FILE, render_webvtt(result.timeline).encode(errors="replace"))
        peaks = {"per_second": PEAKS_PER_S, "user": len(user) // 2, "assistant": len(assistant) // 2}
        timeline = asdict(result.timeline) | {"format": 1, "peaks": peaks}
        timeline_json = escape_json(orjson.dumps(timeline, default=str).decode())
        write_private(folder / TIMELINE_FILE, timeline_json.encode())  # last: if it exists, so do the others
    return result.timeline


def _write_track(path: Path, track: Track, source: BinaryIO | None, duration_s: float) -> bytes:
    """Write a track as FLAC. Returns its peaks: minimum and maximum of each fiftieth of a second."""
    peaks = _Peaks(track.audio_format.rate_hz // PEAKS_PER_S)
    with (
        atomic_private_file(path) as handle,
        soundfile.SoundFile(handle, "w", track.audio_format.rate_hz, 1, "PCM_16", format="FLAC") as file,
    ):
        for samples in _read_samples(track, source, round(duration_s * track.audio_format.rate_hz)):
            file.write(samples)
            peaks.add(samples)
    return peaks.finish()


def _read_samples(track: Track, source: BinaryIO | None, n_samples: int) -> Iterator[Samples]:
    """Yield the samples of a track in blocks: its segments, and silence between them."""
    audio_format, at = track.audio_format, 0
    for segment in track.segments:
        start = max(round(segment.start_s * audio_format.rate_hz), at)
        yield from _silence_blocks(start - at)
        at = start
        for block in _read(audio_format, source, segment.offset, segment.n_bytes):
            at += len(block)
            yield block
    yield from _silence_blocks(n_samples - at)


def _silence_blocks(n_samples: int) -> Iterator[Samples]:
    for start in range(0, n_samples, _BLOCK_SAMPLES):
        yield np.zeros(min(_BLOCK_SAMPLES, n_samples - start), np.int16)


def _read(audio_format: AudioFormat, source: BinaryIO | None, offset: int, n_bytes: int) -> Iterator[Samples]:
    if source is None:
        return
    source.seek(offset)
    while n_bytes > 0:
        raw = source.read(min(n_bytes, _BLOCK_SAMPLES * audio_format.bytes_per_sample))
        if not raw:
            return
        n_bytes -= len(raw)
        yield np.frombuffer(decode(raw, audio_format), "<i2")


class _Peaks:
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
            # Eight bits are enough for a screen; rounding away from zero keeps quiet audio visible.
            both = np.stack((rows.min(axis=1) // 256, -(-rows.max(axis=1).astype(np.int32) // 256)), axis=1)
            self._parts.append(np.clip(both, -128, 127).astype(np.int8).tobytes())

    def finish(self) -> bytes:
        if len(self._rest):
            self.add(np.zeros(self._step - len(self._rest), np.int16))
        return b"".join(self._parts)
