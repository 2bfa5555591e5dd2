"""Batches that nobody can take apart: outputs are cut, or rows collated once more."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, get_worker_info
from weighing.zoo import Perceptron, difference, flat

from training import Trainer
from training.errors import ConfigError

SIZES = (2, 5, 3, 4, 1, 6, 2, 3)


class Pooled(Perceptron):
    """From nodes (N, 6) of graphs ``of`` (N,) to (B, 5), or (N, 5) without pooling."""

    def __init__(self, pools: bool = True) -> None:
        super().__init__()
        self.pools = pools

    def forward(self, nodes: Tensor, of: Tensor) -> Tensor:  # type: ignore[override]
        """Return the outputs."""
        outputs = self.layers(nodes)
        if not self.pools:
            return outputs  # type: ignore[no-any-return]
        counts = torch.bincount(of)
        sums = torch.zeros(len(counts), 5).index_add(0, of, outputs)
        return sums / counts[:, None]


def graphs(kind: str) -> list[Any]:
    """Return rows (nodes, targets): classes or numbers of graphs or of nodes."""
    draws, rows = torch.Generator().manual_seed(0), []
    for number, size in enumerate(SIZES):
        nodes = torch.randn(size, 6, generator=draws)
        targets = torch.randn(size, 5, generator=draws)
        classes = torch.tensor(number % 5)
        if kind == "classes":
            rows.append((nodes, classes if number % 3 else torch.tensor(-100)))
        else:
            rows.append((nodes, targets[0] if kind == "numbers" else targets[:, 0]))
    return rows


def batch_of(rows: list[Any], of_nodes: bool = False) -> Any:
    """Return all nodes in one tensor, and the graph that each belongs to."""
    nodes = torch.cat([x for x, _ in rows])
    of = torch.cat([torch.full((len(x),), i) for i, (x, _) in enumerate(rows)])
    targets = [y for _, y in rows]
    return nodes, of, torch.cat(targets) if of_nodes else torch.stack(targets)


def update(kind: str, sizes: tuple[int, ...], loss: Any, **options: Any) -> Tensor:
    """Return the update of one window of batches of ``sizes``."""
    rows, model = graphs(kind), Pooled(pools=kind != "nodes")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    before = flat(model)
    Trainer(
        model,
        [
            batch_of(rows[a : a + n], kind == "nodes")
            for a, n in zip(starts, sizes, strict=True)
        ],
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=loss,
        gradient_accumulation_steps=len(sizes),
        device="cpu",
        **options,
    ).train()
    return flat(model) - before


def entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return torch's own, which nobody can know from outside."""
    return F.cross_entropy(outputs, targets)


def of_nodes(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a mean over nodes."""
    return F.mse_loss(outputs[:, 0], targets)


def weighed(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a mean by the size of the targets, which no unit is."""
    errors = (outputs - targets).square().mean(1)
    weights = targets.abs().sum(1)
    return (errors * weights).sum() / weights.sum()


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        pytest.param("classes", entropy, id="labels"),
        pytest.param("numbers", F.mse_loss, id="numbers of graphs"),
        pytest.param("nodes", of_nodes, id="numbers of nodes"),
    ],
)
def test_outputs_are_cut_where_inputs_cannot_be(kind: str, loss: Any) -> None:
    whole = update(kind, (8,), loss)
    assert difference(update(kind, (3, 5), loss), whole) < 1e-5
    alike = update(kind, (3, 5), loss, loss_per=lambda batch: 1.0)
    assert difference(alike, whole) > 1e-2  # the control


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        pytest.param(weighed, "the loss is no mean over", id="another mean"),
        pytest.param(
            nn.MSELoss(reduction="sum"), "parts that add up to the whole", id="a sum"
        ),
    ],
)
def test_outputs_that_no_unit_explains_are_refused(loss: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        update("numbers", (4, 4), loss)


class InAWorker(Dataset[Any]):
    """Can be read in a worker only."""

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, index: int) -> Any:
        assert get_worker_info() is not None, "read in the main process"
        return graphs("numbers")[index]


def means(model: nn.Module, batch: Any) -> Tensor:
    """Return a mean over graphs."""
    return F.mse_loss(model(*batch[:2]), batch[2])


def test_rows_are_collated_again_where_the_loader_reads_them() -> None:
    updates = []
    for size in (8, 3):
        model = Pooled()
        before = flat(model)
        Trainer(
            model,
            DataLoader(
                InAWorker(), batch_size=size, collate_fn=batch_of, num_workers=1
            ),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            step_fn=means,
            gradient_accumulation_steps=-(-8 // size),
            device="cpu",
        ).train()
        updates.append(flat(model) - before)
    assert difference(updates[1], updates[0]) < 1e-5


class DrawsByItself(Dataset[Any]):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        self.noise = random.Random(0)

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, index: int) -> Any:
        nodes, targets = graphs("numbers")[index]
        return nodes + self.noise.random(), targets


def test_w3_a_generator_of_the_data_set_is_put_back() -> None:
    """Its rows are read once more to be collated again."""
    ends = []
    for said in (None, "samples"):
        model, data = Pooled(), DrawsByItself()
        Trainer(
            model,
            DataLoader(data, batch_size=3, collate_fn=batch_of),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            step_fn=means,
            gradient_accumulation_steps=2,
            loss_per=said,
            device="cpu",
        ).train()
        ends.append((flat(model), data.noise.getstate()))
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]
