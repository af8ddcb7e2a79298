import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio.fir import FloatArray
from audio.resample import Resampler, resample

PAIRS = [(a, b) for a in (8000, 16000, 24000, 48000) for b in (8000, 16000, 24000, 48000) if a != b]
DIRECT = [pair for pair in PAIRS if 24000 in pair]
# By the rate beside 24 kHz: delay, end of the pass band and its ripple, (frequency, rejection from there up).
Figures = tuple[float, int, float, list[tuple[int, float]]]
FIGURES: dict[int, Figures] = {
    8000: (1.98, 3400, 0.03, [(4300, 55), (4600, 65)]),
    16000: (1.24, 7000, 0.04, [(8300, 36), (8500, 59.5), (9000, 64)]),
    48000: (0.99, 10000, 0.02, [(12300, 55), (12500, 61)]),
}


def figures(pair: tuple[int, int]) -> Figures:
    return FIGURES[pair[0] if pair[1] == 24000 else pair[1]]


def delay_ms(pair: tuple[int, int]) -> float:
    """Of a direct pair, or of both filters on the way through 24 kHz."""
    return sum(figures((rate_hz, 24000))[0] for rate_hz in pair if rate_hz != 24000)


def noise(n_samples: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(-32768, 32768, n_samples).astype("<i2").tobytes()


def sine(hz: float, rate_hz: int, ms: int = 400, amplitude: int = 20000) -> bytes:
    n = np.arange(rate_hz * ms // 1000)
    return np.asarray(np.rint(amplitude * np.sin(2 * np.pi * hz * n / rate_hz)), "<i2").tobytes()


def spectrum(pcm: bytes, rate_hz: int, amplitude: int = 20000) -> tuple[FloatArray, FloatArray]:
    """Level by frequency in dB relative to a sine of `amplitude`, from the settled middle of the clip."""
    samples = np.frombuffer(pcm, "<i2")
    middle = samples[len(samples) // 4 : len(samples) * 3 // 4].astype(float)
    window = np.blackman(len(middle))
    level = np.abs(np.fft.rfft(middle * window)) / (window.sum() / 2 * amplitude)
    frequencies = np.asarray(np.fft.rfftfreq(len(middle), 1 / rate_hz), np.float64)
    return frequencies, np.asarray(20 * np.log10(level + 1e-9), np.float64)


def through(pair: tuple[int, int], pcm: bytes) -> bytes:
    return Resampler(*pair).feed(pcm)


@pytest.mark.parametrize("pair", DIRECT)
def test_delay(pair: tuple[int, int]) -> None:
    """A slow pulse keeps its place but for the documented delay."""
    source_hz, target_hz = pair
    seconds = np.arange(source_hz // 5) / source_hz
    bell = np.rint(20000 * np.exp(-(((seconds - 0.1) / 0.004) ** 2))).astype("<i2").tobytes()
    out = np.frombuffer(through(pair, bell), "<i2").astype(float)
    centre_ms = (out * np.arange(len(out))).sum() / out.sum() / target_hz * 1000
    assert centre_ms - 100 == pytest.approx(figures(pair)[0], abs=0.01)
    assert figures(pair)[0] <= 2


@pytest.mark.parametrize("pair", DIRECT)
def test_ripple(pair: tuple[int, int]) -> None:
    _, edge_hz, ripple_db, _ = figures(pair)
    levels = []
    for hz in range(100, edge_hz + 1, 300):
        frequencies, level = spectrum(through(pair, sine(hz, pair[0])), pair[1])
        levels.append(level[np.abs(frequencies - hz) < 20].max())
    assert max(levels) - min(levels) <= ripple_db
    assert max(abs(level) for level in levels) <= ripple_db


@pytest.mark.parametrize("pair", [pair for pair in DIRECT if pair[0] > pair[1]])
def test_a_tone_over_half_the_lower_rate_does_not_fold(pair: tuple[int, int]) -> None:
    source_hz, target_hz = pair
    for from_hz, rejection_db in figures(pair)[3]:
        for hz in range(from_hz, min(from_hz + 3000, source_hz // 2), 370):
            frequencies, level = spectrum(through(pair, sine(hz, source_hz)), target_hz)
            assert level[frequencies > 50].max() < -rejection_db, hz


@pytest.mark.parametrize("pair", [pair for pair in DIRECT if pair[0] < pair[1]])
def test_a_tone_leaves_no_image(pair: tuple[int, int]) -> None:
    source_hz, target_hz = pair
    for from_hz, rejection_db in figures(pair)[3]:
        for image_hz in range(from_hz, from_hz + 2500, 370):
            tone = sine(source_hz - image_hz, source_hz)
            frequencies, level = spectrum(through(pair, tone), target_hz)
            # The image of f is source - f, the first that the filter has to remove.
            assert level[np.abs(frequencies - image_hz) < 60].max() < -rejection_db, image_hz


@pytest.mark.parametrize("pair", PAIRS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_same_samples(pair: tuple[int, int], data: st.DataObject) -> None:
    pcm = noise(data.draw(st.integers(0, 4000)), seed=data.draw(st.integers(0, 9))) + b"x" * data.draw(
        st.integers(0, 1)
    )
    sizes = data.draw(st.lists(st.integers(1, 2500), min_size=1, max_size=20))
    whole = Resampler(*pair)
    expected = whole.feed(pcm) + whole.flush()
    chunked, at, turn = Resampler(*pair), 0, 0
    got: list[bytes] = []
    while at < len(pcm):
        got.append(chunked.feed(memoryview(pcm)[at : at + sizes[turn % len(sizes)]]))
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    assert all(len(piece) % 2 == 0 for piece in got)
    assert b"".join(got) + chunked.flush() == expected


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 16, 64])
@pytest.mark.parametrize("pair", DIRECT)
def test_whole_rows_give_the_same_samples_too(pair: tuple[int, int], rows: int) -> None:
    """The shape of the matrix product changes the order of its sums; noise shows that the result stays."""
    pcm = noise(pair[0] * 6)
    step = pair[0] * 2 // 1000 * 2 * rows
    stream = Resampler(*pair)
    got = b"".join(stream.feed(pcm[at : at + step]) for at in range(0, len(pcm), step))
    assert got == through(pair, pcm)


def test_every_processor_gives_the_same_samples() -> None:
    """OpenBLAS has kernels of its own for each family of processors; asked for another, nothing changes."""
    program = (
        "import hashlib, numpy as np; from audio.resample import Resampler;"
        "pcm = np.random.default_rng(5).integers(-32768, 32768, 48000).astype('<i2').tobytes();"
        "print(hashlib.sha256(b''.join(Resampler(a, b).feed(pcm)"
        " for a, b in ((16000, 24000), (24000, 16000), (8000, 24000), (24000, 8000)))).hexdigest())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", program], env={"OPENBLAS_CORETYPE": kernel}, capture_output=True, check=True
        ).stdout
        for kernel in ("Prescott", "Haswell", "")
    }
    assert len(answers) == 1


@pytest.mark.parametrize("pair", PAIRS)
def test_a_whole_stream_lasts_as_long_as_it_did_plus_the_delay(pair: tuple[int, int]) -> None:
    stream = Resampler(*pair)
    samples = len(stream.feed(noise(pair[0])) + stream.flush()) // 2
    assert 0 <= samples / pair[1] * 1000 - 1000 - delay_ms(pair) < 0.4


@pytest.mark.parametrize("pair", PAIRS)
def test_whole_groups_come_out_at_once(pair: tuple[int, int]) -> None:
    stream = Resampler(*pair)
    assert [len(stream.feed(noise(pair[0] // 50))) for _ in range(5)] == [pair[1] // 50 * 2] * 5


def test_flush_starts_over() -> None:
    stream = Resampler(16000, 24000)
    first = stream.feed(noise(333)) + stream.flush()
    assert stream.flush() == b""
    assert stream.feed(b"") + stream.flush() == b""
    assert stream.feed(noise(333)) + stream.flush() == first
    stream.feed(noise(100, seed=2))
    stream.reset()
    assert stream.feed(noise(333)) + stream.flush() == first


@pytest.mark.parametrize("pair", DIRECT)
def test_full_scale_is_clipped_not_wrapped(pair: tuple[int, int]) -> None:
    square = np.repeat(np.tile([32767, -32768], 50), pair[0] // 1000).astype("<i2").tobytes()
    out = np.frombuffer(through(pair, square), "<i2")
    assert out.max() == 32767
    assert out.min() == -32768
    assert np.abs(np.diff(out.astype(int))).max() <= 65535
    steady = np.frombuffer(through(pair, np.full(pair[0], 32767, "<i2").tobytes()), "<i2")[pair[1] // 100 :]
    assert steady.min() > 32000


def test_equal_rates_pass_on_the_very_same_bytes() -> None:
    stream = Resampler(24000, 24000)
    chunk = noise(480)
    assert stream.feed(chunk) is chunk
    assert stream.feed(b"abc") + stream.feed(memoryview(b"d")) == b"abcd"
    assert stream.flush() == b""


@pytest.mark.parametrize("pair", [(44100, 24000), (24000, 22050), (0, 0), (24000, 24000.5)])
def test_a_live_rate_must_be_one_of_four(pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="between 8000, 16000, 24000, 48000 Hz"):
        Resampler(*pair)


def test_streams_in_several_threads_do_not_disturb_each_other() -> None:
    pcm = noise(16000 * 2)
    expected = through((16000, 24000), pcm)
    wrong: list[bytes] = []

    def work() -> None:
        for _ in range(10):
            stream = Resampler(16000, 24000)
            got = b"".join(stream.feed(pcm[at : at + 3200]) for at in range(0, len(pcm), 3200))
            if got != expected:
                wrong.append(got)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("source_hz", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000])
@pytest.mark.parametrize("target_hz", [8000, 16000, 24000, 48000])
def test_a_clip_keeps_its_length_its_place_and_its_tones(source_hz: int, target_hz: int) -> None:
    clip = resample(sine(1000, source_hz), source_hz, target_hz)
    ideal = np.frombuffer(sine(1000, target_hz), "<i2").astype(float)
    got = np.frombuffer(clip, "<i2").astype(float)
    assert abs(len(got) - len(ideal)) <= 1
    inner = slice(target_hz // 50, target_hz * 3 // 10)  # the ends ring: the tone starts and stops abruptly
    error = got[inner] - ideal[inner]
    assert (error**2).mean() < 1e-7 * (ideal[inner] ** 2).mean()


@pytest.mark.parametrize(("source_hz", "target_hz"), [(44100, 16000), (44100, 24000), (24000, 8000)])
def test_a_clip_does_not_fold(source_hz: int, target_hz: int) -> None:
    tone = sine(target_hz * 0.505, source_hz)
    assert spectrum(resample(tone, source_hz, target_hz), target_hz)[1].max() < -78


def test_clips_at_the_edges() -> None:
    assert resample(b"", 22050, 24000) == b""
    assert resample(b"a", 22050, 24000) == b""
    assert resample(b"abc", 24000, 24000) == b"ab"
    assert len(resample(b"ab", 48000, 8000)) == 2
    assert len(resample(bytes(2 * 22050), 22050, 24000)) == 2 * 24000


@pytest.mark.parametrize(("source_hz", "target_hz"), [(3999, 24000), (192001, 24000), (24000, 22050), (191999, 24000)])
def test_rates_a_clip_cannot_have(source_hz: int, target_hz: int) -> None:
    with pytest.raises(ValueError, match="resample a clip"):
        resample(bytes(100), source_hz, target_hz)
