"""Losses of every kind, each with eight rows and the unit that it is a mean over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training import Trainer

ROWS = 8
SPLIT = (2, 3, 3)


@dataclass
class Kind:
    """A loss.

    Attributes:
        make: returns a model, the same one each time.
        rows: eight samples.
        collate: makes a batch of some.
        options: of the trainer.
        rest: how far rows depend on one another.
    """

    make: Callable[[], nn.Module]
    rows: list[Any]
    collate: Callable[[list[Any]], Any]
    options: dict[str, Any] = field(default_factory=dict)
    rest: float = 0.0

    def batches(self, sizes: tuple[int, ...]) -> list[Any]:
        """Return the rows in batches of ``sizes``."""
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        return [
            self.collate(self.rows[start : start + size])
            for start, size in zip(starts, sizes, strict=True)
        ]

    def trainer(
        self, sizes: tuple[int, ...], times: int = 1, **options: Any
    ) -> Trainer:
        """Return a trainer of one window of batches of ``sizes``, ``times`` over."""
        model = self.make()
        batches = [batch for _ in range(times) for batch in self.batches(sizes)]
        return Trainer(
            model,
            batches,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            device="cpu",
            **{
                "gradient_accumulation_steps": len(batches),
                **self.options,
                **options,
            },
        )

    def update(self, sizes: tuple[int, ...], **options: Any) -> Tensor:
        """Return what one window of batches of ``sizes`` adds to the weights."""
        trainer = self.trainer(sizes, **options)
        before = flat(trainer.model)
        trainer.train()
        return flat(trainer.model) - before


def flat(model: nn.Module) -> Tensor:
    """Return all weights, (P,), float64."""
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def difference(one: Tensor, other: Tensor) -> float:
    """Return the relative difference of two updates."""
    return float((one - other).norm() / other.norm())


class Perceptron(nn.Module):
    """From x (B, ..., 6) to (B, ..., ``width``)."""

    def __init__(
        self, width: int = 5, dropout: float = 0.0, norm: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(6, 16), nn.BatchNorm1d(16) if norm else nn.Identity()]
        layers += [nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, width)]
        self.layers = nn.Sequential(*layers)
        self.register_buffer("centre", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs."""
        return self.layers(x)  # type: ignore[no-any-return]


def stacked(rows: list[Any]) -> Any:
    """Return (inputs, targets) of rows (x, y)."""
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def draws(seed: int = 3) -> torch.Generator:
    """Return the generator of a kind's rows."""
    return torch.Generator().manual_seed(seed)


def classes() -> list[Any]:
    """Return rows (x (6,), class)."""
    g = draws()
    return [
        (torch.randn(6, generator=g), torch.randint(0, 5, (), generator=g))
        for _ in range(ROWS)
    ]


def numbers(width: int = 5) -> list[Any]:
    """Return rows (x (6,), y (width,))."""
    g = draws()
    return [
        (torch.randn(6, generator=g), torch.randn(width, generator=g))
        for _ in range(ROWS)
    ]


def sequences(ignored: int = -100, num_kept: tuple[int, ...] = (9, 1, 4)) -> list[Any]:
    """Return rows (x (9, 6), y (9,)), whose last labels are ``ignored``."""
    g, rows = draws(), []
    for number in range(ROWS):
        y = torch.randint(1, 5, (9,), generator=g)
        y[num_kept[number % len(num_kept)] :] = ignored
        rows.append((torch.randn(9, 6, generator=g), y))
    return rows


class TokenLoss(nn.CrossEntropyLoss):
    """Torch's own, with classes last."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of (B, T, C) and (B, T)."""
        return super().forward(outputs.transpose(1, 2), targets)


def of_step(function: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
    """Return the option of a step that computes ``function(outputs, targets)``."""
    return {"step_fn": lambda model, batch: function(model(batch[0]), batch[1])}


def dice(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - dice over the whole batch."""
    p, t = outputs.sigmoid(), (targets > 0).float()
    return 1 - 2 * (p * t).sum() / (p.sum() + t.sum())


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return InfoNCE of two views."""
    one, other = F.normalize(outputs, dim=1), F.normalize(targets, dim=1)
    return F.cross_entropy(one @ other.T / 0.2, torch.arange(len(one)))


def over_positives(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a mean over the numbers that are above zero."""
    positive = (targets > 0).float()
    return ((outputs - targets).square() * positive).sum() / positive.sum()


class Centred(Perceptron):
    """Its centre moves in every mode, as a teacher's does."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs less a centre that they move."""
        out = self.layers(x)
        result = out - self.centre
        with torch.no_grad():
            self.centre.mul_(0.5).add_(out.mean(0), alpha=0.5)
        return result


class SumWhenTraining(Perceptron):
    """A sum in train mode, a mean in eval mode."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """Return the loss."""
        return F.cross_entropy(
            self.layers(x), y, reduction="sum" if self.training else "mean"
        )


def masked_mean(model: nn.Module, batch: Any) -> Tensor:
    """Return a mean of squares over the ones of ``loss_mask``."""
    error = (model(batch["x"]) - batch["y"]).square().mean(-1)
    return (error * batch["loss_mask"]).sum() / batch["loss_mask"].sum()


def masked_rows() -> list[Any]:
    """Return mappings of x (9, 6), y (9, 5) and a mask (9,)."""
    g = draws()
    return [
        {
            "x": torch.randn(9, 6, generator=g),
            "y": torch.randn(9, 5, generator=g),
            "loss_mask": (torch.rand(9, generator=g) < 0.2 + 0.1 * number).float(),
        }
        for number in range(ROWS)
    ]


def named(rows: list[Any]) -> Any:
    """Return a mapping of stacked entries."""
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def row_means(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over rows of means over a row's labels."""
    losses = F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none")
    kept = (targets != -100).float()
    return (losses.sum(1) / kept.sum(1)).mean()


def two_units(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a mean over labels and one over rows."""
    tokens = F.cross_entropy(outputs.transpose(1, 2), targets)
    return tokens + outputs.square().mean()


def penalised(model: nn.Module, batch: Any) -> Tensor:
    """Return a mean of squares, and a penalty on large weights."""
    squares = sum(p.square().sum() for p in model.parameters())
    return F.mse_loss(model(batch[0]), batch[1]) + 0.1 * squares


WEIGHTS = torch.tensor([0.2, 3.0, 1.0, 0.5, 2.0])


def zero_head() -> nn.Module:
    """Return a model all of whose losses are log C at first."""
    model = Perceptron()
    nn.init.zeros_(model.layers[-1].weight)
    nn.init.zeros_(model.layers[-1].bias)
    return model


def kinds() -> dict[str, tuple[Kind, str | None]]:
    """Return name -> (kind, its unit; None: no unit explains it)."""
    ce, x_y = F.cross_entropy, stacked
    tokens = sequences()
    positive = {"pos_weight": torch.full((5,), 3.0)}
    return {
        "cross entropy": (Kind(Perceptron, classes(), x_y, {"loss_fn": ce}), "labels"),
        "a head of zeros": (
            Kind(zero_head, classes(), x_y, {"loss_fn": ce}),
            "labels",
        ),
        "with dropout": (
            Kind(lambda: Perceptron(dropout=0.5), classes(), x_y, {"loss_fn": ce}),
            "labels",
        ),
        "labels of -100": (
            Kind(Perceptron, tokens, x_y, {"loss_fn": TokenLoss()}),
            "labels",
        ),
        "ignore_index=0": (
            Kind(Perceptron, sequences(0), x_y, {"loss_fn": TokenLoss(ignore_index=0)}),
            "labels",
        ),
        "class weights": (
            Kind(
                Perceptron,
                classes(),
                x_y,
                {"loss_fn": nn.CrossEntropyLoss(WEIGHTS, label_smoothing=0.0)},
            ),
            "class_weights",
        ),
        "class weights, NLL": (
            Kind(
                lambda: nn.Sequential(Perceptron(), nn.LogSoftmax(1)),
                classes(),
                x_y,
                {"loss_fn": nn.NLLLoss(WEIGHTS)},
            ),
            "class_weights",
        ),
        "reduction='sum'": (
            Kind(
                Perceptron,
                classes(),
                x_y,
                {"loss_fn": nn.CrossEntropyLoss(reduction="sum")},
            ),
            "sum",
        ),
        "a sum in train mode only": (Kind(SumWhenTraining, classes(), x_y), "sum"),
        "a masked mean of squares": (
            Kind(Perceptron, masked_rows(), named, {"step_fn": masked_mean}),
            "mask:loss_mask",
        ),
        "mean of squares": (
            Kind(Perceptron, numbers(), x_y, {"loss_fn": F.mse_loss}),
            "samples",
        ),
        "BCE with pos_weight": (
            Kind(
                Perceptron,
                [(x, (y > 0).float()) for x, y in numbers()],
                x_y,
                {"loss_fn": nn.BCEWithLogitsLoss(**positive)},
            ),
            "samples",
        ),
        "soft targets": (
            Kind(
                Perceptron,
                [(x, y.softmax(0)) for x, y in numbers()],
                x_y,
                {"loss_fn": ce},
            ),
            "samples",
        ),
        "means of rows": (Kind(Perceptron, tokens, x_y, of_step(row_means)), "samples"),
        "a sum over answers": (
            Kind(
                Perceptron,
                numbers(),
                x_y,
                of_step(lambda out, y: (out - y).square().sum(1).mean()),
            ),
            "samples",
        ),
        "BatchNorm": (
            Kind(lambda: Perceptron(norm=True), classes(), x_y, {"loss_fn": ce}),
            "labels",
        ),
        "a centre that moves": (
            Kind(Centred, numbers(), x_y, {"loss_fn": F.mse_loss}),
            "samples",
        ),
        "an L2 penalty": (
            Kind(Perceptron, numbers(), x_y, {"step_fn": penalised}),
            "samples",
        ),
        "InfoNCE": (Kind(Perceptron, numbers(), x_y, of_step(contrastive)), None),
        "Pearson": (
            Kind(
                Perceptron,
                numbers(),
                x_y,
                of_step(
                    lambda a, b: (
                        -F.cosine_similarity(
                            (a - a.mean(0)).flatten(), (b - b.mean(0)).flatten(), dim=0
                        )
                    )
                ),
            ),
            None,
        ),
        "dice": (Kind(Perceptron, numbers(), x_y, of_step(dice)), None),
        "the root of a mean": (
            Kind(
                Perceptron,
                numbers(),
                x_y,
                of_step(lambda a, b: F.mse_loss(a, b).sqrt()),
            ),
            None,
        ),
        "the log of a mean": (
            Kind(
                Perceptron, numbers(), x_y, of_step(lambda a, b: F.mse_loss(a, b).log())
            ),
            None,
        ),
        "over positives": (
            Kind(Perceptron, numbers(), x_y, of_step(over_positives)),
            None,
        ),
        "two means of different units": (
            Kind(Perceptron, tokens, x_y, of_step(two_units)),
            None,
        ),
    }
