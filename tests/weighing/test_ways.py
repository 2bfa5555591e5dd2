"""The ways to cut a batch, which come first, and what needs a licence."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset
from weighing.language import made, texts
from weighing.zoo import (
    SPLIT,
    Kind,
    Perceptron,
    classes,
    difference,
    flat,
    named,
    sequences,
    stacked,
)

from training import Trainer
from training.errors import ConfigError
from training.feed.structure import CannotCutError
from training.loop.forward import make_forward
from training.weighing.counts import Contents, Counts
from training.weighing.cut import Masks, has_licence
from training.weighing.weigher import Weigher

ONES = (1,) * 8
gpt2 = partial(made, "GPT2")


def summed_by_rows(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over labels, divided by the number of rows."""
    losses = F.cross_entropy(outputs.transpose(1, 2), targets, reduction="sum")
    return losses / len(targets)


def test_w5_rows_come_first_for_masks_take_a_sum_by_rows_for_a_sum() -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        return summed_by_rows(model(batch[0]), batch[1])

    kind = Kind(Perceptron, sequences(), stacked, {"step_fn": step})
    trainer = kind.trainer((8,), times=2)
    trainer.train()
    assert trainer.state.weigher.settings()["unit"] == "samples"
    assert difference(kind.update(SPLIT), kind.update((8,))) < 1e-5


@pytest.mark.parametrize("prompt", [True, False], ids=["prompt masked", "whole text"])
def test_one_row_a_batch_is_told_by_masks(prompt: bool) -> None:
    kind = Kind(gpt2, texts(prompt=prompt), named)
    assert difference(kind.update(ONES), kind.update((8,))) < 1e-5
    by_samples = kind.update(ONES, loss_per="samples")
    assert difference(by_samples, kind.update((8,))) > 1e-2


def flat_collate(rows: list[Any]) -> dict[str, Tensor]:
    """Return rows whose inputs lie one after another, as pictures' patches do."""
    return {
        "input_ids": torch.cat([row["input_ids"] for row in rows]),
        "labels": torch.stack([row["labels"] for row in rows]),
    }


class Flat(nn.Module):
    """A language model of inputs that cannot be cut into rows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = made("Llama")

    def forward(self, input_ids: Tensor, labels: Tensor) -> Any:
        """Return the loss of ids (B * T,) and labels (B, T)."""
        return self.inner(input_ids=input_ids.reshape(labels.shape), labels=labels)


def test_inputs_without_rows_are_told_by_masks() -> None:
    kind = Kind(Flat, texts(prompt=True, masks=False), flat_collate)
    assert difference(kind.update(SPLIT), kind.update((8,))) < 1e-5


def test_w5_labels_are_not_masked_without_a_licence() -> None:
    """A CTC loss with a label below zero may end the process."""
    x, y = torch.zeros(12, 6), torch.ones(2, 4, dtype=torch.int64)
    counts, model = Counts(), nn.Linear(6, 5)
    assert not has_licence((x, y), model, counts)
    with pytest.raises(CannotCutError, match="known to be left out"):
        Masks(Contents(counts, (x, y)), has_licence((x, y), model, counts))


@pytest.mark.parametrize(
    ("labels", "loss_fn", "model"),
    [
        pytest.param([1, -100], None, nn.Identity(), id="-100 is among the labels"),
        pytest.param([1, 2], nn.CrossEntropyLoss(), nn.Identity(), id="torch's loss"),
        pytest.param(
            [1, 2], None, SimpleNamespace(loss_type="ForCausalLM"), id="named"
        ),
    ],
)
def test_a_licence_is(labels: list[int], loss_fn: Any, model: Any) -> None:
    batch = {"labels": torch.tensor(labels)}
    assert has_licence(batch, model, Counts(loss_fn))


@pytest.mark.parametrize("kind", [torch.uint8, np.uint8, torch.int16, np.int16])
def test_labels_that_cannot_hold_the_ignored_one_give_no_licence(kind: Any) -> None:
    is_tensor = isinstance(kind, torch.dtype)
    labels: Any = (
        torch.tensor([[156, 3]], dtype=kind)
        if is_tensor
        else np.array([[156, 3]], dtype=kind)
    )
    x, loss_fn = torch.zeros(1, 2), nn.CrossEntropyLoss()
    holds = "int16" in str(kind) and "uint" not in str(kind)
    assert has_licence((x, labels), nn.Linear(1, 1), Counts(loss_fn)) == holds
    # One that it holds, as of pictures whose classes are bytes.
    all_of = Counts(nn.CrossEntropyLoss(ignore_index=255))
    assert has_licence((x, labels), nn.Linear(1, 1), all_of)


class Graphs(Dataset[Any]):
    """Graphs of different sizes, with a number each."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        draws = torch.Generator().manual_seed(index)
        return torch.randn(2 + index, 6, generator=draws), torch.tensor(index / 8)


def graph_batch(rows: list[Any]) -> Any:
    """Return all nodes in one tensor, and the graph that each belongs to."""
    nodes = torch.cat([x for x, _ in rows])
    of = torch.cat([torch.full((len(x),), i) for i, (x, _) in enumerate(rows)])
    return nodes, of, torch.stack([y for _, y in rows])


def graph_step(model: nn.Module, batch: Any) -> Tensor:
    """Return a mean over graphs."""
    nodes, of, y = batch
    sums = torch.zeros(len(y)).index_add(0, of, model(nodes).sum(1))
    return (sums / torch.bincount(of) - y).square().mean()


def node_step(model: nn.Module, batch: Any) -> Tensor:
    """Return a mean over nodes."""
    nodes, of, y = batch
    return (model(nodes).mean(1) - y[of]).square().mean()


def graph_update(size: int, step: Any, workers: int = 0, **options: Any) -> Tensor:
    """Return the update of one window over all graphs."""
    model = Perceptron()
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    Trainer(
        model,
        DataLoader(
            Graphs(), batch_size=size, collate_fn=graph_batch, num_workers=workers
        ),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=step,
        gradient_accumulation_steps=-(-8 // size),
        device="cpu",
        **options,
    ).train()
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - before


def test_graphs_are_told_by_collating_again() -> None:
    assert difference(graph_update(3, graph_step), graph_update(8, graph_step)) < 1e-5


@pytest.mark.parametrize("unit", ["mean", "sum"])
def test_one_row_a_batch_is_told_with_rows_that_follow_it(unit: str) -> None:
    loss = nn.CrossEntropyLoss(reduction=unit)
    x, y = stacked(classes())
    updates = []
    for size in (1, 8):
        model = Perceptron()
        before = flat(model)
        Trainer(
            model,
            DataLoader(TensorDataset(x, y), batch_size=size),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            loss_fn=loss,
            gradient_accumulation_steps=8 // size,
            device="cpu",
        ).train()
        updates.append(flat(model) - before)
    assert difference(*updates) < 1e-5


def test_a_mean_over_nodes_needs_a_function_and_takes_one() -> None:
    with pytest.raises(ConfigError, match="the loss is no mean over samples"):
        graph_update(3, node_step)
    by_nodes = {"loss_per": lambda batch: len(batch[0])}
    whole = graph_update(8, node_step)
    assert difference(graph_update(3, node_step, **by_nodes), whole) < 1e-6


class Plain(Dataset[Any]):
    """Rows of which none is masked; notes who is read."""

    def __init__(self) -> None:
        self.rows, self.read = torch.randn(8, 3), list[int]()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        self.read.append(row)
        return {"x": self.rows[row]}


def masked_step(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    losses = model(batch["x"]).square().mean(1)
    mask = batch.get("mask", torch.ones(len(losses)))
    return (losses * mask).sum() / mask.sum()


def test_an_evaluated_batch_that_cannot_be_cut_is_not_judged_by_training_rows() -> None:
    rows = Plain()
    weigher = Weigher(None, make_forward(None, masked_step), None, False)
    weigher.prepare(
        nn.Linear(3, 2), torch.device("cpu"), DataLoader(rows, batch_size=4)
    )
    mask = torch.tensor([1.0, 0.0, 0.0, 1.0])
    told = {"x": torch.randn(4, 3), "mask": torch.tensor([1.0, 0.0, 1.0, 1.0])}
    tells_nothing = {"x": torch.randn(4, 3), "mask": mask, "points": torch.randn(9, 2)}
    assert weigher.evaluated(told, 4) == 3.0
    assert weigher.evaluated(tells_nothing, 4) == 2.0  # as that before it
    assert rows.read == []


def test_w4_texts_of_one_width_are_told_with_labels_thinned() -> None:
    """Batches of different widths follow, and none of them could tell alone."""
    rows = texts(whole=True, masks=False)
    kind = Kind(gpt2, rows, named)
    trainer = kind.trainer((8,))
    trainer.train()
    assert list(trainer.state.weigher.settings()["live"]) == ["shifted_labels"]


@pytest.mark.parametrize(
    ("make", "unit"),
    [
        pytest.param(gpt2, "shifted_labels", id="a decoder shifts"),
        pytest.param(Perceptron, "labels", id="a tagger does not"),
    ],
)
def test_w4_a_masked_prompt_does_not_hide_the_shift(make: Any, unit: str) -> None:
    if make is gpt2:
        kind = Kind(make, texts(prompt=True), named)
    else:
        rows = [(x, y.clone()) for x, y in sequences()]
        for _, y in rows:
            y[0] = -100
            y[1] = 2
        loss = lambda out, y: F.cross_entropy(out.transpose(1, 2), y)  # noqa: E731
        kind = Kind(make, rows, stacked, {"loss_fn": loss})
    trainer = kind.trainer((8,))
    trainer.train()
    assert list(trainer.state.weigher.settings()["live"]) == [unit]


@pytest.mark.parametrize("seed", range(4))
def test_w1_a_mean_over_the_harder_two_of_four_is_refused(seed: int) -> None:
    """Neighbours among four make two cuts, which agree on it for every other batch."""

    def step(model: nn.Module, batch: list[Tensor]) -> Tensor:
        losses = (model(batch[0]) - batch[1]).square().mean(1)
        return losses.topk(len(losses) // 2)[0].mean()

    torch.manual_seed(seed)
    model, data = nn.Linear(6, 4), TensorDataset(torch.randn(40, 6), torch.randn(40, 4))
    trainer = Trainer(
        model,
        DataLoader(data, batch_size=4),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        step_fn=step,
        gradient_accumulation_steps=2,
        device="cpu",
        plugins=["no:progress", "no:run_record"],
    )
    with pytest.raises(ConfigError, match="no mean over samples"):
        trainer.train()


class Noisy(nn.Module):
    """A mean over rows of what dropout leaves of the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.dropout(outputs), targets)


def test_dropout_of_a_loss_rests_while_it_is_measured_as_that_of_a_model_does() -> None:
    noisy = Noisy()
    kind = Kind(Perceptron, classes(), stacked, {"loss_fn": noisy})
    trainer = kind.trainer(SPLIT, times=2)
    trainer.train()
    assert trainer.state.weigher.settings()["unit"] == "samples"
    assert noisy.dropout.training
