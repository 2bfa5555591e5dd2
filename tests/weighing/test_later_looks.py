"""Batches that are looked at again are the same ones however a run comes to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, ConfigError, Trainer
from training.weighing.fit import fit
from training.weighing.later_looks import LAST_LOOK, LaterLooks, is_belied
from training.weighing.subject import Look

WEIGHTS = torch.tensor([1.0, 5.0])


def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    """A mean by class weights, which nobody says."""
    return F.cross_entropy(outputs, targets, WEIGHTS)


def batches() -> list[tuple[Tensor, Tensor]]:
    """Class 0 alone in the first ten, as of samples; then both, by turns."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(64):
        labels = torch.zeros(4, dtype=torch.long)
        if index >= 10:
            labels[: 1 + index % 3] = 1
        found.append((torch.randn(4, 4, generator=generator), labels))
    return found


def make(*callbacks: Any, **options: Any) -> Trainer:
    torch.manual_seed(1)
    model = nn.Linear(4, 2)
    return Trainer(
        model,
        batches(),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=weighted,
        gradient_accumulation_steps=2,
        callbacks=callbacks,
        device="cpu",
        seed=0,
        **options,
    )


def refused_at(trainer: Trainer) -> int:
    with pytest.raises(ConfigError, match="a later batch is not weighed by"):
        trainer.train()
    return trainer.step


class Saves(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_checkpoint(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("step", range(2, 9))
def test_w4_a_resumed_run_is_refused_where_the_whole_one_is(
    step: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    make(Saves(path), max_steps=step).train()
    resumed = make()
    resumed.load_checkpoint(path)
    assert refused_at(resumed) == refused_at(make())


class Evaluates(Callback):
    """Computes a loss in ``evaluate`` after each step."""

    def on_step_end(self, trainer: Trainer) -> None:
        trainer.request_evaluation("each step")

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        for batch in batches()[:3]:
            trainer.compute_loss(batch)
        return {"val_loss": 0.0}


def test_w4_an_evaluation_uses_no_look_up() -> None:
    assert refused_at(make(Evaluates())) == refused_at(make())


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 100, LAST_LOOK - 1, LAST_LOOK])
def test_looks_go_on_from_any_batch(number: int) -> None:
    whole = LaterLooks(0)
    for _ in range(number):
        whole.is_due()
    rest = LaterLooks(whole.number)
    assert (rest.are_left, rest.number) == (whole.are_left, whole.number)
    if whole.are_left:
        due = [whole.is_due() for _ in range(200)]
        assert due == [rest.is_due() for _ in range(200)]


@pytest.mark.parametrize(
    ("size", "is_half", "belied"),
    [
        pytest.param(0.05, True, False, id="rounding of a small part"),
        pytest.param(0.05, False, True, id="which full precision has not"),
        pytest.param(1.0, True, True, id="nor can it move the share of a large one"),
    ],
)
def test_w4_half_precision_belies_no_unit_by_the_share_of_a_small_part(
    size: float, is_half: bool, belied: bool
) -> None:
    first, second = size * torch.eye(4)[0].double(), torch.eye(4)[1].double()
    told = fit(0.27 * first + 2 / 3 * second, first, second, is_half)
    shares = {"samples": (1 / 3, 2 / 3)}
    seen = Look(fit=told, shares=shares, is_none=True, is_half=is_half)
    assert is_belied(["samples"], seen) == belied


def test_w4_half_weights_that_learn_a_mean_over_samples_are_trained_to_the_end() -> (
    None
):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, 768, generator=generator) + 1.0
    targets = inputs @ torch.randn(768, 1, generator=generator)
    torch.manual_seed(0)
    model = nn.Linear(768, 1).bfloat16()
    rows = TensorDataset(inputs.bfloat16(), targets.bfloat16())
    trainer = Trainer(
        model,
        DataLoader(rows, 3, shuffle=True),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2),
        loss_fn=F.mse_loss,
        gradient_accumulation_steps=2,
        num_epochs=2,
        device="cpu",
        seed=1,
    )
    trainer.train()
    assert trainer.step == 100


def test_w4_half_weights_hide_no_other_mean() -> None:
    torch.manual_seed(1)
    model = nn.Linear(4, 2).bfloat16()
    trainer = Trainer(
        model,
        [(inputs.bfloat16(), labels) for inputs, labels in batches()],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=lambda outputs, labels: weighted(outputs.float(), labels),
        gradient_accumulation_steps=2,
        device="cpu",
    )
    assert refused_at(trainer) == refused_at(make())
