"""All kinds of losses, and which are means over a unit; here those between rows.

And those of sequences whose places are not aligned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from weighing import zoo
from weighing.zoo import ROWS, Kind, Perceptron, classes, draws, numbers, of_step
from weighing.zoo import stacked as x_y

Loss = Callable[[Tensor, Tensor], Tensor]


def ctc(reduction: str) -> Loss:
    """Return a CTC loss of outputs (B, T, C) and padded labels (B, S)."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        lengths = (targets >= 0).sum(1)
        return F.ctc_loss(
            outputs.log_softmax(-1).transpose(0, 1),
            targets.clamp(min=0),
            torch.full_like(lengths, outputs.shape[1]),
            lengths,
            reduction=reduction,
        )

    return loss


def unaligned() -> list[Any]:
    """Return rows (x (9, 6), y (4,)) of 1 to 4 labels, then -100."""
    g, rows = draws(), []
    for number in range(ROWS):
        y = torch.randint(1, 5, (4,), generator=g)
        y[1 + number % 4 :] = -100
        rows.append((torch.randn(9, 6, generator=g), y))
    return rows


def sup_con(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a supervised contrastive loss: a row against all others of its batch."""
    features = F.normalize(outputs, dim=1)
    itself = torch.eye(len(features), dtype=torch.bool)
    scores = (features @ features.T / 0.2).masked_fill(itself, -1e9)
    log_shares = scores - scores.logsumexp(1, keepdim=True)
    alike = (targets[:, None] == targets) & ~itself
    return -((log_shares * alike).sum(1) / alike.sum(1).clamp(min=1)).mean()


def mined(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a triplet loss of the hardest rows in the batch."""
    distances = torch.cdist(outputs, outputs)
    alike = targets[:, None] == targets
    furthest = (distances * alike).max(1).values
    nearest = (distances + 1e3 * alike).min(1).values
    return F.relu(furthest - nearest + 1.0).mean()


def triplets(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return a triplet loss of each row by itself."""
    return F.triplet_margin_loss(outputs, targets, targets.flip(1))


def kinds() -> dict[str, tuple[Kind, str | None]]:
    """Return name -> (kind, its unit; None: no unit explains it)."""
    of_two = [(x, y % 2) for x, y in classes()]
    table: dict[str, tuple[list[Any], Loss, str | None]] = {
        "CTC": (unaligned(), ctc("mean"), "samples"),
        "CTC, a sum": (unaligned(), ctc("sum"), "sum"),
        "triplets of a row": (numbers(), triplets, "samples"),
        "triplets mined in the batch": (of_two, mined, None),
        "SupCon": (of_two, sup_con, None),
    }
    return {
        name: (Kind(Perceptron, rows, x_y, of_step(loss)), unit)
        for name, (rows, loss, unit) in table.items()
    }


#: Name -> (kind, its unit; None: no unit explains it).
KINDS = {**zoo.kinds(), **kinds()}
FOUND = [name for name, (_, unit) in KINDS.items() if unit is not None]
NONE = [name for name, (_, unit) in KINDS.items() if unit is None]
