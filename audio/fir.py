"""Polyphase FIR filters: design, and the filter bank that applies them to PCM16.

Resampling by L/M inserts L - 1 zeros between the samples, filters at that common rate, and keeps every M-th sample. The
bank produces the same result without processing the zeros: the phases of the filter are one banded matrix. It maps a
row of samples (history, then 2 ms of input) to 2 ms of output, so that a chunk is one small matrix product.

**Exactness.** A float sum depends on the order of addition, which depends on the BLAS kernel, the processor and the
number of rows. With plain float32 or float64 weights, one sample in a few thousand would differ by one between two
chunkings of a stream. Here the weights are multiples of 2**-32. Products with 16-bit samples and their sums then need
at most 52 bits, which float64 represents exactly: any chunking, on any machine, returns the same bytes.
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
"""Takes the history before a chunk and the chunk; returns its output and the history before the next one."""

ROW_MS = 2
# A longer chunk is split. 100 ms of audio are one product, and the scratch buffers fit into the L2 cache.
MAX_ROWS = 64
# Callers use few chunk lengths. A client that sends many evicts the oldest step: this costs some microseconds per
# chunk, and the memory stays bounded.
MAX_CACHED_STEPS = 64
_WEIGHT_GRID = 2.0**32

current_thread_id = threading.get_ident
"""A step uses scratch buffers of its thread, so it may be cached for that thread only."""


@dataclass(frozen=True, slots=True)
class LowPassDesign:
    """A Kaiser-windowed low-pass filter at the common multiple of two rates; `cutoff_hz` is its -6 dB point."""

    common_hz: int
    taps: int
    cutoff_hz: float
    beta: float

    def coefficients(self, gain: float) -> FloatArray:
        """Return the taps, scaled to the sum `gain`."""
        n = np.arange(self.taps) - (self.taps - 1) / 2
        lowpass = np.sinc(2 * self.cutoff_hz / self.common_hz * n) * np.kaiser(self.taps, self.beta)
        return np.asarray(lowpass * (gain / lowpass.sum()), dtype=np.float64)


class FilterBank:
    """Resamples in one direction between two rates. Weights are immutable; a thread's streams share scratch buffers.

    Input is processed in groups of `group_in` samples, the fewest that give a whole number (`group_out`) of outputs.
    """

    def __init__(self, design: LowPassDesign, source_hz: int, target_hz: int) -> None:
        up, down = design.common_hz // source_hz, design.common_hz // target_hz
        self.group_in, self.group_out = down, up
        self.row_groups = source_hz * ROW_MS // 1000 // self.group_in
        self.history_samples = (design.taps - 1) // up
        # The delay in whole samples: so much silence after the last sample drains the filter.
        self.drain_samples = -(-(design.taps - 1) // (2 * up))
        self._weights = self._banded_weights(design.coefficients(gain=up), up, down)
        # BLAS and the ufuncs release the GIL, so threads must not share scratch buffers.
        self._local = threading.local()

    def _banded_weights(self, taps: FloatArray, up: int, down: int) -> FloatArray:
        """Return the weights as (history + row of input) x (row of output); row k is input sample k - history."""
        n_in, n_out = self.row_groups * self.group_in, self.row_groups * self.group_out
        at_input = (np.arange(self.history_samples + n_in) - self.history_samples)[:, None] * up
        at_output = np.arange(n_out)[None, :] * down
        tap = at_output - at_input
        inside = (tap >= 0) & (tap < len(taps))
        weights = np.where(inside, taps[np.clip(tap, 0, len(taps) - 1)], 0.0)
        return np.ascontiguousarray(np.round(weights * _WEIGHT_GRID) / _WEIGHT_GRID)

    def run(self, buffer: bytes, n_groups: int) -> bytes:
        """Filter the first `n_groups` groups in `buffer` (PCM16: the history, then the groups)."""
        history_bytes = 2 * self.history_samples
        end = history_bytes + 2 * self.group_in * n_groups
        return self.step(n_groups)(buffer[:history_bytes], buffer[history_bytes:end])[0]

    def step(self, n_groups: int) -> "FilterStep":
        """Return the step for chunks of `n_groups` groups, on the scratch buffers of this thread."""
        try:
            steps: dict[int, FilterStep] = self._local.steps
        except AttributeError:
            steps = self._local.steps = {}
            self._local.scratch = _allocate_scratch(*self._weights.shape)
        try:
            return steps[n_groups]
        except KeyError:
            if len(steps) >= MAX_CACHED_STEPS:
                del steps[next(iter(steps))]
            step = steps[n_groups] = self._step(n_groups, self._local.scratch)
            return step

    def _step(self, n_groups: int, scratch: "tuple[NDArray[Any], ...]") -> "FilterStep":
        """Create everything that depends only on the chunk length, so that a chunk creates few objects."""
        rows = -(-n_groups // self.row_groups)
        width = self._weights.shape[0]
        row_in = self.row_groups * self.group_in
        history_bytes, chunk_bytes = 2 * self.history_samples, 2 * n_groups * self.group_in
        # Zeros after the chunk complete the last row; their output is dropped.
        staged = memoryview(bytearray(2 * ((rows - 1) * row_in + width)))
        head, body = staged[:history_bytes], staged[history_bytes : history_bytes + chunk_bytes]
        last = staged[chunk_bytes : chunk_bytes + history_bytes]
        samples: NDArray[np.int16] = np.ndarray((rows, width), "<i2", staged, 0, (2 * row_in, 2))
        source, sums, low, high, result = (array[:rows] for array in scratch)
        output = result.reshape(-1)[: n_groups * self.group_out]
        weights, dot = self._weights, source.dot
        rint, maximum, minimum = np.rint, np.maximum, np.minimum

        def step(history: bytes, chunk: BytesLike) -> tuple[bytes, bytes]:
            head[:] = history
            body[:] = chunk
            source[...] = samples
            dot(weights, sums)
            rint(sums, out=sums)  # half to even
            # np.clip costs several times as much as these two, and array limits cost half of scalar ones.
            maximum(sums, low, out=sums)
            minimum(sums, high, out=sums)
            result[...] = sums
            return output.tobytes(), last.tobytes()

        return step


def _allocate_scratch(width: int, n_out: int) -> tuple[NDArray[Any], ...]:
    """Source, sums, low and high limits, and result, for the longest chunk.

    Steps for shorter chunks use the front, which stays in the cache.
    """
    outputs = (MAX_ROWS, n_out)
    limits = np.full(outputs, -32768.0), np.full(outputs, 32767.0)
    return np.zeros((MAX_ROWS, width)), np.zeros(outputs), *limits, np.zeros(outputs, "<i2")
