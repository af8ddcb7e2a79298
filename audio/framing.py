"""From chunks cut anywhere to chunks of whole samples."""

BytesLike = bytes | bytearray | memoryview


class SampleAligner:
    """Gives back what it is fed, cut at whole samples: the bytes of a split sample wait for the next chunk.

    It holds at most one byte less than a sample, and what it was told to `hold`. A chunk that needs no repair comes
    back as the very same object.
    """

    __slots__ = ("carry", "sample_bytes")

    def __init__(self, sample_bytes: int = 2) -> None:
        self.sample_bytes = sample_bytes
        self.carry = b""

    def feed(self, chunk: BytesLike) -> BytesLike:
        """Whole samples from the carried bytes and `chunk` (a view must be of bytes); maybe empty."""
        if self.carry:
            chunk = self.carry + chunk
            self.carry = b""
        extra_bytes = len(chunk) % self.sample_bytes
        if extra_bytes:
            self.carry = bytes(chunk[-extra_bytes:])
            return chunk[:-extra_bytes]
        return chunk

    def hold(self, chunk: BytesLike, max_bytes: int) -> bool:
        """Keep a chunk for the next one, if that makes fewer than `max_bytes` in all; returns whether it does."""
        if len(self.carry) + len(chunk) >= max_bytes:
            return False
        self.carry += chunk
        return True

    def reset(self) -> None:
        """Forget the carried bytes: the next chunk starts a stream of its own."""
        self.carry = b""
