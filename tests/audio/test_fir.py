import numpy as np

from audio.fir import MAX_CACHED_STEPS, FilterBank, LowPassDesign

DESIGN = LowPassDesign(common_hz=48000, taps=120, cutoff_hz=7700, beta=5.65)


def test_the_cut_off_is_six_decibels_down() -> None:
    taps = DESIGN.coefficients(gain=1)
    at_cutoff = np.exp(-2j * np.pi * DESIGN.cutoff_hz / DESIGN.common_hz * np.arange(len(taps)))
    assert abs(20 * np.log10(abs(taps @ at_cutoff)) + 6.02) < 0.1
    assert abs(taps.sum() - 1) < 1e-12


def test_every_sum_is_exact() -> None:
    """The condition of exactness: weights on the grid, and the largest possible sum within 53 bits of it."""
    for pair in ((16000, 24000), (24000, 16000)):
        weights = FilterBank(DESIGN, *pair)._weights * 2.0**32
        assert np.array_equal(weights, np.round(weights))
        assert np.abs(weights).sum(axis=0).max() * 32768 < 2.0**53


def test_steps_are_bounded_whatever_lengths_come() -> None:
    bank = FilterBank(DESIGN, 16000, 24000)
    buffer = bytes(2 * (bank.history_samples + 2 * 500))
    first = bank.run(buffer, 7)
    for groups in range(1, 400):
        assert len(bank.run(buffer, groups)) == groups * 3 * 2
    assert len(bank._local.steps) == MAX_CACHED_STEPS
    assert bank.run(buffer, 7) == first
