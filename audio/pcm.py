"""The level of PCM16: signed 16-bit little-endian mono samples in bytes."""

import math

import numpy as np

# What `level_dbfs` answers for digital silence, whose level has no logarithm; below any 16-bit signal (-90.3).
SILENCE_DBFS = -120.0
_FULL_SCALE = 32768.0


def level_dbfs(pcm: bytes | bytearray | memoryview) -> float:
    """Level (root mean square) in dB relative to full scale 32768; no samples or all zero give SILENCE_DBFS.

    A sine at full scale is -3.0, a square wave 0.0. An odd number of bytes raises ValueError.
    """
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    if not samples.size:
        return SILENCE_DBFS
    mean_square = float(samples.dot(samples)) / samples.size
    return 10 * math.log10(mean_square / _FULL_SCALE**2) if mean_square else SILENCE_DBFS
