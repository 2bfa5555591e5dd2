"""One function decides which value of a metric is the better one."""

from __future__ import annotations

import math

import pytest

from training.plugin import gain

LEAST = 5e-324  # the smallest float above 0


@pytest.mark.parametrize(
    ("value", "other", "mode", "is_better"),
    [
        pytest.param(1.0, 2.0, "min", True, id="less, in min"),
        pytest.param(1.0, 2.0, "max", False, id="less, in max"),
        pytest.param(2.0, 1.0, "max", True, id="more, in max"),
        pytest.param(2.0, 2.0, "max", False, id="equal"),
        pytest.param(math.nan, 2.0, "min", False, id="NaN"),
        pytest.param(math.nextafter(2, 1), 2.0, "min", True, id="the next float"),
        pytest.param(LEAST, 0.0, "max", True, id="the least of all"),
        pytest.param(-1e308, 1.5e308, "min", True, id="farther than a float goes"),
    ],
)
def test_a_value_is_better_by_what_it_gains(
    value: float, other: float, mode: str, is_better: bool
) -> None:
    assert (gain(value, other, mode) > 0) is is_better
