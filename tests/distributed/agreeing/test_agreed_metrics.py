"""Metrics of one's own are of the rows of all processes, and one number for all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ranks import RankError, Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader

from trainbus_evaluation import EvaluationCallback, Evaluator
from training import Trainer

pytestmark = pytest.mark.distributed

ROWS = 7
X = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True).sin()
NAMES = ("mae", "mse", "by_place")


def by_place(outputs: Tensor, targets: Tensor) -> Tensor:
    """Weighs each error by its place in the loader."""
    places = torch.arange(1.0, len(targets) + 1)[:, None]
    return ((outputs - targets).abs() * places).sum() / len(targets)


class Updated:
    name = "updated"

    def reset(self) -> None:
        self.total = 0.0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.total += float((outputs - targets).abs().sum())

    def compute(self) -> float:
        return self.total


def loader(kind: str) -> Any:
    """Return batches of 3, 3 and 1 rows, so that a process has none of the last."""
    if kind == "cannot be cut":  # goes to one process each, in turn
        parts = zip(X.split(3), Y.split(3), strict=True)
        return [{"x": x, "labels": y, "n": [1] * 9} for x, y in parts]
    order = range(ROWS) if kind == "in order" else range(ROWS - 1, -1, -1)
    rows = [{"x": X[i], "labels": Y[i]} for i in order]
    return DataLoader(rows, batch_size=3)


class Named(nn.Linear):
    def forward(self, x: Tensor, labels: Tensor, n: Any = None) -> dict[str, Tensor]:
        y = super().forward(x)
        return {"logits": y, "loss": nn.functional.mse_loss(y, labels)}


def history(kind: str, metrics: Any = ("mae", "mse", by_place)) -> list[Any]:
    torch.manual_seed(0)
    model = Named(3, 1)
    trainer = Trainer(
        model,
        loader("in order"),
        loader(kind),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        num_epochs=2,
        seed=3,
        device="cpu",
        plugins=[{"distributed": {}}],
        callbacks=[EvaluationCallback(metrics=list(metrics))],
    )
    trainer.train()
    return [[row[name] for name in NAMES] for row in trainer.history]


@pytest.mark.parametrize("kind", ["in order", "cannot be cut"])
def test_d22_metrics_of_ones_own_are_those_of_one_process(
    two: Ranks, kind: str
) -> None:
    alone = history(kind)
    first, second = two.run(history, kind)
    assert first == second
    for own, row in zip(alone, first, strict=True):
        assert row == pytest.approx(own, abs=1e-6)


def test_d22_a_function_that_minds_the_order_of_rows_tells_it() -> None:
    """The control of what stands above."""
    one, other = history("in order")[-1], history("backwards")[-1]
    assert other[:2] == pytest.approx(one[:2], abs=1e-6)
    assert other[2] != pytest.approx(one[2], rel=1e-2)


def updated(given: bool) -> int:
    """Return at which step a run with an object was refused."""
    model = Named(3, 1)
    evaluator = Evaluator(model, metrics=["loss", Updated()]) if given else None
    metrics = None if given else [Updated()]
    trainer = Trainer(
        model,
        loader("in order"),
        loader("in order"),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        device="cpu",
        plugins=[{"distributed": {}}],
        callbacks=[EvaluationCallback(evaluator, metrics)],
    )
    trainer.train()
    return trainer.step


@pytest.mark.parametrize("given", [False, True])
def test_d22_an_object_whose_parts_nobody_can_unite_is_refused_with_the_way_out(
    two: Ranks, given: bool
) -> None:
    with pytest.raises(RankError, match=r"'updated' .*; pass a function"):
        two.run(updated, given)
    assert updated(given) == 3  # alone it is measured


def refused() -> int:
    """Return how many steps a run made whose function fails on the main process."""

    def fails(outputs: Tensor, targets: Tensor) -> float:
        raise ZeroDivisionError("nothing to divide by")

    with pytest.raises(ZeroDivisionError, match="nothing to divide by"):
        history("in order", [fails])
    return 0


def test_d22_what_a_function_fails_of_reaches_all(two: Ranks) -> None:
    assert two.run(refused) == [0, 0]
