"""Small helpers over PCM16: signed 16-bit little-endian mono samples in bytes."""

import math

import numpy as np

BYTES_PER_SAMPLE = 2
# What `level_dbfs` answers for digital silence, whose level has no logarithm; below any 16-bit signal (-90.3).
SILENCE_DBFS = -120.0
_FULL_SCALE = 32768.0


def bytes_of_ms(ms: int, rate_hz: int) -> int:
    """Bytes that `ms` milliseconds take at `rate_hz`, rounded down to whole samples."""
    return ms * rate_hz // 1000 * BYTES_PER_SAMPLE


def silence(ms: int, rate_hz: int) -> bytes:
    """`ms` milliseconds of digital silence at `rate_hz`."""
    return bytes(bytes_of_ms(ms, rate_hz))


def level_dbfs(pcm: bytes | bytearray | memoryview) -> float:
    """Level (root mean square) in dB relative to full scale 32768; no samples or all zero give SILENCE_DBFS.

    A sine at full scale is -3.0, a square wave 0.0. An odd number of bytes raises ValueError.
    """
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    if not samples.size:
        return SILENCE_DBFS
    mean_square = float(samples.dot(samples)) / samples.size
    return 10 * math.log10(mean_square / _FULL_SCALE**2) if mean_square else SILENCE_DBFS
