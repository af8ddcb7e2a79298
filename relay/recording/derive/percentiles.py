"""Nearest-rank percentiles: each is a value that did occur."""

from collections.abc import Sequence
from typing import TypeVar

NumberT = TypeVar("NumberT", int, float)


def percentile(values: Sequence[NumberT], percent: int) -> NumberT:
    """The value that `percent` of the values do not exceed; there must be one at least."""
    return sorted(values)[max(-(-len(values) * percent // 100), 1) - 1]


def p50_and_p95(values_ms: Sequence[int]) -> str:
    """Both, of times in ms, for people."""
    return f"p50 {percentile(values_ms, 50)} ms, p95 {percentile(values_ms, 95)} ms"
