"""Audio files: any format libsndfile reads (WAV, FLAC, Ogg, MP3 …) to PCM16 mono, and PCM16 mono to WAV."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from audio.resample import resample

MAX_FILE_MS = 30 * 60_000
_BLOCK_FRAMES = 65536


class AudioFileError(ValueError):
    """A file cannot be read or written as audio; `str(error)` is a sentence that names the file and the reason."""


def read_audio(path: str | Path, rate_hz: int, max_ms: int = MAX_FILE_MS) -> bytes:
    """The whole file as PCM16 mono at `rate_hz` (8000, 16000, 24000 or 48000); channels are averaged.

    AudioFileError when it is missing, is no audio, holds no sound, or is longer than `max_ms` (30 minutes unless
    told otherwise: it is held in memory).
    """
    path = Path(path)
    try:
        # An open handle rather than a name: the system's own errors stay theirs, and contents decide, not suffixes.
        with path.open("rb") as handle, soundfile.SoundFile(handle) as file:
            source_hz = int(file.samplerate)
            samples = _read_mono(file, path, max_ms)
    except OSError as error:
        raise AudioFileError(f"cannot open {path}: {_reason(error)}") from error
    except soundfile.SoundFileError as error:
        raise AudioFileError(f"{path} is not an audio file that can be read (WAV, FLAC, Ogg, MP3)") from error
    if not samples.size:
        raise AudioFileError(f"{path} holds no sound")
    try:
        return resample(samples.tobytes(), source_hz, rate_hz)
    except ValueError as error:
        raise AudioFileError(f"{path} is sampled at {source_hz} Hz: {error}") from error


def write_wav(path: str | Path, pcm: bytes, rate_hz: int) -> None:
    """Write PCM16 mono as a WAV file, over what was there; AudioFileError when that cannot be done.

    A new file gets mode 0600: it may hold a voice.
    """
    path = Path(path)
    if len(pcm) % 2:
        raise AudioFileError(f"cannot write {path}: {len(pcm)} bytes are not whole 16-bit samples")
    try:
        if not path.exists():
            path.touch(mode=0o600)
        with (
            path.open("wb") as handle,
            soundfile.SoundFile(handle, "w", rate_hz, 1, "PCM_16", format="WAV") as file,
        ):
            file.write(np.frombuffer(pcm, "<i2"))
    except OSError as error:
        raise AudioFileError(f"cannot write {path}: {_reason(error)}") from error
    except soundfile.SoundFileError as error:
        raise AudioFileError(f"cannot write {path}: {error}") from error


def _read_mono(file: "soundfile.SoundFile", path: Path, max_ms: int) -> NDArray[np.int16]:
    """All samples, block by block, so that many channels never stand in memory together."""
    max_frames = file.samplerate * max_ms // 1000
    blocks: list[NDArray[np.int16]] = []
    n_frames = 0
    while len(block := file.read(_BLOCK_FRAMES, dtype="float64", always_2d=True)):
        n_frames += len(block)
        # Counted as it is read: the length in a header is only a claim.
        if n_frames > max_frames:
            raise AudioFileError(f"{path} is longer than {max_ms / 60_000:g} minutes")
        scaled = np.rint(np.nan_to_num(block.mean(axis=1)) * 32768)  # a file of floats may hold NaN
        blocks.append(np.clip(scaled, -32768, 32767).astype("<i2"))
    return np.concatenate(blocks) if blocks else np.zeros(0, "<i2")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
