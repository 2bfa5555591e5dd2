"""A loss that is no tensor any more is told by its place and type, with the way out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training import ConfigError, Trainer

BATCHES = [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))]
NUMBER = "(a number, no tensor), which has no gradient; return the tensor itself, "
WAY = "without .item(), float() or .numpy()"


def refusal(**options: Any) -> str:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError) as caught:
        Trainer(model, BATCHES, optimizer=optimizer, num_epochs=1, **options).train()
    return str(caught.value)


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda loss: loss.item(), f"returned float {NUMBER}{WAY}"),
        (lambda loss: loss.detach().numpy(), f"returned ndarray {NUMBER}{WAY}"),
        (lambda loss: loss.detach().numpy()[()], f"returned float32 {NUMBER}{WAY}"),
        (lambda loss: loss.detach(), "do not detach it or what it is computed from"),
    ],
)
@pytest.mark.parametrize("role", ["loss_fn", "step_fn"])
def test_a_number_in_place_of_a_loss_is_told_by_its_type(
    role: str, returned: Callable[[Tensor], Any], told: str
) -> None:
    def from_outputs(outputs: Tensor, targets: Tensor) -> Any:
        return returned(cross_entropy(outputs, targets))

    def from_batch(model: nn.Module, batch: Any) -> Any:
        return from_outputs(model(batch[0]), batch[1])

    function = from_outputs if role == "loss_fn" else from_batch
    assert told in refusal(**{role: function})


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda x: {"loss": x.item(), "weight": 4}, f"'loss' as float {NUMBER}{WAY}"),
        (lambda x: {"loss": x.detach().numpy()}, f"'loss' as ndarray {NUMBER}"),
        (
            lambda x: {"loss_sum": x.item(), "weight": 4},
            f"'loss_sum' as float {NUMBER}",
        ),
        (lambda x: SimpleNamespace(loss=x.item()), f"'loss' as float {NUMBER}"),
        (lambda x: {"loss": None, "weight": 4}, "'loss' as None; return the mean loss"),
        (lambda x: {"loss": [x]}, "'loss' as a list of Tensor; return the mean loss"),
        (lambda x: {"loss": x.detach(), "weight": 4}, "do not detach it or what it is"),
    ],
)
def test_an_entry_that_is_no_loss_is_told_by_its_name(
    returned: Callable[[Tensor], Any], told: str
) -> None:
    def step(model: nn.Module, batch: Any) -> Any:
        return returned(cross_entropy(model(batch[0]), batch[1]))

    message = refusal(step_fn=step)
    assert told in message
    assert "did you mean" not in message
