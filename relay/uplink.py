"""The short way of microphone audio in a session that runs as usual: from the client's socket to the upstream's.

A relay sleeps between any two frames, and finds nothing in the processor's caches when it wakes: what a frame costs is
how much code and how many objects it touches. So all that a frame needs lies in one object here, and what else the
session would note about it (bytes the user has sent, what the client may still send) is noted later, for many frames at
once, before anybody looks.
"""

from collections.abc import Callable

from audio.framing import Chunk


class Uplink:
    """Sends frames up while it is open; each other one goes to `otherwise`.

    Closed at first. It closes by itself after the bytes it was opened for.
    """

    __slots__ = ("_encode", "_granted_bytes", "_least_bytes", "_left_bytes", "_otherwise", "_send")

    def __init__(self, otherwise: Callable[[memoryview], None]) -> None:
        self._otherwise = otherwise
        self._left_bytes = self._granted_bytes = -1
        self._least_bytes = 0
        self._encode: Callable[[Chunk], bytes]
        self._send: Callable[[Chunk], None]

    def frame(self, frame: memoryview) -> None:
        """A binary message of the client."""
        n_bytes = len(frame)
        left_bytes = self._left_bytes - n_bytes
        if left_bytes < 0 or n_bytes < self._least_bytes or n_bytes & 1:
            self._otherwise(frame)
            return
        self._left_bytes = left_bytes
        self._send(self._encode(frame))

    def open(
        self, n_bytes: int, least_bytes: int, encode: Callable[[Chunk], bytes], send: Callable[[Chunk], None]
    ) -> None:
        """Let up to `n_bytes` pass in frames of an even length, at least `least_bytes` each."""
        self._left_bytes = self._granted_bytes = n_bytes
        self._least_bytes = least_bytes
        self._encode, self._send = encode, send

    def close(self) -> int:
        """Let nothing more pass; returns how many bytes have since it was opened."""
        passed_bytes = self._granted_bytes - self._left_bytes
        self._left_bytes = self._granted_bytes = -1
        return passed_bytes
