"""What a classifier predicts."""

from __future__ import annotations

import pytest
import torch

from training.errors import ConfigError
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


@pytest.mark.parametrize("number", [1, 3, 4])
def test_logits_that_are_not_one_a_label_are_refused_with_both_numbers(number) -> None:
    told = f"a row has {number} logits? for 2 labels"
    with pytest.raises(ConfigError, match=told):
        likeliest(torch.zeros(1, number), ["a", "b"])
