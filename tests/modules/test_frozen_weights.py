"""Some numbers of a weight tell whether somebody has written to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.modules.frozen_weights import sample_of


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.randn(100, 33).t(), id="transposed"),
        pytest.param(torch.randn(4, 5, 6).permute(2, 0, 1), id="permuted"),
        pytest.param(torch.randn(300)[::2], id="every second"),
        pytest.param(torch.randn(9, 9, dtype=torch.complex64).t(), id="complex"),
        pytest.param(torch.randn(5, 1).expand(5, 200), id="expanded"),
        pytest.param(torch.zeros(0, 3).t(), id="empty"),
        pytest.param(torch.randn(()), id="a scalar"),
    ],
)
def test_the_sample_is_that_of_the_numbers_in_order(tensor: Tensor) -> None:
    assert torch.equal(sample_of(tensor), sample_of(tensor.contiguous()))


def test_a_sample_copies_no_more_than_itself() -> None:
    large = torch.ones(1, 1).expand(2**40, 2)  # 8 TiB, were it copied
    assert torch.equal(sample_of(large), torch.ones(64).view(torch.uint8))
