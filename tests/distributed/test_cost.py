"""What a step costs beside the exchange of gradients: two sums, one is waited for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import nn

from training import Trainer

pytestmark = pytest.mark.distributed

#: What processes tell one another by.
TELLING = ("sum", "sum_later", "gather", "on_main", "on_each", "share_main", "average")


def told(steps: int, accumulation: int) -> Counter[str]:
    """Train on ``steps`` batches; return how often each way of telling was used."""
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


@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_step_waits_for_one_sum_however_many_batches_it_has(
    two: Ranks, accumulation: int
) -> None:
    few, many = (two.run(told, steps, accumulation)[0] for steps in (4, 12))
    # A sum is one that is started and waited for at once; the other is under way while
    # the last batch goes backward.
    assert many - few == Counter(sum=8, sum_later=8 + 8)
