"""The level of PCM16 audio: signed 16-bit little-endian mono samples."""

import math

import numpy as np

# The result of `level_dbfs` for digital silence, which has no logarithm; below any 16-bit signal (-90.3).
SILENCE_DBFS = -120.0
_FULL_SCALE = 32768.0


def level_dbfs(pcm: bytes | bytearray | memoryview) -> float:
    """Return the RMS level in dB relative to full scale (32768); SILENCE_DBFS without samples, or if all are zero.

    A sine at full scale is -3.0, a square wave 0.0. Raises ValueError for an odd number of bytes.
    """
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    if not samples.size:
        return SILENCE_DBFS
    mean_square = float(samples.dot(samples)) / samples.size
    return 10 * math.log10(mean_square / _FULL_SCALE**2) if mean_square else SILENCE_DBFS
