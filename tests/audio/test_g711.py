import importlib
import sys
import warnings

import numpy as np
import pytest

from audio import g711

SAMPLES = np.arange(-32768, 32768, dtype="<i2")
CODES = bytes(range(256))
LAWS = {
    "ulaw": (g711.ulaw_encode, g711.ulaw_decode),
    "alaw": (g711.alaw_encode, g711.alaw_decode),
}


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="audioop left the standard library in 3.13")
@pytest.mark.parametrize("law", LAWS)
def test_every_code_and_every_sample_is_as_audioop_has_it(law: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = importlib.import_module("audioop")
    encode, decode = LAWS[law]
    assert encode(SAMPLES.tobytes()) == getattr(audioop, f"lin2{law}")(SAMPLES.tobytes(), 2)
    assert decode(CODES) == getattr(audioop, f"{law}2lin")(CODES, 2)


@pytest.mark.parametrize("law", LAWS)
def test_a_decoded_code_encodes_to_itself(law: str) -> None:
    encode, decode = LAWS[law]
    back = encode(decode(CODES))
    different = [code for code in range(256) if back[code] != code]
    # Mu-law has a negative zero, which PCM16 has not.
    assert different == ([0x7F] if law == "ulaw" else [])


@pytest.mark.parametrize(("law", "largest"), [("ulaw", 32124), ("alaw", 32256)])
def test_full_scale_and_symmetry(law: str, largest: int) -> None:
    decoded = np.frombuffer(LAWS[law][1](CODES), "<i2").astype(int)
    assert decoded.max() == largest
    assert sorted(decoded) == sorted(-decoded)


@pytest.mark.parametrize("law", LAWS)
def test_coding_keeps_the_order_and_errs_by_half_a_step_at_most(law: str) -> None:
    encode, decode = LAWS[law]
    decoded = np.frombuffer(decode(encode(SAMPLES.tobytes())), "<i2").astype(int)
    assert np.all(np.diff(decoded) >= 0)
    error = np.abs(decoded - SAMPLES)
    # 16 steps a segment: half a step is 1/32 of the segment's start. Small samples err by a unit of 14 or 13 bits,
    # and what is over the largest code is clipped to it.
    inside = np.abs(SAMPLES.astype(int)) <= decoded.max()
    assert np.all(error[inside] <= np.maximum(16, np.abs(SAMPLES.astype(int)) / 32 + 8)[inside])


@pytest.mark.parametrize(
    ("law", "samples", "codes"),
    [
        # The ends and the middle of both tables in ITU-T G.711.
        ("ulaw", [0, 32635, 32767, -32768], [0xFF, 0x80, 0x80, 0x00]),
        ("alaw", [0, -1, 32767, -32768], [0xD5, 0x55, 0xAA, 0x2A]),
    ],
)
def test_known_codes(law: str, samples: list[int], codes: list[int]) -> None:
    assert list(LAWS[law][0](np.array(samples, "<i2").tobytes())) == codes


@pytest.mark.parametrize("law", LAWS)
def test_views_are_taken_and_half_a_sample_is_refused(law: str) -> None:
    encode, decode = LAWS[law]
    assert encode(memoryview(b"\0\0\0\0")) == encode(bytes(4))
    assert decode(b"") == encode(b"") == b""
    with pytest.raises(ValueError, match="multiple of element size"):
        encode(b"abc")
