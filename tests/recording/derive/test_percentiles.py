"""Percentiles by nearest rank."""

from relay.recording.derive.percentiles import p50_and_p95, percentile


def test_percentiles_are_values_that_occurred() -> None:
    assert [percentile([4, 1, 3, 2], percent) for percent in (50, 95, 0, 100)] == [2, 4, 1, 4]
    assert p50_and_p95([300]) == "p50 300 ms, p95 300 ms"
