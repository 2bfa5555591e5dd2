"""What a step costs beside the exchange of gradients: one sum."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import nn

from training import Callback, Trainer

pytestmark = pytest.mark.distributed

#: What processes tell one another by.
TELLING = ("sum", "gather", "on_main", "on_each", "share_main", "average")


class Listens(Callback):
    """Might ask for something at each boundary; one process alone calls it."""

    ranks = "main"

    def on_step_end(self, trainer: Trainer) -> None:
        pass


def told(steps: int, accumulation: int, *plugins: Any) -> Counter[str]:
    """Train on ``steps`` windows; return how often each way of telling was used."""
    counts: Counter[str] = Counter()
    torch.manual_seed(0)  # the same data on all
    model = nn.Linear(4, 1)
    trainer = Trainer(
        model,
        [(torch.randn(4, 4), torch.randn(4, 1)) for _ in range(steps * accumulation)],
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.MSELoss(),
        loss_per="samples",
        plugins=["distributed"],
        callbacks=plugins,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=1.0,
        seed=0,
        device="cpu",
    )
    group: Any = trainer.strategy.group  # type: ignore[attr-defined]

    def counting(name: str) -> Any:
        tell = getattr(group, name)

        def counted(*given: Any) -> Any:
            counts[name] += 1
            return tell(*given)

        return counted

    for name in TELLING:
        setattr(group, name, counting(name))
    trainer.train()
    return counts


def told_to_a_plugin(steps: int) -> Counter[str]:
    """Return the same with a plugin that listens."""
    return told(steps, 1, Listens())


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_waits_for_one_sum_however_many_batches_it_has(
    two: Ranks, accumulation: int
) -> None:
    few, many = (two.run(told, steps, accumulation)[0] for steps in (4, 12))
    assert many - few == Counter(sum=8)


def test_a_step_at_whose_end_a_plugin_may_ask_waits_for_one_more(two: Ranks) -> None:
    few, many = (two.run(told_to_a_plugin, steps)[0] for steps in (4, 12))
    assert many - few == Counter(sum=8 + 8)
