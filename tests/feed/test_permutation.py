"""An order that is drawn without being held is that of torch's sampler."""

import pytest
import torch
from torch.utils.data import RandomSampler

from training.feed.permutation import Permutation


@pytest.mark.parametrize("length", [0, 1, 10_000])
def test_a_permutation_is_the_order_of_torchs_random_sampler(length):
    orders = []
    for make in (
        lambda generator: Permutation(length, generator),
        lambda generator: RandomSampler(range(length), generator=generator),
    ):
        if length:
            generator = torch.Generator()
            orders.append(list(make(generator.manual_seed(3))))
            torch.manual_seed(4)
            orders[-1] += list(make(None))
    if length:
        assert orders[0] == orders[1]
        assert sorted(orders[0][:length]) == list(range(length))
    else:
        assert list(Permutation(0)) == []
