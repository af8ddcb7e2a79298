from typing import Any

import pytest

from audio.formats import PCM16_24K, PCMU, AudioFormat


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "bytes_per_ms"),
    [
        ("pcm16", 8000, 16),
        ("pcm16", 16000, 32),
        ("pcm16", 24000, 48),
        ("pcm16", 48000, 96),
        ("pcmu", 8000, 8),
        ("pcma", 8000, 8),
    ],
)
def test_bytes_and_milliseconds(encoding: Any, rate_hz: Any, bytes_per_ms: int) -> None:
    format_ = AudioFormat(encoding, rate_hz)
    assert format_.bytes_per_ms == bytes_per_ms
    assert format_.frame_bytes(20) == 20 * bytes_per_ms
    assert format_.duration_ms(20 * bytes_per_ms) == 20
    assert format_.duration_ms(20 * bytes_per_ms - 1) == 19


@pytest.mark.parametrize(
    ("encoding", "rate_hz", "says"),
    [
        ("pcm16", 44100, "rate of pcm16 must be one of 8000, 16000, 24000, 48000 Hz, not 44100"),
        ("pcmu", 16000, "rate of pcmu must be one of 8000 Hz, not 16000"),
        ("pcm16", 24000.0, "not 24000.0"),
        ("pcm16", None, "not None"),
        ("opus", 48000, "audio format must be one of pcm16, pcmu, pcma, not 'opus'"),
        (["pcm16"], 24000, "audio format must be one of"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(encoding: Any, rate_hz: Any, says: str) -> None:
    with pytest.raises(ValueError, match="must be") as error:
        AudioFormat(encoding, rate_hz)
    assert says in str(error.value)


def test_formats_are_values() -> None:
    assert AudioFormat("pcm16", 24000) == PCM16_24K
    assert len({AudioFormat("pcmu", 8000), PCMU}) == 1
