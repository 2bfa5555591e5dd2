"""A batch, or a process's part of one, that weighs nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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


def without_labels(place: int, plugins: list[Any]) -> tuple[int, float, list[float]]:
    """Return updates, loss and weights of a run with a batch of no label.

    Args:
        place: of the batch.
        plugins: of the run.
    """
    torch.manual_seed(1)
    model = nn.Linear(6, 4)
    inputs, labels = torch.randn(16, 6), torch.randint(0, 4, (16,))
    labels[4 * place : 4 * place + 4] = -100
    trainer = Trainer(
        model,
        DataLoader(TensorDataset(inputs, labels), batch_size=4),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=lambda outputs, labels: nn.functional.cross_entropy(outputs, labels),
        plugins=plugins,
        device="cpu",
    )
    trainer.train()
    loss = trainer.history[0]["train_loss"]
    return trainer.update, loss, model.weight.flatten().tolist()


@pytest.mark.parametrize("place", [0, 2])
def test_d6_a_batch_without_any_label_weighs_nothing_wherever_it_stands(
    two: Ranks, place: int
) -> None:
    updates, loss, weights = without_labels(place, [])
    assert updates == 3
    for found in two.run(without_labels, place, ["distributed"]):
        assert found[0] == updates
        assert found[1] == pytest.approx(loss, rel=1e-6)
        assert found[2] == pytest.approx(weights, abs=1e-6)


def masked_mean(model: nn.Module, batch: Any) -> dict[str, Any]:
    """Return a mean over rows that a mask keeps: NaN where it keeps none."""
    inputs, targets, mask = batch
    losses = (model(inputs)[:, 0] - targets) ** 2
    return {"loss": (losses * mask).sum() / mask.sum(), "weight": float(mask.sum())}


def masked(plugins: list[Any], window: int) -> list[float]:
    """Return the weights of a run whose second process gets rows without weight."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
    inputs, mask = torch.randn(32, 6), torch.ones(32)
    mask[torch.arange(32) % 8 >= 4] = 0
    mask[24:] = 1
    Trainer(
        model,
        DataLoader(TensorDataset(inputs, inputs.sum(1), mask), batch_size=8),
        optimizer=torch.optim.SGD(model.parameters(), 0.05),
        step_fn=masked_mean,
        gradient_accumulation_steps=window,
        plugins=plugins,
        num_epochs=2,
        device="cpu",
    ).train()
    return nn.utils.parameters_to_vector(model.parameters()).tolist()


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("finds_unused", [False, True])
def test_d12_a_mean_over_nothing_moves_nothing_also_where_unused_ones_are_found(
    two: Ranks, finds_unused: bool, window: int
) -> None:
    plugin = {"distributed": {"find_unused_parameters": finds_unused}}
    alone = masked([], window)
    for found in two.run(masked, [plugin], window):
        assert found == pytest.approx(alone, abs=1e-6)


class Looked(nn.Module):
    """Looks words up in a table whose gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(50, 8, sparse=True), nn.Linear(8, 3)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(words).mean(1))


def sparse(plugins: list[Any], rows: int, window: int) -> list[float]:
    """Return the weights of a run of so many rows, four a batch."""
    torch.manual_seed(1)
    model = Looked()
    words, labels = torch.randint(0, 50, (rows, 5)), torch.randint(0, 3, (rows,))
    Trainer(
        model,
        DataLoader(TensorDataset(words, labels), batch_size=4),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.functional.cross_entropy,
        gradient_accumulation_steps=window,
        plugins=plugins,
        num_epochs=2,
        device="cpu",
    ).train()
    return nn.utils.parameters_to_vector(model.parameters()).tolist()


@pytest.mark.parametrize(("rows", "window"), [(17, 1), (17, 2), (16, 1)])
def test_d12_an_empty_part_gives_a_sparse_table_a_sparse_gradient(
    two: Ranks, rows: int, window: int
) -> None:
    alone = sparse([], rows, window)
    for found in two.run(sparse, ["distributed"], rows, window):
        assert found == pytest.approx(alone, abs=1e-6)
