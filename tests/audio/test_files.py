from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio.files import AudioFileError, read_audio, write_wav
from audio.fir import FloatArray


def tone(rate_hz: int, ms: int = 500, hz: float = 440) -> FloatArray:
    return 0.25 * np.sin(2 * np.pi * hz * np.arange(rate_hz * ms // 1000) / rate_hz)


def test_a_written_file_reads_back_sample_for_sample(tmp_path: Path) -> None:
    pcm = np.random.default_rng(1).integers(-32768, 32768, 5000, dtype=np.int16).astype("<i2").tobytes()
    write_wav(tmp_path / "a.wav", pcm, 24000)
    assert read_audio(tmp_path / "a.wav", 24000) == pcm


@pytest.mark.parametrize(("suffix", "source_hz"), [("wav", 44100), ("flac", 22050), ("ogg", 48000), ("mp3", 16000)])
def test_formats_and_rates_become_pcm16_mono(tmp_path: Path, suffix: str, source_hz: int) -> None:
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, np.stack([tone(source_hz), tone(source_hz)], axis=1), source_hz)
    samples = np.frombuffer(read_audio(path, 24000), "<i2") / 32768
    assert len(samples) >= 12000
    spectrum = np.abs(np.fft.rfft(samples[:12000] * np.hanning(12000)))
    assert spectrum.argmax() * 2 == 440  # half a second: bins of 2 Hz
    assert np.abs(samples).max() == pytest.approx(0.25, abs=0.02)


def test_channels_are_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "two.wav", np.array([[0.5, 0.0], [0.5, -0.5]] * 100), 24000)
    assert set(np.frombuffer(read_audio(tmp_path / "two.wav", 24000), "<i2")) == {8192, 0}


def test_floats_outside_the_range_are_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", np.array([3.0, -3.0, float("nan")]), 24000, subtype="FLOAT")
    assert list(np.frombuffer(read_audio(tmp_path / "loud.wav", 24000), "<i2")) == [32767, -32768, 0]


def write_nothing(path: Path) -> None:
    pass


def write_folder(path: Path) -> None:
    path.mkdir()


def write_words(path: Path) -> None:
    path.write_text("these are words")


def write_header_only(path: Path) -> None:
    write_wav(path, b"", 24000)


def write_long(path: Path) -> None:
    write_wav(path, bytes(2 * 8000), 8000)


def write_odd_rate(path: Path) -> None:
    soundfile.write(path, np.zeros(100), 191999)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (write_nothing, "cannot open {}: no such file or directory"),
        (write_folder, "cannot open {}: is a directory"),
        (write_words, "{} is not an audio file that can be read (WAV, FLAC, Ogg, MP3)"),
        (write_header_only, "{} contains no audio"),
        (write_long, "{} is longer than 0.01 minutes"),
        (write_odd_rate, "{} has a sample rate of 191999 Hz: cannot resample a clip by 24000/191999"),
    ],
)
def test_an_error_is_a_sentence_that_names_the_file(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    path = tmp_path / "speech.wav"
    make(path)
    with pytest.raises(AudioFileError) as error:
        read_audio(path, 24000, max_ms=600)
    assert str(error.value).startswith(says.format(path))


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"cannot write .*/no/reply\.wav: no such file or directory"):
        write_wav(tmp_path / "no" / "reply.wav", bytes(4), 24000)
    with pytest.raises(AudioFileError, match="3 bytes are not whole 16-bit samples"):
        write_wav(tmp_path / "odd.wav", bytes(3), 24000)
    assert not (tmp_path / "odd.wav").exists()
