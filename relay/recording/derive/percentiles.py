"""Nearest-rank percentiles: each is one of the values."""

from collections.abc import Sequence
from typing import TypeVar

NumberT = TypeVar("NumberT", int, float)


def percentile(values: Sequence[NumberT], percent: int) -> NumberT:
    """Return the smallest value that at least `percent` of the values do not exceed; `values` must not be empty."""
    return sorted(values)[max(-(-len(values) * percent // 100), 1) - 1]


def p50_and_p95(values_ms: Sequence[int]) -> str:
    """Format the median and the 95th percentile of times in ms."""
    return f"p50 {percentile(values_ms, 50)} ms, p95 {percentile(values_ms, 95)} ms"
