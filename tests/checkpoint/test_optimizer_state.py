"""What torch's optimizers keep fits what a checkpoint may hold of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training import Trainer

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam with amsgrad": lambda p: torch.optim.Adam(p, amsgrad=True),
    "Adam with a rate in a tensor": lambda p: torch.optim.Adam(
        p, lr=torch.tensor(0.01), foreach=False
    ),
    "Adafactor": torch.optim.Adafactor,
    "RMSprop": lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
    "ASGD": torch.optim.ASGD,
    "Rprop": torch.optim.Rprop,
    "NAdam": torch.optim.NAdam,
    "RAdam": torch.optim.RAdam,
    "Adagrad": torch.optim.Adagrad,
    "Adadelta": torch.optim.Adadelta,
    "Adamax": torch.optim.Adamax,
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_each_of_torchs_optimizers_keeps_fits_it(
    tmp_path: Path, kind: str
) -> None:
    """The control: with weights of no, one, two and four dimensions."""

    def trainer() -> Trainer:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(8, 1))
        model.register_parameter("scale", nn.Parameter(torch.ones(())))
        return Trainer(
            model,
            [torch.ones(2, 1, 3, 3)] * 2,
            optimizer=OPTIMIZERS[kind](model.parameters()),
            step_fn=lambda model, batch: (model(batch) * model.scale).square().mean(),
            num_epochs=2,
            device="cpu",
        )

    first = trainer()
    first.num_epochs = 1
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    second = trainer()
    second.load_checkpoint(tmp_path / "a.pt")
    second.train()
    assert second.step == 4


def test_a_resume_names_the_parameters_no_oftener_for_more_groups(
    tmp_path: Path,
) -> None:
    class Counts(nn.Sequential):
        named = 0

        def named_parameters(self, *args: Any, **options: Any) -> Any:
            self.named += 1
            return super().named_parameters(*args, **options)

    def named(groups: int) -> int:
        def trainer() -> Trainer:
            model = Counts(*(nn.Linear(1, 1, bias=False) for _ in range(groups)))
            return Trainer(
                model,
                [torch.ones(2, 1)] * 2,
                optimizer=torch.optim.SGD(
                    [{"params": [p]} for p in model.parameters()]
                ),
                step_fn=lambda model, batch: model(batch).square().mean(),
                num_epochs=1,
                device="cpu",
            )

        first, second = trainer(), trainer()
        first.train()
        first.save_checkpoint(tmp_path / f"{groups}.pt")
        model: Any = second.model
        model.named = 0
        second.load_checkpoint(tmp_path / f"{groups}.pt")
        return int(model.named)

    assert 0 < named(20) == named(2)
