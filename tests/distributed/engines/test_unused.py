"""D8: no process steps on gradients that were not exchanged, where one is left out."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from ranks import RankError, Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from training import ConfigError, Trainer

pytestmark = pytest.mark.distributed

#: The batch, of one process, from which on a layer is left out.
FIRST = 4
CLOSE = 1e-6


class Skips(nn.Module):
    """Leaves a layer out from one of its passes on."""

    def __init__(self, first: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(4, 4), nn.Linear(4, 1)
        self.left, self.passes = first, 0

    def forward(self, x: Tensor) -> Tensor:
        """Return (B,) outputs."""
        self.passes += 1
        hidden = x if self.passes > self.left else self.inner(x)
        return self.outer(torch.tanh(hidden)).squeeze(1)


def run(first: int, batches_a_window: int, **options: Any) -> tuple[Trainer, str]:
    """Train until the layer is left out; return what was said, too."""
    drawn = torch.Generator().manual_seed(1)
    rows = TensorDataset(torch.randn(32, 4, generator=drawn), torch.arange(32.0) / 32)
    model = Skips(first)
    trainer = Trainer(
        model,
        DataLoader(rows, batch_size=4),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.functional.mse_loss,
        loss_per="samples",
        gradient_accumulation_steps=batches_a_window,
        device="cpu",
        **options,
    )
    try:
        trainer.train()
    except ConfigError as error:
        return trainer, str(error)
    return trainer, ""


def left_out(
    first: int, batches_a_window: int, finds: bool, max_steps: int | None = None
) -> Any:
    """Return (the steps that were made, the weights then, what was said)."""
    plugins = [{"distributed": {"find_unused_parameters": finds}}]
    trainer, said = run(first, batches_a_window, plugins=plugins, max_steps=max_steps)
    return trainer.step, trainer.model.state_dict(), said


@pytest.mark.parametrize("is_last", [False, True])
@pytest.mark.parametrize("batches_a_window", [1, 2])
def test_d8_no_step_is_made_on_gradients_that_were_not_exchanged(
    two: Ranks, batches_a_window: int, is_last: bool
) -> None:
    # Of the second window of two, the last batch: a gradient of the first is there.
    first = FIRST if batches_a_window == 1 else FIRST - 1
    steps = FIRST if batches_a_window == 1 else 1
    alone, _ = run(99, batches_a_window, max_steps=steps)
    limit = steps + 1 if is_last else None
    for step, weights, said in two.run(left_out, first, batches_a_window, False, limit):
        assert step == steps
        assert "say distributed.find_unused_parameters: true" in said
        for name, value in alone.model.state_dict().items():
            assert torch.allclose(weights[name], value, rtol=0, atol=CLOSE), name


def of_one_rank(batches_a_window: int) -> Any:
    """Leave the layer out on the second process alone."""
    first = FIRST if os.environ["RANK"] == "1" else 99
    trainer, said = run(first, batches_a_window, plugins=["distributed"])
    if said:
        raise ConfigError(said)
    return trainer.step


@pytest.mark.parametrize("batches_a_window", [1, 2])
def test_d8_one_process_that_leaves_it_out_ends_the_run_with_the_way_out(
    two: Ranks, batches_a_window: int
) -> None:
    with pytest.raises(RankError, match="find_unused_parameters: true"):
        two.run(of_one_rank, batches_a_window)


@pytest.mark.parametrize("batches_a_window", [1, 2])
def test_d8_where_it_is_asked_for_all_steps_are_those_of_one_process(
    two: Ranks, batches_a_window: int
) -> None:
    alone, _ = run(FIRST, batches_a_window)
    for step, weights, said in two.run(left_out, FIRST, batches_a_window, True):
        assert (step, said) == (alone.step, "")
        for name, value in alone.model.state_dict().items():
            assert torch.allclose(weights[name], value, rtol=0, atol=CLOSE), name
