"""What modules do when they change their mode, as merging weights, is undone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.modules.train_mode import Modes


class Merges(nn.Linear):
    """Adds a low-rank part to its weight in eval mode, and takes it out again."""

    merged = False

    def train(self, mode: bool = True) -> Merges:
        if mode == self.merged:
            with torch.no_grad():
                self.weight += -1.0 if mode else 1.0
            self.merged = not mode
        super().train(mode)
        return self


@pytest.mark.parametrize("mode", [True, False])
def test_what_a_module_does_on_eval_is_undone_after_an_evaluation(mode: bool) -> None:
    model = Merges(2, 1)
    nn.init.ones_(model.weight)
    model.train(mode)
    before = model.weight.detach().clone()
    with Modes({"model": model}).evaluation():
        assert model.merged
    assert model.merged is not mode
    assert torch.equal(model.weight, before)
