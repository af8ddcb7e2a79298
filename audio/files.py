"""Read any audio file that libsndfile knows (WAV, FLAC, Ogg, MP3 …) as PCM16 mono, and write PCM16 mono as WAV."""

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from audio.resample import resample

MAX_FILE_MS = 30 * 60_000
_BLOCK_FRAMES = 65536


class AudioFileError(ValueError):
    """An audio file cannot be read or written. The message names the file and the reason."""


def read_audio(path: str | Path, rate_hz: int, max_ms: int = MAX_FILE_MS) -> bytes:
    """Read a file as PCM16 mono at `rate_hz` (8000, 16000, 24000 or 48000); channels are averaged.

    Raises AudioFileError if the file is missing, is not audio, has no samples, or is longer than `max_ms`: the audio is
    held in memory.
    """
    path = Path(path)
    try:
        # A handle, not a path: the operating system's errors stay OSErrors, and the content decides, not the suffix.
        with path.open("rb") as handle, soundfile.SoundFile(handle) as file:
            source_hz = int(file.samplerate)
            samples = _read_mono(file, path, max_ms)
    except OSError as error:
        raise AudioFileError(f"cannot open {path}: {_failure_reason(error)}") from error
    except soundfile.SoundFileError as error:
        raise AudioFileError(f"{path} is not an audio file that can be read (WAV, FLAC, Ogg, MP3)") from error
    if not samples.size:
        raise AudioFileError(f"{path} contains no audio")
    try:
        return resample(samples.tobytes(), source_hz, rate_hz)
    except ValueError as error:
        raise AudioFileError(f"{path} has a sample rate of {source_hz} Hz: {error}") from error


def write_wav(path: str | Path, pcm: bytes, rate_hz: int) -> None:
    """Write PCM16 mono as a WAV file, replacing an existing one. Raises AudioFileError.

    A new file gets mode 0600: it may contain a voice.
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
        raise AudioFileError(f"cannot write {path}: {_failure_reason(error)}") from error
    except soundfile.SoundFileError as error:
        raise AudioFileError(f"cannot write {path}: {error}") from error


def _read_mono(file: "soundfile.SoundFile", path: Path, max_ms: int) -> NDArray[np.int16]:
    """Read and average the channels block by block, so that a file with many channels stays small in memory."""
    max_frames = file.samplerate * max_ms // 1000
    blocks: list[NDArray[np.int16]] = []
    n_frames = 0
    while len(block := file.read(_BLOCK_FRAMES, dtype="float64", always_2d=True)):
        n_frames += len(block)
        # Counted while reading: the length in the header may be wrong.
        if n_frames > max_frames:
            raise AudioFileError(f"{path} is longer than {max_ms / 60_000:g} minutes")
        scaled_samples = np.rint(np.nan_to_num(block.mean(axis=1)) * 32768)  # a float file may contain NaN
        blocks.append(np.clip(scaled_samples, -32768, 32767).astype("<i2"))
    return np.concatenate(blocks) if blocks else np.zeros(0, "<i2")


def _failure_reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
