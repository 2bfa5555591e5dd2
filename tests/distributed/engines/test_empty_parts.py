"""A process whose part of a batch weighs nothing, under fp16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import nn

from training import Callback, Trainer

pytestmark = pytest.mark.distributed


class Steps(Callback):
    """Keeps whether each step was applied, at which loss scale."""

    def __init__(self) -> None:
        self.kept: list[tuple[bool, float]] = []

    def on_step_end(self, trainer: Trainer, applied: Any) -> None:
        assert trainer.grad_scaler is not None
        self.kept.append((bool(applied), trainer.grad_scaler.get_scale()))


def scaled_steps(engine: str, is_short: bool) -> list[tuple[bool, float]]:
    """Return the steps of a run with a batch of which one part weighs nothing.

    Args:
        engine: of the distributed plugin.
        is_short: whether that part is empty; else its labels are left out.
    """
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4))
    data = [(torch.randn(4, 6), torch.randint(0, 4, (4,))) for _ in range(3)]
    if is_short:
        data[1] = data[1][0][:1], data[1][1][:1]
    else:
        data[1][1][2:] = -100
    steps = Steps()
    Trainer(
        model,
        data,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.functional.cross_entropy,
        loss_per="labels",
        precision="fp16",
        callbacks=[steps],
        plugins=[{"distributed": {"engine": engine}}],
        device="cpu",
    ).train()
    return steps.kept


@pytest.mark.parametrize("is_short", [False, True], ids=["no labels", "no rows"])
@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_d12_a_part_that_weighs_nothing_is_no_overflow(
    two: Ranks, engine: str, is_short: bool
) -> None:
    alone = scaled_steps(engine, is_short)
    assert [applied for applied, _ in alone] == [True] * 3
    assert two.run(scaled_steps, engine, is_short) == [alone, alone]
