"""Align chunks of audio to whole samples."""

BytesLike = bytes | bytearray | memoryview


class SampleAligner:
    """Returns chunks of whole samples: the bytes of a split sample are carried over to the next chunk.

    It carries less than a sample, besides chunks from `hold`. A chunk that is already aligned is returned as the same
    object.
    """

    __slots__ = ("carry", "sample_bytes")

    def __init__(self, sample_bytes: int = 2) -> None:
        self.sample_bytes = sample_bytes
        self.carry = b""

    def feed(self, chunk: BytesLike) -> BytesLike:
        """Return the whole samples of the carried bytes and `chunk`, maybe none. A memoryview must have format B."""
        if self.carry:
            chunk = self.carry + chunk
            self.carry = b""
        extra_bytes = len(chunk) % self.sample_bytes
        if extra_bytes:
            self.carry = bytes(chunk[-extra_bytes:])
            return chunk[:-extra_bytes]
        return chunk

    def hold(self, chunk: BytesLike, max_bytes: int) -> bool:
        """Carry a chunk over to the next one, unless `max_bytes` are reached. Returns whether it was carried."""
        if len(self.carry) + len(chunk) >= max_bytes:
            return False
        self.carry += chunk
        return True

    def reset(self) -> None:
        """Drop the carried bytes: the next chunk starts a new stream."""
        self.carry = b""
