"""The client's audio before its session is ready: kept in order, bounded, and sent when the rules say so (D5)."""

from collections import deque

from audio.framing import Chunk

MAX_HELD_MS = 10_000
MAX_HELD_FRAMES = 2000


class HeldInput:
    """Frames with the position in the stream at which each of them ends. Over its bounds the oldest go."""

    __slots__ = ("_frames", "_n_bytes")

    def __init__(self) -> None:
        self._frames: deque[tuple[int, int, Chunk]] = deque()
        self._n_bytes = 0

    def add(self, payload: Chunk, n_bytes: int, ends_at_bytes: int, bytes_per_ms: int) -> int:
        """Keep a frame; returns how many bytes of audio had to be dropped for it."""
        self._frames.append((ends_at_bytes, n_bytes, payload))
        self._n_bytes += n_bytes
        dropped_bytes = 0
        while self._n_bytes > MAX_HELD_MS * bytes_per_ms or len(self._frames) > MAX_HELD_FRAMES:
            _, oldest_bytes, _ = self._frames.popleft()
            self._n_bytes -= oldest_bytes
            dropped_bytes += oldest_bytes
        return dropped_bytes

    def take(self, until_bytes: int | None = None) -> list[Chunk]:
        """The frames that end at or before a position in the stream, in order; all of them without one."""
        taken: list[Chunk] = []
        while self._frames and (until_bytes is None or self._frames[0][0] <= until_bytes):
            _, n_bytes, payload = self._frames.popleft()
            self._n_bytes -= n_bytes
            taken.append(payload)
        return taken
