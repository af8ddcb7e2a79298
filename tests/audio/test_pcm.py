import numpy as np
import pytest

from audio import pcm


@pytest.mark.parametrize(
    ("samples", "dbfs"),
    [
        ([-32768] * 100, 0.0),
        ([16384, -16384] * 50, -6.02),
        ([1, -1] * 50, -90.31),
        ([0] * 100, pcm.SILENCE_DBFS),
        ([], pcm.SILENCE_DBFS),
    ],
)
def test_level(samples: list[int], dbfs: float) -> None:
    assert pcm.level_dbfs(np.array(samples, "<i2").tobytes()) == pytest.approx(dbfs, abs=0.01)


def test_a_full_scale_sine_is_three_decibels_down() -> None:
    sine = 32767 * np.sin(2 * np.pi * 1000 * np.arange(24000) / 24000)
    assert pcm.level_dbfs(sine.astype("<i2").tobytes()) == pytest.approx(-3.01, abs=0.01)
