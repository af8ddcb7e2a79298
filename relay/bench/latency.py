"""Latency without a mark in the sound, which no resampler would leave alone: chunks are told by how much has come.

Every chunk that goes in at one end is a known number of bytes at the other. The n-th has arrived when n times as many
have.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from relay.percentiles import percentile


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Latencies in ms; None where nothing was measured."""

    p50: float | None
    p99: float | None
    worst: float | None

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> "Percentiles":
        """Nearest-rank percentiles: each is a latency that did occur."""
        if not milliseconds:
            return cls(None, None, None)
        return cls(*(round(percentile(milliseconds, percent), 3) for percent in (50, 99, 100)))


class Flow:
    """One direction of one session; times are seconds on any clock that both ends share."""

    __slots__ = ("_bytes", "_chunk_bytes", "_left_at", "_reached_at", "_window")

    def __init__(self, chunk_bytes: int) -> None:
        """`chunk_bytes`: what one chunk is where it arrives."""
        self._chunk_bytes = chunk_bytes
        self._bytes = 0
        self._left_at = array("d")
        self._reached_at = array("d")
        self._window = (0, 0)

    def left(self, now: float) -> None:
        """A chunk was sent."""
        self._left_at.append(now)

    def reached(self, n_bytes: int, now: float) -> None:
        """So many bytes arrived, in whatever pieces."""
        self._bytes += n_bytes
        for _ in range(self._bytes // self._chunk_bytes - len(self._reached_at)):
            self._reached_at.append(now)

    def open_window(self) -> None:
        """From here on chunks that leave are counted."""
        self._window = (len(self._left_at), len(self._left_at))

    def close_window(self) -> None:
        """Chunks that leave from here on are not counted any more."""
        self._window = (self._window[0], len(self._left_at))

    @property
    def sent(self) -> int:
        """Chunks that left within the window."""
        return self._window[1] - self._window[0]

    def latencies_ms(self) -> list[float]:
        """Of each chunk that left within the window and has arrived by now."""
        first, last = self._window
        pairs = zip(self._left_at[first:last], self._reached_at[first:last], strict=False)
        return [(reached - left) * 1000 for left, reached in pairs]
