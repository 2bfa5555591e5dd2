"""A model that fits nowhere is refused in words, and no random number is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from trainbus_models.sizes import fresh_weights
from training import ConfigError


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: nn.Linear(2**40, 2**40), id="no numbers for it"),
        pytest.param(lambda: nn.Linear(2**25, 2**25), id="no memory for it"),
    ],
)
def test_a_model_that_fits_nowhere_is_refused_with_its_sizes(
    build: Callable[[], object],
) -> None:
    told = "a model of hidden_size 64 and patch_size 2 does not fit into memory"
    before = torch.random.get_rng_state()
    refused = pytest.raises(ConfigError, match=told)
    with refused, fresh_weights(3, hidden_size=64, patch_size=2):
        build()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_width_of_no_use_is_refused_before_anything_is_made() -> None:
    told = "a model of hidden_size 1048576 and depth 1 does not fit into memory"
    with pytest.raises(ConfigError, match=told), fresh_weights(3, 2**20, depth=1):
        pytest.fail("built all the same")


def test_any_other_error_is_left_as_it_is() -> None:
    raised = pytest.raises(RuntimeError, match="shapes")
    with raised, fresh_weights(3, hidden_size=64, patch_size=2):
        torch.ones(2, 3) @ torch.ones(2, 3)


def test_weights_depend_on_the_seed_alone() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.randn(1)
        with fresh_weights(seed, hidden_size=1):
            drawn.append(torch.randn(3))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
