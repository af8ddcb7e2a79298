"""Proof that work grows no faster than its input: the CPU time of twice as much is compared."""

import gc
import time
from collections.abc import Callable

MOST_FACTOR = 2.5
REPEATS = 7
TOO_SHORT_MS = 2.0


def assert_linear(work: Callable[[int], object], n: int, *, most_ms: float = float("inf")) -> None:
    """`work(2 * n)` takes at most 2.5 times as long as `work(n)`, and at most `most_ms`.

    What takes less than 2 ms is not compared: choose `n` such that quadratic work takes much longer, as it does with
    16,000 characters. The shortest of several runs counts, so that a busy machine makes no difference.
    """
    once = twice = float("inf")
    for _ in range(REPEATS):
        once, twice = min(once, cpu_ms(work, n)), min(twice, cpu_ms(work, 2 * n))
        if twice <= most_ms and (twice < TOO_SHORT_MS or twice <= MOST_FACTOR * once):
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
