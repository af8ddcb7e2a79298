"""Resampling of PCM16 mono: `Resampler` for live streams, `resample` for complete clips.

Measured properties of the live filters, held by tests/audio/test_resample.py:

| pair | filter | delay | ripple | rejection |
|---|---|---|---|---|
| 16 ↔ 24 kHz | 120 taps at 48 kHz | 1.24 ms | 0.032 dB to 7 kHz | 36 dB from 8.3 kHz, 59.9 from 8.5, 64 from 9 |
| 8 ↔ 24 kHz | 96 taps at 24 kHz | 1.98 ms | 0.023 dB to 3.4 kHz | 55 dB from 4.3 kHz, 65 from 4.6 |
| 24 ↔ 48 kHz | 96 taps at 48 kHz | 0.99 ms | 0.010 dB to 10 kHz, 0.023 to 10.5 | 55 dB from 12.3 kHz, 61 from 12.5 |

Ripple is peak to peak. The short delay costs a wide transition band: a tone just above half the lower rate is only
15 to 26 dB down, and aliases to just below it.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import ceil, gcd

import numpy as np

from audio.fir import MAX_ROWS, FilterBank, FilterStep, FloatArray, LowPassDesign, current_thread_id
from audio.framing import BytesLike, SampleAligner

LIVE_RATES_HZ = (8000, 16000, 24000, 48000)
CLIP_SOURCE_RANGE_HZ = (4000, 192000)  # the range of rates of complete clips

# By the rate at the other end of 24 kHz; both directions share a design.
_DESIGNS = {
    8000: LowPassDesign(common_hz=24000, taps=96, cutoff_hz=3850, beta=5.65),
    16000: LowPassDesign(common_hz=48000, taps=120, cutoff_hz=7700, beta=5.65),
    48000: LowPassDesign(common_hz=48000, taps=96, cutoff_hz=11400, beta=5.65),
}


class Resampler:
    """Resamples one stream between two of `LIVE_RATES_HZ`. Raises ValueError for any other rate.

    Any chunking, down to single bytes, returns exactly the same samples. Pairs without 24 kHz are resampled through it.
    Equal rates return chunks unchanged. The state is less than 0.2 KiB per stage. A stream must not be used by two
    threads at a time.
    """

    __slots__ = ("_aligner", "_stages")

    def __init__(self, source_hz: int, target_hz: int) -> None:
        self._aligner = SampleAligner()
        self._stages = tuple(_Stage(bank) for bank in _banks(source_hz, target_hz))

    def feed(self, chunk: BytesLike) -> bytes:
        """Return the samples that `chunk` completes, maybe none. Whole samples at equal rates are not copied."""
        if not self._stages:
            whole = self._aligner.feed(chunk)
            return whole if isinstance(whole, bytes) else bytes(whole)
        pcm = self._stages[0].feed(chunk)
        for stage in self._stages[1:]:
            pcm = stage.feed(pcm)
        return pcm

    @property
    def direct_feed(self) -> Callable[[BytesLike], bytes]:
        """`feed` without dispatch, for callers with many chunks."""
        return self._stages[0].feed if len(self._stages) == 1 else self.feed

    def flush(self) -> bytes:
        """Return the delayed rest of the stream, then `reset`. An incomplete sample is dropped."""
        remainder = b""
        for stage in self._stages:
            remainder = stage.feed(remainder) + stage.flush()
        self.reset()
        return remainder

    def reset(self) -> None:
        """Start a new stream, after silence."""
        self._aligner.reset()
        for stage in self._stages:
            stage.reset()


class _Stage:
    """A filter bank on one stream. Its state is the tail: the history, and the samples of an incomplete group."""

    __slots__ = (
        "_chunk_bytes",
        "_group_bytes",
        "_has_input",
        "_history_bytes",
        "_max_groups",
        "_step",
        "_tail",
        "_thread",
        "bank",
    )  # fmt: skip

    def __init__(self, bank: FilterBank) -> None:
        self.bank = bank
        self._history_bytes = 2 * bank.history_samples
        self._group_bytes = 2 * bank.group_in
        self._max_groups = MAX_ROWS * bank.row_groups
        self._step: FilterStep = _no_step
        self._chunk_bytes = self._thread = -1
        self.reset()

    def reset(self) -> None:
        self._tail = bytes(self._history_bytes)
        self._has_input = False
        self._chunk_bytes = -1

    def feed(self, chunk: BytesLike) -> bytes:
        if (
            len(chunk) == self._chunk_bytes
            and len(self._tail) == self._history_bytes
            and current_thread_id() == self._thread
        ):
            pcm, self._tail = self._step(self._tail, chunk)  # same length as the last chunk
            return pcm
        if not chunk:
            return b""
        self._has_input = True
        buffer = self._tail + chunk
        groups = (len(buffer) - self._history_bytes) // self._group_bytes
        self._tail = buffer[groups * self._group_bytes :]
        if groups <= self._max_groups:
            if groups and groups * self._group_bytes == len(chunk):
                self._step, self._chunk_bytes, self._thread = self.bank.step(groups), len(chunk), current_thread_id()
            return self.bank.run(buffer, groups) if groups else b""
        return b"".join(self._in_blocks(buffer, groups))

    def _in_blocks(self, buffer: bytes, n_groups: int) -> Iterator[bytes]:
        """Filter a chunk that is longer than the scratch buffers, block by block with history."""
        for start in range(0, n_groups, self._max_groups):
            count = min(self._max_groups, n_groups - start)
            begin = start * self._group_bytes
            block = buffer[begin : begin + self._history_bytes + count * self._group_bytes]
            yield self.bank.run(block, count)

    def flush(self) -> bytes:
        if not self._has_input:
            return b""
        waiting = (len(self._tail) - self._history_bytes) // 2
        groups = -(-(waiting + self.bank.drain_samples) // self.bank.group_in)
        whole = self._tail[: self._history_bytes + 2 * waiting]
        drained = self.bank.run(whole + bytes(groups * self._group_bytes - 2 * waiting), groups)
        self.reset()
        return drained


def _no_step(history: bytes, chunk: BytesLike) -> tuple[bytes, bytes]:
    raise AssertionError("unreachable: no chunk has a negative length")


@lru_cache(maxsize=16)
def _banks(source_hz: int, target_hz: int) -> tuple[FilterBank, ...]:
    """Return the filter banks between two live rates, in order, shared by all streams."""
    for rate_hz in (source_hz, target_hz):
        if rate_hz not in LIVE_RATES_HZ:
            allowed = ", ".join(map(str, LIVE_RATES_HZ))
            raise ValueError(f"a live stream can be resampled between {allowed} Hz, not {rate_hz!r} Hz")
    if source_hz == target_hz:
        return ()
    if 24000 not in (source_hz, target_hz):
        return _banks(source_hz, 24000) + _banks(24000, target_hz)
    design = _DESIGNS[target_hz if source_hz == 24000 else source_hz]
    return (FilterBank(design, source_hz, target_hz),)


# --- whole clips -------------------------------------------------------------------------------------------------

# The clip filter spans 32 zero crossings on each side. Its -6 dB point leaves room for a transition band to -80 dB
# below the lower Nyquist frequency, so nothing aliases.
_CLIP_CROSSINGS = 32
_CLIP_CUTOFF = 0.461
_CLIP_BETA = 7.86
_CLIP_BLOCK = 4096  # outputs at a time: bounds the working memory
_CLIP_TABLE_MAX = 1 << 23  # 64 MiB; only rates with a small common divisor come near it


def resample(pcm: BytesLike, source_hz: int, target_hz: int) -> bytes:
    """Resample a complete clip without delay, to ceil(samples * target / source) samples.

    `source_hz` is any rate within `CLIP_SOURCE_RANGE_HZ` (such as 22050 or 44100), `target_hz` one of `LIVE_RATES_HZ`;
    others raise ValueError. An incomplete sample is dropped. The filter is steeper than that of `Resampler`, which
    trades this for delay: flat to 0.42 of the lower rate, -80 dB from half of it.
    """
    lowest_hz, highest_hz = CLIP_SOURCE_RANGE_HZ
    if target_hz not in LIVE_RATES_HZ or not lowest_hz <= source_hz <= highest_hz:
        raise ValueError(f"cannot resample a clip from {source_hz} to {target_hz} Hz")
    whole = memoryview(pcm)[: len(pcm) // 2 * 2]
    if source_hz == target_hz or not whole:
        return bytes(whole)
    common = gcd(source_hz, target_hz)
    up, down = target_hz // common, source_hz // common
    table = _clip_table(up, down)
    reach = table.shape[1] // 2
    samples = np.frombuffer(whole, "<i2")
    padded_samples = np.concatenate((np.zeros(reach), samples, np.zeros(reach + 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded_samples, table.shape[1])
    n_out = -(-len(samples) * up // down)
    result = np.empty(n_out, "<i2")
    for start in range(0, n_out, _CLIP_BLOCK):
        at = np.arange(start, min(start + _CLIP_BLOCK, n_out), dtype=np.int64) * down
        sums = np.einsum("ij,ij->i", windows[at // up], table[at % up])
        result[start : start + len(at)] = np.clip(np.rint(sums), -32768, 32767)
    return result.tobytes()


def _clip_table(up: int, down: int) -> FloatArray:
    """Return the weights as phases x window: row p is for an output p/up of a sample after the middle of its window."""
    width = 2 * ceil(_CLIP_CROSSINGS * max(1.0, down / up)) + 1
    if up * width > _CLIP_TABLE_MAX:
        raise ValueError(f"cannot resample a clip by {up}/{down}: the common divisor of the rates is too small")
    return _cached_clip_table(up, down, width) if up * width <= 1 << 17 else _new_clip_table(up, down, width)


def _new_clip_table(up: int, down: int, width: int) -> FloatArray:
    bandwidth = min(1.0, up / down)  # of the lower rate, in cycles per input sample
    distance = np.arange(width) - width // 2 - np.arange(up)[:, None] / up
    inside = np.clip(1 - (distance / (width // 2)) ** 2, 0, None)
    window = np.i0(_CLIP_BETA * np.sqrt(inside)) / np.i0(_CLIP_BETA)
    weights = np.sinc(2 * _CLIP_CUTOFF * bandwidth * distance) * window
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float64)


_cached_clip_table = lru_cache(maxsize=8)(_new_clip_table)
