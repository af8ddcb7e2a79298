"""G.711 mu-law and A-law by table lookup; the tables are computed from the definitions in ITU-T G.711.

Both laws write a sample as sign, segment (3 bits) and step within the segment (4 bits). Steps double from one
segment to the next, so the segment is the position of the leading one bit of the magnitude.
"""

import numpy as np
from numpy.typing import NDArray

from audio.framing import BytesLike

_ULAW_BIAS = 33  # added to 14-bit magnitudes so that all eight segments have the same form
_ULAW_MAX = 8158  # the largest 14-bit magnitude that stays in segment 7 once biased
_ALAW_EVEN_BITS = 0x55  # A-law inverts every other bit on the line
_SIGN = 0x80


def ulaw_encode(pcm16: BytesLike) -> bytes:
    """Encode PCM16 as mu-law, one byte per sample. Raises ValueError for an odd number of bytes."""
    return _ULAW_ENCODE.take(np.frombuffer(pcm16, "<u2")).tobytes()


def ulaw_decode(codes: BytesLike) -> bytes:
    """Decode mu-law to PCM16, two bytes per code."""
    return _ULAW_DECODE.take(np.frombuffer(codes, np.uint8)).tobytes()


def alaw_encode(pcm16: BytesLike) -> bytes:
    """Encode PCM16 as A-law, one byte per sample. Raises ValueError for an odd number of bytes."""
    return _ALAW_ENCODE.take(np.frombuffer(pcm16, "<u2")).tobytes()


def alaw_decode(codes: BytesLike) -> bytes:
    """Decode A-law to PCM16, two bytes per code."""
    return _ALAW_DECODE.take(np.frombuffer(codes, np.uint8)).tobytes()


def _samples() -> NDArray[np.int32]:
    """Return every PCM16 sample, at the index of its unsigned 16-bit reading."""
    return np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)


def _segments(magnitude: NDArray[np.int32], first_end: int) -> NDArray[np.int32]:
    """Return the segment (0–7) of each magnitude: 0 ends at `first_end`, each further one at twice the last, plus 1."""
    ends = (first_end + 1 << np.arange(7)) - 1
    return np.searchsorted(ends, magnitude).astype(np.int32)


def _ulaw_encode_table() -> NDArray[np.uint8]:
    sample = _samples() >> 2  # the law is defined on 14 bits
    biased = np.minimum(np.abs(sample), _ULAW_MAX) + _ULAW_BIAS
    segment = _segments(biased, first_end=63)
    step = (biased >> (segment + 1)) & 0x0F
    sign = np.where(sample < 0, 0, _SIGN)
    # Mu-law inverts all bits of segment and step on the line; a positive sample has the sign bit set.
    return np.asarray(sign | ((segment << 4 | step) ^ 0x7F), np.uint8)


def _ulaw_decode_table() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32)
    body = (code & 0x7F) ^ 0x7F
    biased = ((body & 0x0F) * 2 + _ULAW_BIAS) << (body >> 4)
    magnitude = (biased - _ULAW_BIAS) << 2
    return np.asarray(np.where(code & _SIGN, magnitude, -magnitude), "<i2")


def _alaw_encode_table() -> NDArray[np.uint8]:
    sample = _samples() >> 3  # the law is defined on 13 bits
    # A-law has no zero: -1 is the smallest negative magnitude, next to +0.
    magnitude = np.where(sample < 0, -sample - 1, sample)
    segment = _segments(magnitude, first_end=31)
    step = (magnitude >> np.maximum(segment, 1)) & 0x0F
    sign = np.where(sample < 0, 0, _SIGN)
    return np.asarray((sign | segment << 4 | step) ^ _ALAW_EVEN_BITS, np.uint8)


def _alaw_decode_table() -> NDArray[np.int16]:
    code = np.arange(256, dtype=np.int32) ^ _ALAW_EVEN_BITS
    segment = code >> 4 & 0x07
    # 2 * step + 1 is the middle of the step; above segment 0 the leading one bit (32) is implied.
    middle = (code & 0x0F) * 2 + 1 + np.where(segment, 32, 0)
    magnitude = (middle << np.maximum(segment, 1) - 1) << 3
    return np.asarray(np.where(code & _SIGN, magnitude, -magnitude), "<i2")


_ULAW_ENCODE = _ulaw_encode_table()
_ULAW_DECODE = _ulaw_decode_table()
_ALAW_ENCODE = _alaw_encode_table()
_ALAW_DECODE = _alaw_decode_table()
