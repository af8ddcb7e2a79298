import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio.framing import BytesLike, SampleAligner


def test_an_odd_byte_waits_for_the_next_chunk() -> None:
    aligner = SampleAligner()
    assert aligner.feed(b"abc") == b"ab"
    assert len(aligner.carry) == 1
    assert aligner.feed(b"d") == b"cd"
    assert aligner.feed(b"e") == b""
    assert aligner.feed(b"fg") == b"ef"
    aligner.reset()
    assert aligner.feed(b"hi") == b"hi"


@pytest.mark.parametrize("chunk", [b"abcd", memoryview(b"abcd"), bytearray(b"abcd")])
def test_a_whole_chunk_is_not_copied(chunk: BytesLike) -> None:
    assert SampleAligner().feed(chunk) is chunk


@given(st.lists(st.binary(max_size=9)), st.integers(1, 5), st.booleans())
def test_nothing_is_lost_or_split(chunks: list[bytes], sample_bytes: int, as_views: bool) -> None:
    aligner = SampleAligner(sample_bytes)
    fed = [bytes(aligner.feed(memoryview(chunk) if as_views else chunk)) for chunk in chunks]
    whole = b"".join(chunks)
    assert all(len(piece) % sample_bytes == 0 for piece in fed)
    assert b"".join(fed) == whole[: len(whole) // sample_bytes * sample_bytes]
    assert len(aligner.carry) == len(whole) % sample_bytes


def test_small_chunks_are_held_until_they_are_worth_it() -> None:
    aligner = SampleAligner()
    assert [aligner.hold(b"abc", 8), aligner.hold(memoryview(b"de"), 8), aligner.hold(b"fgh", 8)] == [True, True, False]
    assert len(aligner.carry) == 5, "the last one is not: it is fed"
    assert aligner.feed(b"fgh") == b"abcdefgh"
    assert aligner.hold(b"ijk", 8)
    assert aligner.feed(b"") == b"ij", "what is wanted now is given, but for half a sample"
    assert aligner.feed(b"l") == b"kl"
