"""What a classifier predicts."""

from __future__ import annotations

import pytest
import torch

from training.plugin import likeliest

NAN = float("nan")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("row", "label"),
    [
        ([2.0, 1.0, 0.0], "a"),
        ([0.0, 1.0, float("inf")], "c"),
        ([NAN, 1.0, 0.0], None),
        ([0.0, 9.0, NAN], None),
        ([NAN, NAN, NAN], None),
    ],
)
def test_a_row_gets_the_label_of_its_highest_logit_and_none_where_one_is_nan(
    row, label, dtype
) -> None:
    assert likeliest(torch.tensor([row], dtype=dtype), ["a", "b", "c"]) == [label]


def test_what_a_row_with_nan_gets_is_the_callers() -> None:
    assert likeliest(torch.tensor([[NAN, 0.0]]), ["a", "b"], otherwise="") == [""]
