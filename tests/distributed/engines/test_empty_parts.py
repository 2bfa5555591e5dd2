"""A batch, or a process's part of one, that weighs nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor, nn
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


class Paths(nn.Module):
    """Has a layer for odd batches only, and one for none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.always, self.odd, self.never = (nn.Linear(6, 4) for _ in range(3))

    def forward(self, inputs: Tensor, is_odd: Tensor) -> Tensor:
        """Return (B, 4) outputs."""
        outputs = self.always(inputs)
        return outputs + self.odd(inputs) if bool(is_odd[0]) else outputs


def masked_step(model: nn.Module, batch: Any) -> dict[str, Any]:
    """Return a mean over the rows that count, 0 / 0 where none does."""
    inputs, is_odd, mask = batch
    values = model(inputs, is_odd).square().sum(1)
    return {"loss": (values * mask).sum() / mask.sum(), "weight": float(mask.sum())}


def masked(accumulation: int, options: dict[str, Any]) -> list[list[float]]:
    """Return the weights after a run in which parts of batches count nothing.

    Args:
        accumulation: batches a window.
        options: of the distributed plugin.
    """
    model = Paths()
    mask = torch.ones(16)
    mask[[2, 3, 4, 5]] = 0  # the second process's in the first, the first's in another
    is_odd = torch.arange(16) // 4 % 2 == 1
    rows = TensorDataset(torch.randn(16, 6), is_odd, mask)
    Trainer(
        model,
        DataLoader(rows, batch_size=4),
        optimizer=torch.optim.SGD(model.parameters(), 0.01),
        step_fn=masked_step,
        gradient_accumulation_steps=accumulation,
        plugins=[{"distributed": options}],
        device="cpu",
    ).train()
    return [parameter.flatten().tolist() for parameter in model.parameters()]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_d9_a_part_that_weighs_nothing_moves_nothing_where_parameters_go_unused(
    two: Ranks, accumulation: int
) -> None:
    options = {"find_unused_parameters": True}
    alone = masked(accumulation, options)
    for found in two.run(masked, accumulation, options):
        for weights, expected in zip(found, alone, strict=True):
            assert weights == pytest.approx(expected, abs=1e-6)


def embedded(kind: str, finds: bool) -> list[float]:
    """Return the embeddings after a run whose last batch has one row.

    Args:
        kind: of the sparse layer.
        finds: whether unused parameters are looked for.
    """
    torch.manual_seed(1)
    embedding = getattr(nn, kind)(9, 4, sparse=True)
    pool = nn.Flatten() if kind == "Embedding" else nn.Identity()
    model = nn.Sequential(embedding, pool, nn.LazyLinear(3))
    inputs, labels = torch.randint(0, 9, (9, 5)), torch.randint(0, 3, (9,))
    model(inputs)
    sparse = torch.optim.SparseAdam([embedding.weight], 0.1)
    Trainer(
        model,
        DataLoader(TensorDataset(inputs, labels), batch_size=4),
        optimizer=sparse,
        loss_fn=nn.functional.cross_entropy,
        plugins=[{"distributed": {"find_unused_parameters": finds}}],
        num_epochs=2,
        device="cpu",
    ).train()
    weights: list[float] = embedding.weight.flatten().tolist()
    return weights


@pytest.mark.parametrize("finds", [False, True])
@pytest.mark.parametrize("kind", ["Embedding", "EmbeddingBag"])
def test_d9_an_empty_part_has_a_sparse_gradient_where_a_layer_has(
    two: Ranks, kind: str, finds: bool
) -> None:
    alone = embedded(kind, finds)
    for found in two.run(embedded, kind, finds):
        assert found == pytest.approx(alone, abs=1e-5)
