"""Polyphase FIR filters: their design, and the filter bank that runs them over PCM16.

A change of rate by L/M is, on paper: put L - 1 zeros between the samples, filter at that common rate, keep every
M-th sample. The bank does the same without ever touching a zero: the filter's phases stand in one banded matrix that
maps a row of samples (history, then 2 ms of input) to the 2 ms of output, and a chunk is one small matrix product.

**Exactness.** A float sum depends on its order, and the order on the BLAS kernel, which differs with the processor
and with the number of rows: with plain float32 or float64 weights one sample in a few thousand would change by one
when a stream is cut differently. Here the weights stand on a grid of 2**-32. Products with 16-bit samples and their
sums then need at most 52 bits, float64 holds them exactly, and no order of addition can change a sample: any
chunking, on any machine, gives the same bytes.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio.framing import BytesLike

FloatArray = NDArray[np.float64]
FilterStep = Callable[[bytes, BytesLike], tuple[bytes, bytes]]
"""The history before a chunk, and the chunk; its output, and the history before the next one."""

ROW_MS = 2
# A longer chunk is cut. 100 ms of audio is one product, and the scratch stays within a second-level cache.
MAX_ROWS = 64
# Callers use a handful of chunk lengths. A client that sends every length in turn evicts the oldest step: it
# pays some microseconds per chunk, and memory stays where it is.
MAX_CACHED_STEPS = 64
_WEIGHT_GRID = 2.0**32

current_thread_id = threading.get_ident
"""Whose scratch a step works on: it may be kept for this thread only."""


@dataclass(frozen=True, slots=True)
class LowPassDesign:
    """A Kaiser-windowed low-pass at the common rate of two rates; `cutoff_hz` is its -6 dB point."""

    common_hz: int
    taps: int
    cutoff_hz: float
    beta: float

    def coefficients(self, gain: float) -> FloatArray:
        """The taps in order, scaled so that they sum to `gain`."""
        n = np.arange(self.taps) - (self.taps - 1) / 2
        lowpass = np.sinc(2 * self.cutoff_hz / self.common_hz * n) * np.kaiser(self.taps, self.beta)
        return np.asarray(lowpass * (gain / lowpass.sum()), dtype=np.float64)


class FilterBank:
    """One direction of one pair of rates: immutable weights, and scratch space that all streams of a thread share.

    Input is taken in groups of `group_in` samples, the fewest that give a whole number (`group_out`) of outputs.
    """

    def __init__(self, design: LowPassDesign, source_hz: int, target_hz: int) -> None:
        up, down = design.common_hz // source_hz, design.common_hz // target_hz
        self.group_in, self.group_out = down, up
        self.row_groups = source_hz * ROW_MS // 1000 // self.group_in
        self.history_samples = (design.taps - 1) // up
        # Silence that must follow the last sample until it has come out: the delay, in whole samples.
        self.drain_samples = -(-(design.taps - 1) // (2 * up))
        self._weights = self._banded(design.coefficients(gain=up), up, down)
        # BLAS and the ufuncs let go of the interpreter lock, so scratch must not be shared between threads.
        self._local = threading.local()

    def _banded(self, taps: FloatArray, up: int, down: int) -> FloatArray:
        """Weights as (history + row of input) x (row of output); row k of it is the input sample k - history."""
        n_in, n_out = self.row_groups * self.group_in, self.row_groups * self.group_out
        at_input = (np.arange(self.history_samples + n_in) - self.history_samples)[:, None] * up
        at_output = np.arange(n_out)[None, :] * down
        tap = at_output - at_input
        inside = (tap >= 0) & (tap < len(taps))
        weights = np.where(inside, taps[np.clip(tap, 0, len(taps) - 1)], 0.0)
        return np.ascontiguousarray(np.round(weights * _WEIGHT_GRID) / _WEIGHT_GRID)

    def run(self, buffer: bytes, groups: int) -> bytes:
        """Outputs for the first `groups` groups in `buffer` (PCM16: the history, then the groups, then anything)."""
        history_bytes = 2 * self.history_samples
        end = history_bytes + 2 * self.group_in * groups
        return self.step(groups)(buffer[:history_bytes], buffer[history_bytes:end])[0]

    def step(self, groups: int) -> "FilterStep":
        """The work for chunks of `groups` groups, on scratch that belongs to this thread."""
        try:
            steps: dict[int, FilterStep] = self._local.steps
        except AttributeError:
            steps = self._local.steps = {}
            self._local.scratch = _scratch(*self._weights.shape)
        try:
            return steps[groups]
        except KeyError:
            if len(steps) >= MAX_CACHED_STEPS:
                del steps[next(iter(steps))]
            step = steps[groups] = self._step(groups, self._local.scratch)
            return step

    def _step(self, groups: int, scratch: "tuple[NDArray[Any], ...]") -> "FilterStep":
        """All that depends on the chunk's length alone is made here: each object that a chunk touches costs it time."""
        rows = -(-groups // self.row_groups)
        width = self._weights.shape[0]
        row_in = self.row_groups * self.group_in
        history_bytes, chunk_bytes = 2 * self.history_samples, 2 * groups * self.group_in
        # Zeros behind the chunk complete the last row; what comes out of them is not returned.
        staged = memoryview(bytearray(2 * ((rows - 1) * row_in + width)))
        head, body = staged[:history_bytes], staged[history_bytes : history_bytes + chunk_bytes]
        last = staged[chunk_bytes : chunk_bytes + history_bytes]
        samples: NDArray[np.int16] = np.ndarray((rows, width), "<i2", staged, 0, (2 * row_in, 2))
        source, sums, low, high, result = (array[:rows] for array in scratch)
        output = result.reshape(-1)[: groups * self.group_out]
        weights, dot = self._weights, source.dot
        rint, maximum, minimum = np.rint, np.maximum, np.minimum

        def step(history: bytes, chunk: BytesLike) -> tuple[bytes, bytes]:
            head[:] = history
            body[:] = chunk
            source[...] = samples
            dot(weights, sums)
            rint(sums, out=sums)  # half to even
            # np.clip's wrapper costs several times these two, and full-size limits cost half of scalar ones.
            maximum(sums, low, out=sums)
            minimum(sums, high, out=sums)
            result[...] = sums
            return output.tobytes(), last.tobytes()

        return step


def _scratch(width: int, n_out: int) -> tuple[NDArray[Any], ...]:
    """Source, sums, low and high limits, result for the longest chunk.

    Steps for shorter ones see the front of them, which keeps it in the cache.
    """
    outputs = (MAX_ROWS, n_out)
    limits = np.full(outputs, -32768.0), np.full(outputs, 32767.0)
    return np.zeros((MAX_ROWS, width)), np.zeros(outputs), *limits, np.zeros(outputs, "<i2")
