"""Proof that work grows no faster than its input: the CPU time of twice as much is compared."""

import gc
import time
from collections.abc import Callable

MAX_FACTOR = 2.5
REPEATS = 12
MIN_COMPARED_MS = 10.0
"""What takes less is not compared: so short a time tells nothing on a busy machine."""


def assert_linear(work: Callable[[int], object], n: int, *, max_ms: float = float("inf")) -> None:
    """`work(2 * n)` takes at most 2.5 times as long as `work(n)`, and at most `max_ms`.

    Choose `n` such that quadratic work takes much longer than `MIN_COMPARED_MS`, as it does with 4,000 characters. The
    shortest of several runs counts.
    """
    once = twice = float("inf")
    for _ in range(REPEATS):
        twice = min(twice, cpu_ms(work, 2 * n))
        if twice <= max_ms and twice < MIN_COMPARED_MS:
            return
        once = min(once, cpu_ms(work, n))
        if twice <= max_ms and twice <= MAX_FACTOR * once:
            return
    raise AssertionError(f"{n}: {once:.1f} ms, {2 * n}: {twice:.1f} ms")


def cpu_ms(work: Callable[[int], object], size: int) -> float:
    """How long one run takes, without the collector's pauses."""
    gc.disable()
    try:
        started = time.process_time()
        work(size)
        return (time.process_time() - started) * 1000
    finally:
        gc.enable()
